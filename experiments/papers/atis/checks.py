"""A linear model of ATIS's intents, which knows pairs of words and no order beyond them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmlab.papers.measuring import NotMeasured
from lmlab.registry import datasets


def linear_svm() -> Mapping[str, float]:
    """The share of test questions whose intent is right: TF-IDF of words and pairs, trained on all of train_dev."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC
    except ImportError:
        raise NotMeasured("scikit-learn is not installed: pip install 'lmlab[metrics]'") from None
    corpus: Any = datasets.get("atis_intent")()
    trained = [example for split in ("train", "valid") for example in corpus.split(split)]
    tested = corpus.split("test")
    tfidf = TfidfVectorizer(ngram_range=(1, 2))
    svm = LinearSVC().fit(tfidf.fit_transform([e.text for e in trained]), [e.label for e in trained])
    return {"intent": float(svm.score(tfidf.transform([e.text for e in tested]), [e.label for e in tested]))}
