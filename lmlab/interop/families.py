"""Models that Hugging Face's Transformers and lmlab both have: what `config.json` says, and where the weights lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmlab.errors import ConfigError, DataError
from lmlab.interop.places import Place, Places, by_head, columns, fused, linear, norm, same, turned

Config = Mapping[str, Any]
Values = Mapping[str, Any]

ACTIVATIONS = {
    "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact", "relu": "relu", "silu": "silu",
    "swish": "silu",
}  # fmt: skip
"""lmlab's names of theirs."""


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Attributes:
      model_type: what its `config.json` calls it.
      architecture: the class that has the weights of the whole of it.
      model: lmlab's name.
      loss: what it was trained by.
      base: what stands before the names of tensors outside the head; files of the bare model leave it out.
      length: the entry of `config.json` that has the longest text; None where texts may be of any length.
      values: the model's parameters by `config.json`.
      config: entries of `config.json` by the model's parameters; ConfigError for what the family does not have.
      places: where its parameters lie, by its own, without `base`.
      head: beginnings of names that have no `base` before them.
      copies: regular expressions of tensors that say nothing new: masks, and copies of tied weights.
      optional: beginnings of paths of parameters that files of the bare model do not have.
      learned: whether positions are parameters, so that rows are as long as there are.
      pairs: whether it reads sources and writes targets, which begin with an id that `config.json` names.
      fits: which of lmlab's models are of this family, where another one has the others.
    """

    model_type: str
    architecture: str
    model: str
    loss: str
    base: str
    length: str | None
    values: Callable[[Config], dict[str, Any]]
    config: Callable[[Values], dict[str, Any]]
    places: Callable[[Values], Places]
    head: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    learned: bool = True
    pairs: bool = False
    fits: Callable[[Values], bool] = field(default=lambda values: True)


def entry(config: Config, key: str, kind: type, default: Any = None) -> Any:
    """An entry of `config.json`; DataError where it is missing (or null) without a default, or of another type."""
    value = default if config.get(key) is None else config[key]
    if value is None:
        raise DataError(f"config.json does not say {key}.")
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (kind is not bool and isinstance(value, bool)):
        raise DataError(f"config.json: {key} = {value!r} is no {kind.__name__}.")
    if kind in (int, float) and not 0 < value < 1e9:
        raise DataError(f"config.json: {key} = {value!r} is no size.")
    return value


def refuse(config: Config, **plain: tuple[Any, ...]) -> None:
    """DataError where an entry has another value than these, of which the first is taken for granted."""
    for key, values in plain.items():
        if config.get(key, values[0]) not in values:
            raise DataError(
                f"config.json: {key} = {config[key]!r} is what lmlab's model cannot do; it does "
                f"{' or '.join(map(repr, values))}."
            )


def require(model: str, family: str, values: Values, **needed: tuple[Any, ...]) -> None:
    """ConfigError where a parameter has another value than these."""
    for key, allowed in needed.items():
        if values[key] not in allowed:
            raise ConfigError(
                f"{model}.{key} = {values[key]!r}: {family} has {' or '.join(map(repr, allowed))} only, so that this "
                "run cannot be written as such a model."
            )


def _activation(config: Config, key: str, default: str) -> str:
    name = entry(config, key, str, default)
    if name not in ACTIVATIONS:
        raise DataError(f"config.json: {key} = {name!r}; lmlab has {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def _their_activation(name: str) -> str:
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == name)


def _inner(values: Values) -> int:
    return round(values["mlp_ratio"] * values["width"])


# --- GPT-2 ----------------------------------------------------------------------------------------------------


def _gpt2_values(config: Config) -> dict[str, Any]:
    refuse(
        config, scale_attn_weights=(True,), scale_attn_by_inverse_layer_idx=(False,), add_cross_attention=(False,),
    )  # fmt: skip
    width = entry(config, "n_embd", int)
    return {
        "width": width,
        "layers": entry(config, "n_layer", int),
        "heads": entry(config, "n_head", int),
        "mlp_ratio": entry(config, "n_inner", int, 4 * width) / width,
        "norm_epsilon": entry(config, "layer_norm_epsilon", float, 1e-5),
        "activation": _activation(config, "activation_function", "gelu_new"),
        "tie_embeddings": entry(config, "tie_word_embeddings", bool, True),
    }


def _gpt2_config(values: Values) -> dict[str, Any]:
    require(
        "gpt", "GPT-2", values, positions=("learned",), arrangement=("pre_norm",), norm=("layer",), qk_norm=(False,),
        window=(None,), experts=(None,), bias=(True,), kv_heads=(None, values["heads"]), mup_base_width=(None,),
        activation=tuple(dict.fromkeys(ACTIVATIONS.values())),
    )  # fmt: skip
    rate = values["dropout"]
    return {
        "n_embd": values["width"], "n_layer": values["layers"], "n_head": values["heads"], "n_inner": _inner(values),
        "layer_norm_epsilon": values["norm_epsilon"] or 1e-5,
        "activation_function": _their_activation(values["activation"]),
        "tie_word_embeddings": values["tie_embeddings"], "embd_pdrop": rate, "attn_pdrop": rate, "resid_pdrop": rate,
    }  # fmt: skip


def _gpt2_places(values: Values) -> Places:
    block, heads = "h.{}.", values["heads"]
    return {
        "embedding/embedding": same("wte.weight"),
        "positions/embedding": same("wpe.weight"),
        "blocks/attention/qkv/kernel": fused(f"{block}attn.c_attn.weight", heads),
        "blocks/attention/qkv/bias": fused(f"{block}attn.c_attn.bias", heads),
        **columns("blocks/attention/out", f"{block}attn.c_proj"),
        **columns("blocks/mlp/up", f"{block}mlp.c_fc"),
        **columns("blocks/mlp/down", f"{block}mlp.c_proj"),
        **norm("blocks/attention_norm", f"{block}ln_1"),
        **norm("blocks/mlp_norm", f"{block}ln_2"),
        **norm("norm", "ln_f"),
        **({} if values["tie_embeddings"] else {"head/kernel": turned("lm_head.weight")}),
    }


# --- Llama and Mistral ----------------------------------------------------------------------------------------


def _llama_values(config: Config) -> dict[str, Any]:
    rotary = config.get("rope_parameters") or {}
    if not isinstance(rotary, Mapping) or config.get("rope_scaling") or rotary.get("rope_type", "default") != "default":
        raise DataError("config.json: scaled rotary positions (rope_scaling) are what lmlab's model cannot do.")
    refuse(config, attention_bias=(False,), mlp_bias=(False,), hidden_act=("silu", "swish"))
    width, heads = entry(config, "hidden_size", int), entry(config, "num_attention_heads", int)
    refuse(config, head_dim=(width // heads, None))
    kv_heads = entry(config, "num_key_value_heads", int, heads)
    return {
        "width": width,
        "layers": entry(config, "num_hidden_layers", int),
        "heads": heads,
        "kv_heads": None if kv_heads == heads else kv_heads,
        "mlp_ratio": entry(config, "intermediate_size", int) / width,
        "norm_epsilon": entry(config, "rms_norm_eps", float, 1e-6),
        "rotary_base": float(entry(rotary, "rope_theta", float, entry(config, "rope_theta", float, 10_000.0))),
        "tie_embeddings": entry(config, "tie_word_embeddings", bool, False),
    }


def _mistral_values(config: Config) -> dict[str, Any]:
    window = config.get("sliding_window")
    return _llama_values(config) | {"window": None if window is None else entry(config, "sliding_window", int)}


def _llama_config(values: Values) -> dict[str, Any]:
    require("llama", "Llama", values, experts=(None,), dropout=(0.0,), mup_base_width=(None,))
    return {
        "hidden_size": values["width"], "num_hidden_layers": values["layers"], "num_attention_heads": values["heads"],
        "num_key_value_heads": values["kv_heads"] or values["heads"], "intermediate_size": _inner(values),
        "rms_norm_eps": values["norm_epsilon"], "tie_word_embeddings": values["tie_embeddings"], "hidden_act": "silu",
        "rope_theta": values["rotary_base"],
        "rope_parameters": {"rope_type": "default", "rope_theta": values["rotary_base"]},
    }  # fmt: skip


def _mistral_config(values: Values) -> dict[str, Any]:
    return _llama_config(values) | {"sliding_window": values["window"]}


def _llama_places(values: Values) -> Places:
    block, heads = "layers.{}.", values["heads"]
    names = [f"{block}self_attn.{name}_proj.weight" for name in "qkv"]
    attention = (
        {"blocks/attention/qkv/kernel": by_head(names, heads, kernel=True)}
        if values["kv_heads"] in (None, heads)
        else {f"blocks/attention/{mine}/kernel": turned(name) for mine, name in zip("qkv", names, strict=True)}
    )
    return {
        "embedding/embedding": same("embed_tokens.weight"),
        **attention,
        "blocks/attention/out/kernel": turned(f"{block}self_attn.o_proj.weight"),
        **{f"blocks/mlp/{name}/kernel": turned(f"{block}mlp.{name}_proj.weight") for name in ("gate", "up", "down")},
        "blocks/attention_norm/scale": same(f"{block}input_layernorm.weight"),
        "blocks/mlp_norm/scale": same(f"{block}post_attention_layernorm.weight"),
        "norm/scale": same("norm.weight"),
        **({} if values["tie_embeddings"] else {"head/kernel": turned("lm_head.weight")}),
    }


# --- BERT -----------------------------------------------------------------------------------------------------


def _bert_values(config: Config) -> dict[str, Any]:
    refuse(config, position_embedding_type=("absolute",), is_decoder=(False,), add_cross_attention=(False,))
    refuse(config, tie_word_embeddings=(True,))
    width = entry(config, "hidden_size", int)
    return {
        "width": width,
        "layers": entry(config, "num_hidden_layers", int),
        "heads": entry(config, "num_attention_heads", int),
        "mlp_ratio": entry(config, "intermediate_size", int) / width,
        "types": entry(config, "type_vocab_size", int, 2),
        "norm_epsilon": entry(config, "layer_norm_eps", float, 1e-12),
        "activation": _activation(config, "hidden_act", "gelu"),
    }


def _bert_config(values: Values) -> dict[str, Any]:
    require(
        "bert", "BERT", values, positions=("learned",), arrangement=("post_norm",), norm=("layer",), window=(None,),
        experts=(None,), bias=(True,), pooler=(True,), activation=tuple(dict.fromkeys(ACTIVATIONS.values())),
    )  # fmt: skip
    return {
        "hidden_size": values["width"], "num_hidden_layers": values["layers"], "num_attention_heads": values["heads"],
        "intermediate_size": _inner(values), "type_vocab_size": values["types"],
        "layer_norm_eps": values["norm_epsilon"], "hidden_act": _their_activation(values["activation"]),
        "hidden_dropout_prob": values["dropout"], "attention_probs_dropout_prob": values["dropout"],
        "tie_word_embeddings": True,
    }  # fmt: skip


def _bert_places(values: Values) -> Places:
    block, heads = "encoder.layer.{}.", values["heads"]
    parts = [f"{block}attention.self.{name}" for name in ("query", "key", "value")]
    return {
        "embedding/embedding": same("embeddings.word_embeddings.weight"),
        "positions/embedding": same("embeddings.position_embeddings.weight"),
        "type_embedding/embedding": same("embeddings.token_type_embeddings.weight"),
        **norm("input_norm", "embeddings.LayerNorm"),
        "blocks/attention/qkv/kernel": by_head([f"{part}.weight" for part in parts], heads, kernel=True),
        "blocks/attention/qkv/bias": by_head([f"{part}.bias" for part in parts], heads, kernel=False),
        **linear("blocks/attention/out", f"{block}attention.output.dense"),
        **linear("blocks/mlp/up", f"{block}intermediate.dense"),
        **linear("blocks/mlp/down", f"{block}output.dense"),
        **norm("blocks/attention_norm", f"{block}attention.output.LayerNorm"),
        **norm("blocks/mlp_norm", f"{block}output.LayerNorm"),
        **linear("pooler", "pooler.dense"),
        **linear("head/transform", "cls.predictions.transform.dense"),
        **norm("head/norm", "cls.predictions.transform.LayerNorm"),
        "head/bias": same("cls.predictions.bias"),
    }


# --- Mamba ----------------------------------------------------------------------------------------------------


def _mamba_values(config: Config) -> dict[str, Any]:
    refuse(config, use_bias=(False,), use_conv_bias=(True,), hidden_act=("silu", "swish"), layer_norm_epsilon=(1e-5,))
    refuse(config, use_mambapy=(False, True), use_bcdt_rms=(False,))
    width, expand = entry(config, "hidden_size", int), entry(config, "expand", int, 2)
    refuse(config, intermediate_size=(expand * width,))
    rank = config.get("time_step_rank", "auto")
    return {
        "width": width,
        "layers": entry(config, "num_hidden_layers", int),
        "expand": expand,
        "state": entry(config, "state_size", int, 16),
        "taps": entry(config, "conv_kernel", int, 4),
        "rank": None if rank == "auto" else entry(config, "time_step_rank", int),
        "tie_embeddings": entry(config, "tie_word_embeddings", bool, True),
    }


def _mamba_config(values: Values) -> dict[str, Any]:
    return {
        "hidden_size": values["width"], "num_hidden_layers": values["layers"], "expand": values["expand"],
        "intermediate_size": values["expand"] * values["width"], "state_size": values["state"],
        "conv_kernel": values["taps"], "time_step_rank": values["rank"] or math.ceil(values["width"] / 16),
        "tie_word_embeddings": values["tie_embeddings"], "layer_norm_epsilon": 1e-5, "use_bias": False,
        "use_conv_bias": True, "hidden_act": "silu",
    }  # fmt: skip


def _mamba_places(values: Values) -> Places:
    block = "layers.{}.mixer."
    products = {"input": "in_proj", "out": "out_proj", "ssm/select": "x_proj", "ssm/step": "dt_proj"}
    others = {"conv/bias": "conv1d.bias", "ssm/step_bias": "dt_proj.bias", "ssm/log_decay": "A_log", "ssm/skip": "D"}
    return {
        "embedding/embedding": same("embeddings.weight"),
        **{f"blocks/mixer/{mine}/kernel": turned(f"{block}{name}.weight") for mine, name in products.items()},
        **{f"blocks/mixer/{mine}": same(f"{block}{name}") for mine, name in others.items()},
        # torch.nn.Conv1d of one channel a group keeps (E, 1, taps)
        "blocks/mixer/conv/kernel": Place(
            (f"{block}conv1d.weight",), lambda parts: parts[0][:, 0].swapaxes(0, 1),
            lambda value: (value.swapaxes(0, 1)[:, None],),
        ),
        "blocks/norm/scale": same("layers.{}.norm.weight"),
        "norm/scale": same("norm_f.weight"),
        **({} if values["tie_embeddings"] else {"head/kernel": turned("lm_head.weight")}),
    }  # fmt: skip


# --- T5 -------------------------------------------------------------------------------------------------------

_T5_FORWARD = {"relu": "relu", "gated-gelu": "geglu"}
"""lmlab's names of what `feed_forward_proj` says: T5 (arXiv:1910.10683) and T5 1.1."""


def _t5_values(config: Config) -> dict[str, Any]:
    refuse(config, is_encoder_decoder=(True,), feed_forward_proj=tuple(_T5_FORWARD))
    width, layers = entry(config, "d_model", int), entry(config, "num_layers", int)
    decoder_layers = entry(config, "num_decoder_layers", int, layers)
    # Transformers 5 ties the weights in config.json whatever they are, and says by this whether it divides states.
    tied = entry(config, "tie_word_embeddings", bool, True) and entry(config, "scale_decoder_outputs", bool, True)
    return {
        "width": width,
        "layers": layers,
        "decoder_layers": None if decoder_layers == layers else decoder_layers,
        "heads": entry(config, "num_heads", int),
        "head_width": entry(config, "d_kv", int),
        "mlp_ratio": entry(config, "d_ff", int) / width,
        "buckets": entry(config, "relative_attention_num_buckets", int, 32),
        "max_distance": entry(config, "relative_attention_max_distance", int, 128),
        "activation": _T5_FORWARD[config.get("feed_forward_proj", "relu")],
        "norm_epsilon": entry(config, "layer_norm_epsilon", float, 1e-6),
        "tie_embeddings": tied,
    }


def _t5_config(values: Values) -> dict[str, Any]:
    require("t5", "T5", values, experts=(None,), activation=tuple(_T5_FORWARD.values()))
    forward = next(theirs for theirs, ours in _T5_FORWARD.items() if ours == values["activation"])
    return {
        "d_model": values["width"], "num_layers": values["layers"], "num_heads": values["heads"],
        "num_decoder_layers": values["decoder_layers"] or values["layers"], "d_kv": values["head_width"],
        "d_ff": _inner(values), "relative_attention_num_buckets": values["buckets"],
        "relative_attention_max_distance": values["max_distance"], "feed_forward_proj": forward,
        "layer_norm_epsilon": values["norm_epsilon"], "dropout_rate": values["dropout"], "is_encoder_decoder": True,
        "tie_word_embeddings": values["tie_embeddings"],
    }  # fmt: skip


def _t5_places(values: Values) -> Places:
    forward = {"gate": "wi_0", "up": "wi_1"} if values["activation"] == "geglu" else {"up": "wi"}
    places = {"embedding/embedding": same("shared.weight")}
    halves = {"encoder": ["attention", "mlp"], "decoder": ["attention", "cross", "mlp"]}
    for side, parts in halves.items():
        for number, part in enumerate(parts):
            layer = f"{side}.block.{{}}.layer.{number}."
            places[f"{side}/{part}_norm/scale"] = same(f"{layer}layer_norm.weight")
            if part == "mlp":
                products = {**forward, "down": "wo"}
                places |= {
                    f"{side}/mlp/{mine}/kernel": turned(f"{layer}DenseReluDense.{name}.weight")
                    for mine, name in products.items()
                }
                continue
            mine, name = ("cross_attention", "EncDec") if part == "cross" else ("attention", "Self")
            places |= {
                f"{side}/{mine}/{'out' if letter == 'o' else letter}/kernel":
                    turned(f"{layer}{name}Attention.{letter}.weight")
                for letter in "qkvo"
            }  # fmt: skip
        places[f"{side}_norm/scale"] = same(f"{side}.final_layer_norm.weight")
        table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        places[f"{side}_positions/bias"] = same(table)
    return places | ({} if values["tie_embeddings"] else {"head/kernel": turned("lm_head.weight")})


GPT2 = Family(
    "gpt2", "GPT2LMHeadModel", "gpt", "autoregressive", "transformer.", "n_positions", _gpt2_values, _gpt2_config,
    _gpt2_places, head=("lm_head.",), copies=(r"h\.\d+\.attn\.(masked_)?bias",),
)  # fmt: skip
LLAMA = Family(
    "llama", "LlamaForCausalLM", "llama", "autoregressive", "model.", "max_position_embeddings", _llama_values,
    _llama_config, _llama_places, head=("lm_head.",), copies=(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
    learned=False, fits=lambda values: values["window"] is None,
)  # fmt: skip
MISTRAL = Family(
    "mistral", "MistralForCausalLM", "llama", "autoregressive", "model.", "max_position_embeddings", _mistral_values,
    _mistral_config, _llama_places, head=("lm_head.",), learned=False,
    fits=lambda values: values["window"] is not None,
)  # fmt: skip
BERT = Family(
    "bert", "BertForMaskedLM", "bert", "mlm", "bert.", "max_position_embeddings", _bert_values, _bert_config,
    _bert_places, head=("cls.",), optional=("pooler/", "head/"),
    copies=(r"embeddings\.position_ids", r"cls\.predictions\.decoder\.(weight|bias)", r"cls\.seq_relationship\..*"),
)  # fmt: skip

MAMBA = Family(
    "mamba", "MambaForCausalLM", "mamba", "autoregressive", "backbone.", None, _mamba_values, _mamba_config,
    _mamba_places, head=("lm_head.",), learned=False,
)  # fmt: skip

T5 = Family(
    "t5", "T5ForConditionalGeneration", "t5", "seq2seq", "", None, _t5_values, _t5_config, _t5_places,
    head=("lm_head.",), copies=(r"(encoder|decoder)\.embed_tokens\.weight",), learned=False, pairs=True,
)  # fmt: skip

FAMILIES = {family.model_type: family for family in (GPT2, LLAMA, MISTRAL, BERT, MAMBA, T5)}
"""The families by their `model_type`."""


def family_of(config: Config) -> Family:
    """The family that a `config.json` is of; DataError for another."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise DataError(f"config.json: model_type = {kind!r}; lmlab reads {', '.join(FAMILIES)}.")
    return FAMILIES[kind]


def family_for(model: str, values: Values) -> Family:
    """The family that a model of lmlab's is written as; ConfigError where there is none."""
    for family in FAMILIES.values():
        if family.model == model and family.fits(values):
            return family
    known = ", ".join(dict.fromkeys(family.model for family in FAMILIES.values()))
    raise ConfigError(f"the model '{model}' has no counterpart in Transformers that lmlab writes; {known} have.")
