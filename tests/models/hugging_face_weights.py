"""Weights of Hugging Face's models under lmlab's paths and in lmlab's layout.

All of it is rearrangement, so that the gradients of a model's weights are mapped by the same functions as the weights.
Each takes `state`, numpy arrays by the names that `state_dict()` or `named_parameters()` has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Weights = dict[str, np.ndarray]
State = Mapping[str, np.ndarray]


def gpt2(state: State, *, heads: int) -> Weights:
    """`GPT2LMHeadModel` as a `gpt`. Its kernels are (inputs, outputs) already."""
    block = "transformer.h.{}."
    layers = _count(state, block)

    def stacked(name: str) -> np.ndarray:
        return np.stack([state[block.format(layer) + name] for layer in range(layers)])

    def fused(kernel: np.ndarray) -> np.ndarray:
        """Columns [q | k | v], each by head, as (H, 3, K)."""
        *lead, columns = kernel.shape
        return kernel.reshape(*lead, 3, heads, -1).swapaxes(-3, -2).reshape(*lead, columns)

    weights = {
        "embedding/embedding": state["transformer.wte.weight"],
        "positions/embedding": state["transformer.wpe.weight"],
        "blocks/attention/qkv/kernel": fused(stacked("attn.c_attn.weight")),
        "blocks/attention/qkv/bias": fused(stacked("attn.c_attn.bias")),
        **_norm("norm", lambda part: state[f"transformer.ln_f.{part}"]),
    }
    names = {"attention/out": "attn.c_proj", "mlp/up": "mlp.c_fc", "mlp/down": "mlp.c_proj"}
    for mine, theirs in names.items():
        weights[f"blocks/{mine}/kernel"] = stacked(f"{theirs}.weight")
        weights[f"blocks/{mine}/bias"] = stacked(f"{theirs}.bias")
    for mine, theirs in {"attention_norm": "ln_1", "mlp_norm": "ln_2"}.items():
        weights |= _norm(f"blocks/{mine}", lambda part, theirs=theirs: stacked(f"{theirs}.{part}"))
    return weights


def bert(state: State, *, heads: int) -> Weights:
    """`BertForMaskedLM` or `BertForPreTraining` (which has a pooler) as a `bert`."""
    block = "bert.encoder.layer.{}."
    layers = _count(state, block)

    def stacked(name: str) -> np.ndarray:
        return np.stack([state[block.format(layer) + name] for layer in range(layers)])

    def fused(part: str) -> np.ndarray:
        parts = [stacked(f"attention.self.{name}.{part}") for name in ("query", "key", "value")]
        return _by_head([_kernel(x) if part == "weight" else x for x in parts], heads)

    weights = {
        "embedding/embedding": state["bert.embeddings.word_embeddings.weight"],
        "positions/embedding": state["bert.embeddings.position_embeddings.weight"],
        "type_embedding/embedding": state["bert.embeddings.token_type_embeddings.weight"],
        "blocks/attention/qkv/kernel": fused("weight"),
        "blocks/attention/qkv/bias": fused("bias"),
        **_norm("input_norm", lambda part: state[f"bert.embeddings.LayerNorm.{part}"]),
        **_linear("head/transform", lambda part: state[f"cls.predictions.transform.dense.{part}"]),
        **_norm("head/norm", lambda part: state[f"cls.predictions.transform.LayerNorm.{part}"]),
        "head/bias": state["cls.predictions.bias"],
    }
    names = {"attention/out": "attention.output.dense", "mlp/up": "intermediate.dense", "mlp/down": "output.dense"}
    for mine, theirs in names.items():
        weights |= _linear(f"blocks/{mine}", lambda part, theirs=theirs: stacked(f"{theirs}.{part}"))
    for mine, theirs in {"attention_norm": "attention.output.LayerNorm", "mlp_norm": "output.LayerNorm"}.items():
        weights |= _norm(f"blocks/{mine}", lambda part, theirs=theirs: stacked(f"{theirs}.{part}"))
    if "bert.pooler.dense.weight" in state:
        weights |= _linear("pooler", lambda part: state[f"bert.pooler.dense.{part}"])
    return weights


def llama(state: State, *, heads: int, kv_heads: int) -> Weights:
    """`LlamaForCausalLM`, `MistralForCausalLM` or `MixtralForCausalLM` as a `llama`."""
    block = "model.layers.{}."
    layers = _count(state, block)

    def stacked(name: str, end: str = ".weight") -> np.ndarray:
        return np.stack([state[f"{block.format(layer)}{name}{end}"] for layer in range(layers)])

    names = {"attention/out": "self_attn.o_proj"}
    if f"{block.format(0)}mlp.experts.down_proj" in state:
        names["mlp/router"] = "mlp.gate"
        gate, up = np.split(_kernel(stacked("mlp.experts.gate_up_proj", "")), 2, -1)
        fed = {"experts/gate": gate, "experts/up": up, "experts/down": _kernel(stacked("mlp.experts.down_proj", ""))}
    else:
        fed = {name: _kernel(stacked(f"mlp.{name}_proj")) for name in ("gate", "up", "down")}
    q, k, v = (_kernel(stacked(f"self_attn.{name}_proj")) for name in "qkv")
    if kv_heads == heads:
        attention = {"blocks/attention/qkv/kernel": _by_head([q, k, v], heads)}
    else:
        attention = {f"blocks/attention/{name}/kernel": x for name, x in zip("qkv", (q, k, v), strict=True)}
    weights = {
        "embedding/embedding": state["model.embed_tokens.weight"],
        "norm/scale": state["model.norm.weight"],
        "blocks/attention_norm/scale": stacked("input_layernorm"),
        "blocks/mlp_norm/scale": stacked("post_attention_layernorm"),
        **attention,
        **{f"blocks/{mine}/kernel": _kernel(stacked(theirs)) for mine, theirs in names.items()},
        **{f"blocks/mlp/{name}/kernel": kernel for name, kernel in fed.items()},
    }
    if "lm_head.weight" in state:
        weights["head/kernel"] = _kernel(state["lm_head.weight"])
    return weights


def t5(state: State) -> Weights:
    """`T5ForConditionalGeneration` as a `t5`."""
    weights = {"embedding/embedding": state["shared.weight"]}
    if "lm_head.weight" in state:
        weights["head/kernel"] = _kernel(state["lm_head.weight"])
    halves = {
        "encoder": {"attention": (0, "SelfAttention"), "mlp": (1, "DenseReluDense")},
        "decoder": {"attention": (0, "SelfAttention"), "cross": (1, "EncDecAttention"), "mlp": (2, "DenseReluDense")},
    }
    for side, parts in halves.items():
        block = f"{side}.block.{{}}.layer."
        layers = _count(state, f"{side}.block.{{}}.")

        def stacked(name: str, block: str = block, layers: int = layers) -> np.ndarray:
            return np.stack([state[f"{block.format(layer)}{name}.weight"] for layer in range(layers)])

        for mine, (place, theirs) in parts.items():
            whole = "cross_attention" if mine == "cross" else mine
            weights[f"{side}/{mine}_norm/scale"] = stacked(f"{place}.layer_norm")
            weights |= {
                f"{side}/{whole}/{here}/kernel": _kernel(stacked(f"{place}.{theirs}.{there}"))
                for here, there in _t5_products(state, side, mine).items()
            }
        weights[f"{side}_norm/scale"] = state[f"{side}.final_layer_norm.weight"]
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        weights[f"{side}_positions/bias"] = state[bias]
    return weights


def _t5_products(state: State, side: str, part: str) -> dict[str, str]:
    """The products of a part, by lmlab's names."""
    if part != "mlp":
        return {"q": "q", "k": "k", "v": "v", "out": "o"}
    if any("wi_0" in name for name in state):
        return {"gate": "wi_0", "up": "wi_1", "down": "wo"}
    return {"up": "wi", "down": "wo"}


def _count(state: State, block: str) -> int:
    """Number of blocks."""
    layers = 0
    while any(name.startswith(block.format(layers)) for name in state):
        layers += 1
    return layers


def _kernel(weight: np.ndarray) -> np.ndarray:
    """torch.nn.Linear keeps (..., outputs, inputs)."""
    return weight.swapaxes(-1, -2)


def _by_head(parts: list[np.ndarray], heads: int) -> np.ndarray:
    """Queries', keys' and values' columns as (H, 3, K)."""
    lead = parts[0].shape[:-1]
    return np.stack([x.reshape(*lead, heads, -1) for x in parts], -2).reshape(*lead, -1)


def _linear(path: str, part: Callable[[str], np.ndarray]) -> Weights:
    return {f"{path}/kernel": _kernel(part("weight")), f"{path}/bias": part("bias")}


def _norm(path: str, part: Callable[[str], np.ndarray]) -> Weights:
    return {f"{path}/scale": part("weight"), f"{path}/bias": part("bias")}
