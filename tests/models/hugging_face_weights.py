"""Weights of Hugging Face's models under lmlab's paths and in lmlab's layout.

All of it is rearrangement, so that the gradients of a model's weights are mapped by the same functions as the weights.
Each takes `state`, numpy arrays by the names that `state_dict()` or `named_parameters()` has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmlab.interop.families import Family, Values
from lmlab.interop.places import LAYER, Place

Weights = dict[str, np.ndarray]
State = Mapping[str, np.ndarray]


def of_family(family: Family, state: State, values: Values) -> Weights:
    """The model of a family that `lmlab import` knows, by its places; parts that only the file has are left out."""
    bare = {name.removeprefix(family.base): value for name, value in state.items()}
    return {
        path: _read(place, bare)
        for path, place in family.places(values).items()
        if place.names[0].replace(LAYER, "0") in bare
    }


def _read(place: Place, state: State) -> np.ndarray:
    if not place.layered:
        return place.read([state[name] for name in place.names])
    layers = _count(state, place.names[0])
    return np.stack([place.read([state[name.replace(LAYER, str(n))] for name in place.names]) for n in range(layers)])


def mixtral(state: State) -> Weights:
    """`MixtralForCausalLM` as a `llama` with grouped queries."""
    block = "model.layers.{}."
    layers = _count(state, block)

    def stacked(name: str, end: str = ".weight") -> np.ndarray:
        return np.stack([state[f"{block.format(layer)}{name}{end}"] for layer in range(layers)])

    names = {"attention/out": "self_attn.o_proj", "mlp/router": "mlp.gate"}
    names |= {f"attention/{name}": f"self_attn.{name}_proj" for name in "qkv"}
    gate, up = np.split(_kernel(stacked("mlp.experts.gate_up_proj", "")), 2, -1)
    fed = {"experts/gate": gate, "experts/up": up, "experts/down": _kernel(stacked("mlp.experts.down_proj", ""))}
    return {
        "embedding/embedding": state["model.embed_tokens.weight"],
        "norm/scale": state["model.norm.weight"],
        "blocks/attention_norm/scale": stacked("input_layernorm"),
        "blocks/mlp_norm/scale": stacked("post_attention_layernorm"),
        **{f"blocks/{mine}/kernel": _kernel(stacked(theirs)) for mine, theirs in names.items()},
        **{f"blocks/mlp/{name}/kernel": kernel for name, kernel in fed.items()},
        "head/kernel": _kernel(state["lm_head.weight"]),
    }


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
