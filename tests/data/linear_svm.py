"""TF-IDF and a linear SVM: the accuracy that a corpus's own splits give to a model that knows no order of words."""

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC


def accuracy(dataset, train: tuple[str, ...], on: str, **vectorizer) -> float:
    """Per cent right on a split, after training on others; scikit-learn's defaults but for `vectorizer`'s settings."""
    examples = [example for split in train for example in dataset.split(split)]
    tfidf = TfidfVectorizer(**vectorizer)
    svm = LinearSVC().fit(tfidf.fit_transform([e.text for e in examples]), [e.label for e in examples])
    tested = dataset.split(on)
    return 100 * svm.score(tfidf.transform([e.text for e in tested]), [e.label for e in tested])
