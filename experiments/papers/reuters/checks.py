"""Linear models of Reuters' topics, which know words and no order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmlab.papers.measuring import NotMeasured
from lmlab.registry import datasets


def linear_svm() -> Mapping[str, float]:
    """The share of test articles whose topic is right: TF-IDF of words with 1 + log tf, trained on train and valid."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC
    except ImportError:
        raise NotMeasured("scikit-learn is not installed: pip install 'lmlab[metrics]'") from None
    found = {}
    for name in ("r8", "r52"):
        corpus: Any = datasets.get(f"reuters_{name}")()
        trained = [example for split in ("train", "valid") for example in corpus.split(split)]
        tested = corpus.split("test")
        tfidf = TfidfVectorizer(sublinear_tf=True)
        svm = LinearSVC().fit(tfidf.fit_transform([e.text for e in trained]), [e.label for e in trained])
        found[name] = float(svm.score(tfidf.transform([e.text for e in tested]), [e.label for e in tested]))
    return found
