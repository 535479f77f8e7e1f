"""CPython's own text, through the same door as any plug-in."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.cpython import stdlib as module
from lmlab_third_party.cpython.stdlib import Stdlib

from lmlab.errors import DataError
from lmlab.registry import datasets, load_installed_plugins


@pytest.fixture(scope="module")
def corpus():
    return Stdlib()


def test_it_is_registered_by_the_installed_plug_in():
    load_installed_plugins()
    assert datasets.get("stdlib") is Stdlib


def test_it_holds_prose_and_code_in_three_disjoint_splits(corpus):
    splits = {name: {text.source for text in corpus.split(name)} for name in ("train", "valid", "test")}
    assert not splits["train"] & splits["valid"] and not (splits["train"] | splits["valid"]) & splits["test"]
    sources = set().union(*splits.values())
    assert {"topics/assert", "os.py", "json/decoder.py", "asyncio/tasks.py"} <= sources
    sizes = {name: sum(len(text.text) for text in corpus.split(name)) for name in splits}
    assert sizes["train"] > 7_000_000 and sizes["valid"] > 200_000 and sizes["test"] > 150_000


def test_what_is_not_cpythons_or_is_for_tests_is_left_out(corpus):
    sources = {text.source for name in ("train", "valid", "test") for text in corpus.split(name)}
    assert not [s for s in sources if "site-packages" in s or "sysconfigdata" in s or "/test/" in s or "config-" in s]
    assert "pydoc_data/topics.py" not in sources  # its texts are there as texts, each in one split


def test_the_parts_are_topics_and_sources(corpus):
    topics, sources = Stdlib("topics"), Stdlib("sources")
    assert all(text.source.startswith("topics/") for text in topics.split("train"))
    assert all(text.source.endswith(".py") for text in sources.split("train"))
    assert {*topics.split("valid"), *sources.split("valid")} == {*corpus.split("valid")}


def test_the_fingerprint_names_the_interpreter_and_the_contents(corpus):
    assert corpus.fingerprint()["python"] == platform.python_version()
    assert corpus.fingerprint() == Stdlib().fingerprint() != Stdlib("topics").fingerprint()


def test_documents_come_in_the_same_order_in_every_process(corpus):
    program = "from lmlab_third_party.cpython.stdlib import Stdlib; print(Stdlib('topics').fingerprint())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{Stdlib('topics').fingerprint()}\n"}


def test_nothing_is_executed(tmp_path):
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text("topics = {'b': 'two', 'a': 'one'}\nraise SystemExit")
    assert [text.text for text in module._topics(tmp_path / "pydoc_data" / "topics.py")] == ["one", "two"]


def test_sources_are_read_in_their_own_coding(tmp_path):
    (tmp_path / "a.py").write_bytes(b"# coding: latin-1\nx = '\xe9'\n")
    assert [text.text for text in module._sources(tmp_path, False)] == ["# coding: latin-1\nx = 'é'\n"]


def test_a_python_without_sources_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"there are no \.py files in .*text_files"):
        list(module._sources(tmp_path, False))
    with pytest.raises(DataError, match=r"this Python has no .*topics\.py"):
        list(module._topics(tmp_path / "pydoc_data" / "topics.py"))
    (tmp_path / "a.py").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not text in its own coding"):
        list(module._sources(tmp_path, False))
