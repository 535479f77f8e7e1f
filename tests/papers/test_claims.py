"""claims.toml: what is read from it, and one line for every mistake in it."""

import pytest
from small_paper import CLAIMS, write_paper

from lmlab.errors import ConfigError
from lmlab.papers.claims import Band, Cost, read_paper


def test_a_paper_is_read_as_it_was_written(tmp_path):
    paper = read_paper(write_paper(tmp_path), "tiny")
    loss, gain, seven = paper.claims
    assert (loss.band, loss.published, loss.metric, loss.runs) == (
        Band(0.1, 3.0),
        2.4,
        "valid/nats_per_token",
        ("tiny",),
    )
    assert loss.band_at(0.5) == Band(0.1, 2.9) and loss.band_at(0.3) is None and loss.band_at(1) == loss.band
    assert (gain.judge, gain.published, seven.check, seven.cost) == ("gain", None, "counts", Cost(0.1, 0.1))
    assert paper.runs["tiny"].seeds == (0, 1) and paper.runs["tiny"].early == (0.5,)
    with pytest.raises(ConfigError, match=r"no claim 'los'\. Did you mean 'loss'\?"):
        paper.claim("los")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "A tiny network"', "title = ", "is not TOML"),
        ('title = "A tiny network"', "title = 3", "title wants a text, not 3"),
        ('title = "A tiny network"', 'title = " "', "title wants a text"),
        ('source = "nowhere"', "", "source is missing"),
        ('source = "nowhere"', 'source = "x"\nsuorce = "y"', "no key 'suorce'. Did you mean 'source'?"),
        ("published = 2.4", "publisehd = 2.4", "claims 1: there is no key 'publisehd'. Did you mean 'published'?"),
        ("published = 2.4", "published = true", "published wants a finite number"),
        ("published = 2.4", "published = nan", "published wants a finite number"),
        ("band = [0.1, 3.0]", "band = [3.0, 0.1]", "band wants [lowest, highest]"),
        ("band = [0.1, 3.0]", "band = [nan, 0.1]", "band wants [lowest, highest]"),
        ("band = [0.1, 3.0]", "band = 3", "band wants [lowest, highest]"),
        ("band = [0.1, 3.0]", "", "band is missing"),
        ('id = "gain"', 'id = "loss"', "two claims have the id 'loss'"),
        ('id = "gain"', 'id = "../gain"', "is no name"),
        ("[runs.tiny]", '[runs."../tiny"]', "is no name"),
        ('file = "tiny.gin"', 'file = "tyni.gin"', "there is no"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "seeds wants different seeds"),
        ("seeds = [0, 1]", "seeds = [true]", "seeds wants different seeds"),
        ("seeds = [0, 1]", "seeds = []", "seeds wants different seeds"),
        ("two_cores = 4.0", "two_cores = -1", "cannot be below 0"),
        ("two_cores = 4.0", "two_core = 4.0", "two_cores is missing"),
        (
            'runs = ["tiny"]\nmetric',
            'runs = ["tinny"]\nmetric',
            "'tinny', which is none of the runs. Did you mean 'tiny'",
        ),
        ('judge = "gain"', 'judge = "gain"\nmetric = "x"', "or judge, one of them"),
        ('judge = "gain"', 'check = "counts"', "check needs no training: leave runs out"),
        ('check = "counts"', "", "or check must say what the number is measured by"),
        ("at = 0.5", "at = 1.5", "shares of the steps between 0 and 1"),
        ("at = 0.5", "at = 0.0", "shares of the steps between 0 and 1"),
        ('why = "exact"\nminutes = { two_cores = 0.1, h100 = 0.1 }', 'why = "exact"', "minutes are to be said"),
        ('why = "log 11"', 'why = "log 11"\nover = "meen"', "Did you mean 'mean'"),
        ('file = "tiny.gin"', "file = \"tiny.gin\"\nset = 'a'", "set wants a list of texts"),
        ("[runs.tiny]", "[runs]\nother = 3\n[runs.tiny]", "runs.other wants a table"),
    ],
)
def test_every_mistake_is_one_line_that_names_file_and_key(tmp_path, old, new, message):
    assert old in CLAIMS
    folder = write_paper(tmp_path, CLAIMS.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_paper(folder, "tiny")
    said = str(caught.value)
    assert message in said and "claims.toml" in said


def test_bytes_that_are_no_text_and_deep_nesting_are_refused(tmp_path):
    folder = write_paper(tmp_path)
    for content in (b"\xff\xfe\x00", b"a = " + b"[" * 5000):
        (folder / "tiny" / "claims.toml").write_bytes(content)
        with pytest.raises(ConfigError, match="is not TOML"):
            read_paper(folder, "tiny")


@pytest.mark.parametrize("name", ["../tiny", "tin", "", "Tiny"])
def test_a_paper_that_is_not_there_names_those_that_are(tmp_path, name):
    with pytest.raises(ConfigError, match="papers: tiny"):
        read_paper(write_paper(tmp_path), name)
