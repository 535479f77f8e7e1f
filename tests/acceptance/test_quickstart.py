"""What the README promises of its first command: the whole quick start, judged on the whole validation split."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmlab.config import build
from lmlab.training.run import Run

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "baselines"))

from ngram_bytes import bits_per_byte  # noqa: E402


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    pytest.importorskip("lmlab_third_party", reason="the plug-ins are there once lmlab is installed")
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    exactly = "perplexity.batches = None; experiment.eval_every = 0"
    words = ["train", str(ROOT / "experiments/quickstart.gin"), "--set", exactly, "--run", str(folder)]
    as_a_user = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # optimized, on one device
    subprocess.run([sys.executable, "-m", "lmlab", *words], check=True, env=as_a_user, cwd=ROOT)
    return Run(folder)


@pytest.mark.long
def test_the_quick_start_beats_an_interpolated_byte_4_gram_of_the_same_training_split(quickstart):
    from lmlab.data.features.stream import text_stream

    program = quickstart.program
    dataset = build(program.experiment.dataset)
    train, valid = (text_stream(dataset.split(split), program.tokenizer).ids for split in ("train", "valid"))
    reached = quickstart.metrics()[-1]["valid/bits_per_byte"]
    baseline = bits_per_byte(np.asarray(train), np.asarray(valid))
    print(f"\nquick start: {reached:.4f} bits/byte; interpolated byte 4-gram: {baseline:.4f}")
    assert reached < baseline


@pytest.mark.long
def test_its_samples_look_like_python(quickstart):
    """Most of the words that it writes are words of its corpus, and it indents, defines and assigns."""
    samples = (quickstart.folder / "samples" / f"{quickstart.step}.txt").read_text(encoding="utf-8")
    corpus = " ".join(document.text for document in build(quickstart.program.experiment.dataset).split("train"))
    known = set(re.findall(r"[A-Za-z_]{2,}", corpus))
    written = re.findall(r"[A-Za-z_]{2,}", samples)
    assert sum(word in known for word in written) / len(written) > 0.6
    assert re.search(r"^    +\w", samples, re.MULTILINE)
    assert {"def", "self", "return", "if", "import", "class", "for", "None"} & set(written)
