"""Checkpoints of Transformers as runs and back: the same numbers, the same texts, the same tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.data.features.pairs import target_start
from lmlab.errors import DataError
from lmlab.generation.beam import BeamOptions, BeamSearch
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.generation.writing import Author
from lmlab.interop.hugging_face import export_checkpoint, import_checkpoint
from lmlab.testing.tiny import small_files

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")
from safetensors.numpy import load_file, save_file  # noqa: E402  # behind what skips without it

V, T, L, H, K, INNER, END = 257, 31, 2, 6, 4, 37, 256
D = H * K


def gpt2(**given: Any) -> Any:
    sizes = {"vocab_size": V, "n_positions": T, "n_embd": D, "n_layer": L, "n_head": H, "n_inner": INNER}
    config = transformers.GPT2Config(eos_token_id=END, bos_token_id=END, **{**sizes, **given})
    return transformers.GPT2LMHeadModel(config)


def rotary(**given: Any) -> dict[str, Any]:
    return {
        "vocab_size": V, "hidden_size": D, "intermediate_size": INNER, "num_hidden_layers": L,
        "num_attention_heads": H, "max_position_embeddings": T, "rms_norm_eps": 1e-3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}, "eos_token_id": END, "bos_token_id": END,
        **given,
    }  # fmt: skip


def llama(**given: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**rotary(**given)))


def mistral() -> Any:
    config = transformers.MistralConfig(**rotary(num_key_value_heads=2, sliding_window=5))
    return transformers.MistralForCausalLM(config)


def mamba(**given: Any) -> Any:
    config = transformers.MambaConfig(
        vocab_size=V, hidden_size=D, state_size=5, num_hidden_layers=L, conv_kernel=3, pad_token_id=None,
        bos_token_id=END, eos_token_id=END, **given,
    )  # fmt: skip
    return transformers.MambaForCausalLM(config)


def bert(kind: str = "BertForMaskedLM") -> Any:
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=H, intermediate_size=INNER,
        max_position_embeddings=T, type_vocab_size=2, pad_token_id=None,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


CAUSAL = {
    "gpt2": gpt2,
    "gpt2 with what is usual left out": lambda: gpt2(n_inner=None),
    "gpt2 with a head of its own": lambda: gpt2(tie_word_embeddings=False, activation_function="relu"),
    "llama": llama,
    "llama with grouped queries, tied": lambda: llama(num_key_value_heads=3, tie_word_embeddings=True),
    "mistral": mistral,
    "mamba": mamba,
    "mamba with a rank": lambda: mamba(time_step_rank=7, expand=3, tie_word_embeddings=False),
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """Their model and its folder, made once for each name."""
    return {}


def saved(shelf: dict, name: str, model: Any, where: Path, **how: Any) -> tuple[Any, Path]:
    if name not in shelf:
        made = model()
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for path, weight in made.named_parameters():
                scale = weight.ndim == 1 and path.endswith("weight")
                weight.copy_(scale + 0.2 * torch.randn(weight.shape, generator=generator))
        folder = where / name.replace(" ", "-")
        made.eval().save_pretrained(folder, **how)
        shelf[name] = (made, folder)
    return shelf[name]


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def ids() -> np.ndarray:
    return np.random.default_rng(3).integers(0, END, (3, T - 9))


def their_logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(ids())).logits.numpy()


def imported(folder: Path, run: Path, *overrides: str) -> tuple[SavedRun, dict[str, jax.Array]]:
    import_checkpoint(folder, run, overrides)
    found = SavedRun(str(run))
    return found, dict(found.params())


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models_come_and_go(name: str, shelf: dict, place: Path) -> None:
    theirs, folder = saved(shelf, name, CAUSAL[name], place)
    run, params = imported(folder, place / "run")
    model = run.program.model
    logits = jax.jit(lambda params, tokens: model.bind(params).logits(tokens))(params, ids())
    wanted = their_logits(theirs)
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(logits, wanted, atol=1e-4)

    prompts, end = [ids()[0, :4], ids()[1, :1], ids()[2, :6]], 5
    written = Decoder(model, Greedy(), end_of_text=end, limit=T).complete(params, prompts, length=7)
    searched = BeamSearch(model, BeamOptions(3), end_of_text=end, limit=T).search(params, prompts, length=7)
    for prompt, greedy, found in zip(prompts, written, searched, strict=True):
        given = torch.tensor(prompt[None])
        how = {"attention_mask": torch.ones_like(given), "do_sample": False, "max_new_tokens": 7, "eos_token_id": end}
        row = theirs.generate(given, pad_token_id=end, **how)[0, len(prompt) :].tolist()
        assert greedy.tolist() == (row[: row.index(end)] if end in row else row)
        best = theirs.generate(given, pad_token_id=end, num_beams=3, early_stopping="never", **how)
        row = best[0, len(prompt) :].tolist()
        assert found[0].tokens.tolist() == (row[: row.index(end)] if end in row else row)

    out = place / "out"
    export_checkpoint(run.program, params, out)
    ours, before = load_file(out / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == before.keys()
    for tensor, value in before.items():
        np.testing.assert_array_equal(ours[tensor], value, err_msg=tensor)
    again = transformers.AutoModelForCausalLM.from_pretrained(out)
    np.testing.assert_allclose(their_logits(again), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForPreTraining", "BertModel"])
def test_encoders_come_and_go(kind: str, shelf: dict, place: Path) -> None:
    theirs, folder = saved(shelf, kind, lambda: bert(kind), place)
    report = import_checkpoint(folder, place / "run")
    run = SavedRun(str(place / "run"))
    params = dict(run.params())
    with torch.no_grad():
        output = theirs(torch.tensor(ids()))
    model = run.program.model

    @jax.jit
    def read(params: dict[str, jax.Array], tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        bound = model.bind(params)
        states = bound.encode(tokens)
        return states, bound.project(states), bound.pool(states)

    states, logits, vectors = read(params, ids())
    if kind == "BertModel":
        assert set(report.new) == {path for path in params if path.startswith("head/")}
        np.testing.assert_allclose(states, output.last_hidden_state.numpy(), atol=1e-4)
        np.testing.assert_allclose(vectors, output.pooler_output.numpy(), atol=1e-4)
        return
    wanted = output.logits if kind == "BertForMaskedLM" else output.prediction_logits
    np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-4)
    if kind == "BertForMaskedLM":
        assert {path.split("/")[0] for path in report.new} == {"pooler"}
        return
    assert not report.new
    assert {name.split(".")[1] for name in report.ignored} <= {"seq_relationship", "predictions", "embeddings"}
    export_checkpoint(run.program, params, place / "out")
    again = transformers.AutoModelForMaskedLM.from_pretrained(place / "out")
    with torch.no_grad():
        np.testing.assert_allclose(again(torch.tensor(ids())).logits.numpy(), wanted.numpy(), atol=1e-6)


def test_several_files(shelf: dict, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, folder = saved(shelf, "gpt2 in parts", gpt2, place, max_shard_size="9KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    run, params = imported(folder, place / "run")
    monkeypatch.setattr("lmlab.interop.tensor_files.SHARD", 9000)
    export_checkpoint(run.program, params, place / "out")
    assert len(list((place / "out").glob("model-*.safetensors"))) > 3
    again = transformers.AutoModelForCausalLM.from_pretrained(place / "out")
    np.testing.assert_array_equal(their_logits(again), their_logits(theirs))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_read_as_float32(dtype: str, shelf: dict, place: Path) -> None:
    theirs, _ = saved(shelf, "gpt2", gpt2, place)
    half = gpt2()
    half.load_state_dict(theirs.state_dict())
    half.to(getattr(torch, dtype)).save_pretrained(place / dtype)
    _, params = imported(place / dtype, place / "run")
    wanted = half.transformer.wte.weight.detach().float().numpy()
    np.testing.assert_array_equal(params["embedding/embedding"], wanted)
    assert {value.dtype for value in params.values()} == {np.dtype(np.float32)}


def test_names_of_early_files(shelf: dict, place: Path) -> None:
    """Without the prefix of the model, with masks, and with `gamma` and `beta`."""
    theirs, folder = saved(shelf, "gpt2", gpt2, place)
    bare = {name.removeprefix("transformer."): value for name, value in load_file(folder / "model.safetensors").items()}
    bare["h.0.attn.bias"] = np.tril(np.ones((1, 1, T, T), np.float32))
    bare["h.1.attn.masked_bias"] = np.array(-1e4, np.float32)
    (place / "bare").mkdir()
    save_file(bare, place / "bare" / "model.safetensors")
    shutil.copy(folder / "config.json", place / "bare")
    report = import_checkpoint(place / "bare", place / "run")
    assert report.ignored == ("h.0.attn.bias", "h.1.attn.masked_bias")
    theirs, folder = saved(shelf, "BertForPreTraining", lambda: bert("BertForPreTraining"), place)
    old = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in old.items()
    }
    (place / "old").mkdir()
    save_file(old, place / "old" / "model.safetensors")
    shutil.copy(folder / "config.json", place / "old")
    _, params = imported(place / "old", place / "second")
    np.testing.assert_array_equal(params["input_norm/scale"], theirs.bert.embeddings.LayerNorm.weight.detach().numpy())


def test_a_model_may_have_more_ids_than_its_tokenizer(shelf: dict, place: Path) -> None:
    theirs, folder = saved(shelf, "gpt2 with more ids", lambda: gpt2(vocab_size=V + 7), place)
    shutil.copytree(folder, place / "whole")
    shutil.copy(small_files() / "tokenizer.json", place / "whole")
    run, params = imported(place / "whole", place / "run")
    assert run.program.data.vocab == len(run.program.tokenizer.token_bytes()) == V + 7
    assert run.program.tokenizer.decode([*b"so", V + 3]) == "so"
    model = run.program.model
    np.testing.assert_allclose(model.bind(params).logits(ids()), their_logits(theirs), atol=1e-4)


def test_a_tokenizer_comes_along_and_goes_with_it(shelf: dict, place: Path) -> None:
    _, folder = saved(shelf, "gpt2", gpt2, place)
    shutil.copytree(folder, place / "whole")
    shutil.copy(small_files() / "tokenizer.json", place / "whole")
    run, params = imported(place / "whole", place / "run")
    export_checkpoint(run.program, params, place / "out")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(place / "out" / "tokenizer.json"))
    text = "The quick brown fox, weiß."
    assert theirs.encode(text) == run.program.tokenizer.encode(text).tolist()
    assert json.loads((place / "out" / "config.json").read_text())["eos_token_id"] == END


def t5(gated: bool) -> Any:
    config = transformers.T5Config(
        vocab_size=V, d_model=D, d_kv=5, d_ff=INNER, num_layers=L, num_decoder_layers=L + 1, num_heads=H,
        relative_attention_num_buckets=6, relative_attention_max_distance=9, pad_token_id=2, decoder_start_token_id=2,
        eos_token_id=END, feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=not gated,
    )  # fmt: skip
    made = transformers.T5ForConditionalGeneration(config)
    if gated:  # 5.23 ties the weights of T5 1.1 until it reads a checkpoint that has both
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
    return made


@pytest.mark.parametrize("gated", [False, True], ids=["T5", "T5 1.1"])
def test_an_encoder_decoder_comes_and_goes(gated: bool, shelf: dict, place: Path) -> None:
    theirs, folder = saved(shelf, f"t5 {gated}", lambda: t5(gated), place)
    folder = shutil.copytree(folder, place / "whole")
    with pytest.raises(DataError, match=r"has no tokenizer\.json, which a 't5' needs"):
        import_checkpoint(folder, place / "none")
    shutil.copy(small_files() / "tokenizer.json", folder)
    run, params = imported(folder, place / "run")
    model, tokenizer = run.program.model, run.program.tokenizer
    assert run.program.experiment.seq_len == run.program.experiment.source_len == 512
    assert target_start(tokenizer) == 2
    texts = ["the quick brown fox", "so", "a lazy dog!"]
    rows = [np.append(tokenizer.encode(text), END) for text in texts]
    source = np.stack([np.pad(row, (0, 24 - len(row)), constant_values=2) for row in rows])
    there = np.arange(24) < np.array([[len(row)] for row in rows])
    target = ids()[:, :7]
    given = {"input_ids": torch.tensor(source), "attention_mask": torch.tensor(there.astype(np.int64))}
    with torch.no_grad():
        wanted = theirs(**given, decoder_input_ids=torch.tensor(target)).logits.numpy()
    memory = model.bind(params).encode_source(source, segment_ids=there.astype(np.int32))
    logits = model.bind(params).project(model.bind(params).decode(target, memory)[0])
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(logits, wanted, atol=1e-4)

    writer = Author(run.program, Greedy())
    how = {"max_new_tokens": 9, "do_sample": False, "num_beams": 1, "use_cache": False}  # which has no L + 1 blocks
    greedy = theirs.generate(**given, **how)
    best = theirs.generate(**given, **{**how, "num_beams": 3}, early_stopping="never")
    said = lambda row: bytes(i for i in row.tolist() if i not in (2, END)).decode(errors="replace")  # noqa: E731
    assert writer.write(params, texts, length=9, seed=0) == [said(row) for row in greedy]
    found = writer.search(params, texts, BeamOptions(3), length=9)
    assert [row[0][0] for row in found] == [said(row) for row in best]

    export_checkpoint(run.program, params, place / "out")
    ours, before = load_file(place / "out" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == {name for name in before if "embed_tokens" not in name}
    again = transformers.T5ForConditionalGeneration.from_pretrained(place / "out")
    assert (again.config.decoder_start_token_id, again.config.eos_token_id) == (2, END)
    with torch.no_grad():
        np.testing.assert_allclose(
            again(**given, decoder_input_ids=torch.tensor(target)).logits.numpy(), wanted, atol=1e-6
        )
