"""Transformers with random weights, against the same weights in Hugging Face's models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import hugging_face_weights as weights_of
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.generation.beam import BeamOptions, BeamSearch
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy, Sample
from lmlab.interop.families import BERT as BERT_OF_TRANSFORMERS
from lmlab.interop.families import GPT2, LLAMA
from lmlab.interop.families import T5 as T5_OF_TRANSFORMERS
from lmlab.models.bert import BERT
from lmlab.models.encoder_decoder import T5
from lmlab.models.gpt import GPT
from lmlab.models.llama import Llama
from lmlab.nn.functional import ModelDef, Params

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

V, T, S, B, L, H, K = 53, 13, 11, 3, 2, 6, 4
D, INNER = H * K, 37
SIZES: dict[str, Any] = {"width": D, "layers": L, "heads": H, "mlp_ratio": INNER / D}


def randomised(model: Any) -> Any:
    """The model with every weight drawn anew, so that no bias is zero and no scale one."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = weight.ndim == 1 and name.endswith("weight")
            weight.copy_(scale + 0.2 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def arrays(model: Any, of: Callable[[Any], Any] = lambda weight: weight) -> dict[str, np.ndarray]:
    """The model's weights by name, or something of each."""
    return {name: of(weight).detach().numpy() for name, weight in model.named_parameters()}


@functools.cache
def gpt2() -> tuple[Any, ModelDef[GPT], Params]:
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=T, n_embd=D, n_layer=L, n_head=H, n_inner=INNER, attn_pdrop=0, embd_pdrop=0,
        resid_pdrop=0,
    )  # fmt: skip
    theirs = randomised(transformers.GPT2LMHeadModel(config))
    mine = ModelDef.of(lambda rngs: GPT(V, T, jnp.float32, rngs, **SIZES))
    return theirs, mine, checked(mine, weights_of.of_family(GPT2, arrays(theirs), {"heads": H, "tie_embeddings": True}))


@functools.cache
def llama(kind: str, kv_heads: int) -> tuple[Any, ModelDef[Llama], Params]:
    sizes = {
        "vocab_size": V, "hidden_size": D, "intermediate_size": INNER, "num_hidden_layers": L,
        "num_attention_heads": H, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-3,
        "max_position_embeddings": T, "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
    }  # fmt: skip
    window = 5 if kind == "mistral" else None
    if kind == "mistral":
        config = transformers.MistralConfig(**sizes, sliding_window=window)
        theirs = randomised(transformers.MistralForCausalLM(config))
    elif kind == "mixtral":
        config = transformers.MixtralConfig(**sizes, num_local_experts=5, num_experts_per_tok=3, sliding_window=None)
        config._experts_implementation = "eager"  # the grouped product wants widths that divide by 4
        theirs = randomised(transformers.MixtralForCausalLM(config))
    else:
        theirs = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)))
    mine = ModelDef.of(
        lambda rngs: Llama(
            V,
            T,
            jnp.float32,
            rngs,
            **SIZES,
            kv_heads=kv_heads,
            norm_epsilon=1e-3,
            rotary_base=700.0,
            window=window,
            experts=5 if kind == "mixtral" else None,
            experts_per_token=3,
        )
    )
    if kind == "mixtral":
        return theirs, mine, checked(mine, weights_of.mixtral(arrays(theirs)))
    values = {"heads": H, "kv_heads": kv_heads, "tie_embeddings": False}
    return theirs, mine, checked(mine, weights_of.of_family(LLAMA, arrays(theirs), values))


@functools.cache
def bert(pooler: bool) -> tuple[Any, ModelDef[BERT], Params]:
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=H, intermediate_size=INNER,
        max_position_embeddings=T, hidden_dropout_prob=0, attention_probs_dropout_prob=0, type_vocab_size=3,
    )  # fmt: skip
    kind = transformers.BertForPreTraining if pooler else transformers.BertForMaskedLM
    theirs = randomised(kind(config))
    mine = ModelDef.of(lambda rngs: BERT(V, T, jnp.float32, rngs, **SIZES, types=3, pooler=pooler))
    return theirs, mine, checked(mine, weights_of.of_family(BERT_OF_TRANSFORMERS, arrays(theirs), {"heads": H}))


@functools.cache
def t5(kind: str) -> tuple[Any, ModelDef[T5], Params]:
    gated = kind == "1.1"
    config = transformers.T5Config(
        vocab_size=V, d_model=D, d_kv=5, d_ff=INNER, num_layers=L, num_decoder_layers=L + 1, num_heads=H,
        relative_attention_num_buckets=6, relative_attention_max_distance=9, dropout_rate=0, pad_token_id=0,
        decoder_start_token_id=0, eos_token_id=None, feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=not gated,
    )  # fmt: skip
    config.tie_word_embeddings = not gated  # its constructor makes of False only that states are not scaled
    theirs = randomised(transformers.T5ForConditionalGeneration(config))
    theirs.set_input_embeddings(theirs.shared)  # which False unties, too
    mine = ModelDef.of(
        lambda rngs: T5(
            V, T, S, jnp.float32, rngs, **SIZES, decoder_layers=L + 1, head_width=5, buckets=6, max_distance=9,
            activation="geglu" if gated else "relu", tie_embeddings=not gated,
        )
    )  # fmt: skip
    values = {"activation": "geglu" if gated else "relu", "tie_embeddings": not gated}
    return theirs, mine, checked(mine, weights_of.of_family(T5_OF_TRANSFORMERS, arrays(theirs), values))


def checked(model: ModelDef[Any], weights: weights_of.Weights) -> Params:
    """The weights on the device, if they are the model's."""
    model.check({path: value.shape for path, value in weights.items()})
    return {path: jnp.asarray(value) for path, value in weights.items()}


def looking(theirs: Any) -> Any:
    """The model, which is able to say what its attention looks at."""
    theirs.set_attn_implementation("eager")
    return theirs


def ids(rows: int = B, time: int = T) -> np.ndarray:
    return np.random.default_rng(3).integers(0, V, (rows, time))


CAUSAL = {
    "gpt2": gpt2,
    "llama": lambda: llama("llama", H),
    "llama with grouped queries": lambda: llama("llama", 3),
    "mistral": lambda: llama("mistral", 2),
    "mixtral": lambda: llama("mixtral", 3),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_of_causal_models(name: str) -> None:
    theirs, mine, params = CAUSAL[name]()
    with torch.no_grad():
        output = looking(theirs)(torch.tensor(ids()), output_attentions=True)
    wanted = output.logits.numpy()

    @jax.jit
    def read(params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        model = mine.bind(params)
        return model.logits(tokens), model.attention_weights(tokens)

    got, looks = read(params, ids())
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    np.testing.assert_allclose(looks, torch.stack(output.attentions), atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama with grouped queries", "mistral", "mixtral"])
def test_greedy_continuations(name: str) -> None:
    theirs, mine, params = CAUSAL[name]()
    prompts = [ids()[0, :4], ids()[1, :1], ids()[2, :6]]
    limit = T if name == "gpt2" else None
    written = Decoder(mine, Greedy(), end_of_text=None, limit=limit).complete(params, prompts, length=7)
    for prompt, mine_row in zip(prompts, written, strict=True):
        given = torch.tensor(prompt[None])
        theirs_row = theirs.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=7, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        np.testing.assert_array_equal(mine_row, theirs_row[0, len(prompt) :].numpy())


def test_greedy_continuations_with_a_repetition_penalty() -> None:
    theirs, mine, params = CAUSAL["gpt2"]()
    prompts = [ids()[0, :4], ids()[1, :1]]
    sampler = Sample(temperature=0.0, repetition_penalty=1.7)
    written = Decoder(mine, sampler, end_of_text=None, limit=T).complete(params, prompts, length=7)
    for prompt, mine_row in zip(prompts, written, strict=True):
        given = torch.tensor(prompt[None])
        theirs_row = theirs.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=7, eos_token_id=None,
            pad_token_id=0, repetition_penalty=1.7,
        )  # fmt: skip
        np.testing.assert_array_equal(mine_row, theirs_row[0, len(prompt) :].numpy())


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", ["gpt2", "llama with grouped queries"])
def test_beam_search(name: str, penalty: float) -> None:
    """All that is kept, its scores and its order, to the last token that may be written."""
    theirs, mine, params = CAUSAL[name]()
    prompts, end = [ids()[0, :4], ids()[1, :1], ids()[2, :3]], 5
    search = BeamSearch(mine, BeamOptions(4, penalty), end_of_text=end, limit=T)
    for prompt, found in zip(prompts, search.search(params, prompts, length=7), strict=True):
        given = torch.tensor(prompt[None])
        wanted = theirs.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, num_beams=4, num_return_sequences=4,
            max_new_tokens=7, eos_token_id=end, pad_token_id=0, length_penalty=penalty, early_stopping="never",
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        np.testing.assert_allclose([one.score for one in found], wanted.sequences_scores, atol=1e-4)
        for one, row in zip(found, wanted.sequences[:, len(prompt) :].tolist(), strict=True):
            assert one.tokens.tolist() == (row[: row.index(end)] if end in row else row)


def test_gradients_of_gpt2() -> None:
    theirs, mine, params = gpt2()
    tokens = ids()
    theirs.zero_grad()
    logits = theirs(torch.tensor(tokens)).logits[:, :-1].reshape(-1, V)
    torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[:, 1:].reshape(-1))).backward()
    wanted = weights_of.of_family(
        GPT2, arrays(theirs, lambda weight: weight.grad), {"heads": H, "tie_embeddings": True}
    )

    @jax.jit
    @jax.grad
    def gradient(params: Params) -> jax.Array:
        logs = jax.nn.log_softmax(mine.bind(params).logits(tokens)[:, :-1])
        return -jnp.take_along_axis(logs, tokens[:, 1:, None], -1).mean()

    assert_gradients(gradient(params), wanted)


def padded() -> dict[str, np.ndarray]:
    """Pairs of texts with padding behind them."""
    there = (np.arange(T) < np.array([[T], [T - 4], [5]])).astype(np.int64)
    types = np.minimum(2, np.arange(T) // np.array([[4], [5], [2]])) * there
    return {"tokens": ids(), "segment_ids": there, "type_ids": types}


def bert_outputs(theirs: Any, batch: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Logits, and the vectors of rows where there is a pooler."""
    given = {name: torch.tensor(value) for name, value in batch.items()}
    arguments = {"attention_mask": given["segment_ids"], "token_type_ids": given["type_ids"]}
    logits = theirs(given["tokens"], **arguments)
    if not hasattr(logits, "prediction_logits"):
        return logits.logits, None
    return logits.prediction_logits, theirs.bert(given["tokens"], **arguments).pooler_output


@pytest.mark.parametrize("pooler", [False, True])
def test_logits_vectors_and_gradients_of_bert(pooler: bool) -> None:
    theirs, mine, params = bert(pooler)
    batch = padded()
    real = batch["segment_ids"][..., None].astype(np.float32)
    share = np.random.default_rng(5).normal(size=(B, T, V)).astype(np.float32) * real
    theirs.zero_grad()
    logits, vectors = bert_outputs(theirs, batch)
    with torch.no_grad():
        arguments = {"attention_mask": batch["segment_ids"], "token_type_ids": batch["type_ids"]}
        given = {name: torch.tensor(value) for name, value in arguments.items()}
        wanted = torch.stack(
            looking(theirs).bert(torch.tensor(ids()), **given, output_attentions=True).attentions
        ).numpy()
    total = (logits * torch.tensor(share)).sum() + (0 if vectors is None else (vectors**3).sum())
    (total / B).backward()
    # What does not reach the logits (the next-sentence head) has no gradient; it has no counterpart either.
    grads = arrays(theirs, lambda weight: torch.zeros_like(weight) if weight.grad is None else weight.grad)

    def outputs(params: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
        model = mine.bind(params)
        given = {name: batch[name] for name in ("segment_ids", "type_ids")}
        states = model.encode(batch["tokens"], **given)
        return model.project(states), model.pool(states), model.attention_weights(batch["tokens"], **given)

    @jax.jit
    def both(params: Params) -> Any:
        def total(params: Params) -> Any:
            logits, vectors, looks = outputs(params)
            return ((logits * share).sum() + ((vectors**3).sum() if pooler else 0)) / B, (logits, vectors, looks)

        return jax.grad(total, has_aux=True)(params)

    gradient, (got, got_vectors, looks) = both(params)
    there = batch["segment_ids"][None, :, None, :, None]  # what padding looks at means nothing
    np.testing.assert_allclose(looks * there, wanted * there, atol=1e-5)
    np.testing.assert_allclose(got * real, logits.detach().numpy() * real, atol=1e-4)
    if vectors is not None:
        np.testing.assert_allclose(got_vectors, vectors.detach().numpy(), atol=1e-4)
    assert_gradients(gradient, weights_of.of_family(BERT_OF_TRANSFORMERS, grads, {"heads": H}))


def sources() -> tuple[np.ndarray, np.ndarray]:
    """Sources with padding behind them, and which tokens are there."""
    there = (np.arange(S) < np.array([[S], [S - 4], [5]])).astype(np.int64)
    return ids(time=S) * there, there


@pytest.mark.parametrize("kind", ["1.0", "1.1"])
def test_logits_of_t5(kind: str) -> None:
    theirs, mine, params = t5(kind)
    source, there = sources()
    with torch.no_grad():
        given = {"input_ids": source, "attention_mask": there, "decoder_input_ids": ids()}
        given = {name: torch.tensor(value) for name, value in given.items()}
        output = looking(theirs)(**given, output_attentions=True)
    wanted = output.logits.numpy()

    @jax.jit
    def read(params: Params) -> tuple[jax.Array, ...]:
        model = mine.bind(params)
        memory = model.encode_source(source, segment_ids=there)
        own, cross = model.target_attention_weights(ids(), memory)
        before = model.source_attention_weights(source, segment_ids=there)
        return model.project(model.decode(ids(), memory)[0]), before, own, cross

    logits, before, own, cross = read(params)
    assert np.abs(wanted).max() > 0.3
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    real = there[None, :, None, :, None]  # what padding looks at means nothing
    np.testing.assert_allclose(before * real, torch.stack(output.encoder_attentions).numpy() * real, atol=1e-5)
    np.testing.assert_allclose(own, torch.stack(output.decoder_attentions), atol=1e-5)
    np.testing.assert_allclose(cross, torch.stack(output.cross_attentions), atol=1e-5)


def test_greedy_targets_of_t5() -> None:
    theirs, mine, params = t5("1.1")
    source, there = sources()
    wanted = theirs.generate(
        torch.tensor(source), attention_mask=torch.tensor(there), do_sample=False, max_new_tokens=7, use_cache=False,
        eos_token_id=None,
    ).numpy()  # fmt: skip

    @jax.jit
    def written(params: Params) -> jax.Array:
        model = mine.bind(params)
        memory = model.encode_source(source, segment_ids=there)

        def step(state: Any, _: None) -> tuple[Any, jax.Array]:
            token, cache = state
            states, cache = model.decode(token[:, None], memory, cache=cache)
            token = model.project(states[:, 0]).argmax(-1)
            return (token, cache), token

        start = jnp.zeros(B, jnp.int32), model.init_decoding(memory, 7)
        return jax.lax.scan(step, start, None, length=7)[1].T

    np.testing.assert_array_equal(written(params), wanted[:, 1:])


def assert_gradients(got: Params, wanted: weights_of.Weights) -> None:
    assert got.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_allclose(got[path], value, atol=1e-3 * max(1, np.abs(value).max()), err_msg=path)
        assert np.abs(value).max() > 1e-3, f"{path} proves nothing"
