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


def _count(state: State, block: str) -> int:
    """Number of blocks."""
    layers = 0
    while any(name.startswith(block.format(layers)) for name in state):
        layers += 1
    return layers


def _kernel(weight: np.ndarray) -> np.ndarray:
    """torch.nn.Linear keeps (..., outputs, inputs)."""
    return weight.swapaxes(-1, -2)
