"""A store that is damaged, or a folder that cannot be written: one clear line each, and the way out works."""

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from lmlab.config import resolve
from lmlab.data.datasets.prepared import Prepared, PreparedExamples
from lmlab.data.prepared import Request, prepare
from lmlab.errors import DataError


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "corpus.txt").write_text("".join(f"line {i} of it\n" for i in range(30_000)))
    text = f"text_files.train = '{folder / 'corpus.txt'}'; text_files.documents = 'line'"
    dataset = resolve([], [text], root="text_files").spec
    return Request(dataset, resolve([], root="characters").spec, shard_size=100_000)


@pytest.fixture(scope="module")
def whole_store(request_, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "store"
    prepare(request_, folder, lambda line: None)
    return folder


@pytest.fixture
def store(whole_store, tmp_path):
    """One to be damaged."""
    return shutil.copytree(whole_store, tmp_path / "store")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["train-00002.ids", "train-00000.documents"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "bytes, not .* it was cut off or changed"), (flip, "is damaged"), (os.remove, "No such file")],
)
def test_a_damaged_shard_is_named_and_made_again(store, request_, name, damage, message):
    whole = files(store)
    damage(store / name)
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        Prepared(str(store)).split("train")
    said = []
    prepare(request_, store, said.append)
    assert files(store) == whole
    assert [line.split(":")[0] for line in said[:-1]] == [f"train {int(name[6:11])}"], "only what is damaged"


def test_a_damaged_shard_of_examples(request_, tmp_path):
    request = Request(request_.dataset, request_.tokenizer, examples=True)
    prepare(request, tmp_path / "store", lambda line: None)
    flip(tmp_path / "store" / "valid-00000.examples")
    found = PreparedExamples(str(tmp_path / "store"))
    assert len(found.split("test"))
    with pytest.raises(DataError, match=r"valid-00000\.examples is damaged"):
        found.split("valid")


def test_a_damaged_tokenizer(store, request_):
    flip(store / "tokenizer.json")
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged.*Delete the folder"):
        _ = Prepared(str(store)).tokenizer
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged.*Delete the folder"):
        prepare(request_, store, lambda line: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], "is no manifest"),
        (lambda text: "[]", "is of format None"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "is of format 2; this lmlab reads 1"),
        (lambda text: text.replace('"dtype": "uint8"', '"dtype": "uint16"'), "was changed: its own sha256"),
    ],
)
def test_a_wrong_manifest(store, change, message):
    path = store / "manifest.json"
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    with pytest.raises(DataError, match=rf"manifest\.json {message}"):
        Prepared(str(store)).split("train")


def test_no_store_at_all(tmp_path):
    with pytest.raises(DataError, match=r"holds no prepared corpus .* 'lmlab data prepare CONFIG --out"):
        Prepared(str(tmp_path)).split("train")


FULL = """
import json, resource, sys
from pathlib import Path
from lmlab.config import spec_from_json
from lmlab.data.prepared import Request, prepare
from lmlab.errors import LmlabError
dataset, tokenizer = map(spec_from_json, json.loads(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
request = Request(dataset, tokenizer, shard_size=100_000, examples=bool(int(sys.argv[4])))
try:
    prepare(request, Path(sys.argv[2]), lambda line: None)
except LmlabError as error:
    print(error)
"""


@pytest.mark.parametrize(("room", "examples"), [pytest.param(100, 0, marks=pytest.mark.long), (50_000, 0), (50_000, 1)])
def test_a_full_disk(request_, tmp_path, room, examples):
    from lmlab.config import spec_to_json

    specs = json.dumps([spec_to_json(request_.dataset), spec_to_json(request_.tokenizer)])
    words = [sys.executable, "-c", FULL, specs, str(tmp_path / "store"), str(room), str(examples)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert "cannot be written" in done.stdout and "File too large" in done.stdout and done.stdout.count("\n") == 1
    assert not (tmp_path / "store" / "manifest.json").exists()
    assert not list((tmp_path / "store").glob(".*.part"))
    request = Request(request_.dataset, request_.tokenizer, shard_size=100_000, examples=bool(examples))
    prepare(request, tmp_path / "store", lambda line: None)
    prepare(request, tmp_path / "other", lambda line: None)
    assert files(tmp_path / "store") == files(tmp_path / "other")


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_a_read_only_folder(request_, tmp_path):
    from lmlab.config import spec_to_json

    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o555)
    specs = json.dumps([spec_to_json(request_.dataset), spec_to_json(request_.tokenizer)])
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    unlimited = str(resource.RLIM_INFINITY)
    words = [*powerless, sys.executable, "-c", FULL, specs, str(tmp_path / "store"), unlimited, "0"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert f"{tmp_path / 'store'} cannot be written: Permission denied. Give yourself the permission" in done.stdout
    assert done.stdout.count("\n") == 1


def test_two_at_the_same_time(request_, store):
    import fcntl

    with (store / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="is being prepared by another process"):
            prepare(request_, store, lambda line: None)
