"""Gate zero: sizes of known models, logits beside those of transformers, and the statistics of BERT's masks."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.config import build, resolve
from lmlab.interop.hugging_face import import_checkpoint
from lmlab.losses.masking import mask_tokens
from lmlab.nn.functional import ModelDef
from lmlab.papers.measuring import NotMeasured
from lmlab.training.run import Run

MODELS = Path(__file__).parents[2] / "models"
DECLARED = re.compile(r"# Parameters: [\d,]+(?: without (\w+/))? \(vocabulary ([\d,]+), experiment.seq_len ([\d,]+)\)")
COUNTED = (
    "gpt2_small", "gpt2_medium", "gpt2_large", "gpt2_xl", "bert_base", "bert_large", "llama2_7b", "tinyllama",
    "nanogpt_char",
)  # fmt: skip
V, T, END = 53, 17, 1
"""Ids, positions, and the id that ends texts, of the models whose logits are compared."""
SIZES: dict[str, Any] = {"vocab_size": V, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6}


def counts() -> Mapping[str, float]:
    """Parameters of the presets under experiments/models, from their shapes alone (no memory is taken)."""
    return {name: float(_count(MODELS / f"{name}.gin")) for name in COUNTED}


def counts_of_transformers() -> Mapping[str, float]:
    """The same, less what transformers makes of the originals' published settings, on torch's device without memory."""
    torch, transformers = _oracle()
    gpt2 = {"gpt2_small": (768, 12), "gpt2_medium": (1024, 24), "gpt2_large": (1280, 36), "gpt2_xl": (1600, 48)}
    bert = {"bert_base": (768, 12), "bert_large": (1024, 24)}
    made: dict[str, Any] = {}
    with torch.device("meta"):
        for name, (width, layers) in gpt2.items():
            config = transformers.GPT2Config(n_embd=width, n_layer=layers, n_head=width // 64)
            made[name] = transformers.GPT2LMHeadModel(config)
        for name, (width, layers) in bert.items():
            sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width}
            made[name] = transformers.BertModel(transformers.BertConfig(num_attention_heads=width // 64, **sizes))
        made["llama2_7b"] = transformers.LlamaForCausalLM(transformers.LlamaConfig())
        tiny = transformers.LlamaConfig(
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=22,
            num_attention_heads=32,
            num_key_value_heads=4,
        )
        made["tinyllama"] = transformers.LlamaForCausalLM(tiny)
    return {name: float(_count(MODELS / f"{name}.gin") - model.num_parameters()) for name, model in made.items()}


def parity() -> Mapping[str, float]:
    """Largest differences of logits from those of transformers, of models with random weights that lmlab imports."""
    torch, transformers = _oracle()
    rotary = {
        **SIZES, "intermediate_size": 37, "max_position_embeddings": T, "bos_token_id": END, "eos_token_id": END,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }  # fmt: skip
    gpt2 = {"vocab_size": V, "n_positions": T, "n_embd": 24, "n_layer": 3, "n_head": 6, "bos_token_id": END,
            "eos_token_id": END}  # fmt: skip
    mamba = {"vocab_size": V, "hidden_size": 24, "state_size": 5, "num_hidden_layers": 3, "bos_token_id": END,
             "eos_token_id": END, "pad_token_id": None}  # fmt: skip
    bert = {**SIZES, "intermediate_size": 37, "max_position_embeddings": T, "pad_token_id": None}
    made: dict[str, Callable[[], Any]] = {
        "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**gpt2)),
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**rotary)),
        "llama_grouped": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**rotary, num_key_value_heads=2)
        ),
        "mistral": lambda: transformers.MistralForCausalLM(
            transformers.MistralConfig(**rotary, num_key_value_heads=2, sliding_window=5)
        ),
        "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**bert)),
        "mamba": lambda: transformers.MambaForCausalLM(transformers.MambaConfig(**mamba)),
    }
    return {name: _largest_difference(torch, model()) for name, model in made.items()}


def masking() -> Mapping[str, float]:
    """Shares of BERT's masks over half a million tokens, as distances from the published ones in standard errors."""
    rows, length, vocab, mask = 2048, 256, 1000, 3
    keys = jax.random.split(jax.random.key(0), rows)
    tokens = jax.random.randint(jax.random.key(1), (rows, length), 4, vocab)
    read, chosen = jax.jit(
        lambda tokens, keys: mask_tokens(
            tokens, jnp.ones(tokens.shape, bool), keys, mask=mask, vocab=vocab, special=(0, 1, 2, mask), rate=0.15,
            keep=0.1, random=0.1,
        )
    )(tokens, keys)  # fmt: skip
    tokens, read, chosen = (np.asarray(array) for array in (tokens, read, chosen))
    picked = int(chosen.sum())
    same = 0.1 / (vocab - 4)  # a random token may be the one that was there
    return {
        "chosen": _errors(picked, tokens.size, 0.15),
        "masked": _errors(int((read[chosen] == mask).sum()), picked, 0.8),
        "kept": _errors(int((read[chosen] == tokens[chosen]).sum()), picked, 0.1 + same),
        "touched_elsewhere": float((read[~chosen] != tokens[~chosen]).sum()),
    }


def _count(file: Path) -> int:
    found = DECLARED.search(file.read_text(encoding="utf-8"))
    assert found is not None, file
    without, vocab, seq_len = found[1], *(int(number.replace(",", "")) for number in found.groups()[1:])
    spec = resolve(file, parts=["model"]).spec.kwargs["model"]
    given = {"vocab": vocab, "seq_len": seq_len, "source_len": seq_len, "dtype": jnp.dtype("bfloat16")}
    model = ModelDef.of(lambda rngs: build(spec, rngs=rngs, **given))
    left_out = sum(shape.size for path, shape in model.shapes.items() if without and path.startswith(without))
    return model.size - left_out


def _largest_difference(torch: Any, theirs: Any) -> float:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for path, weight in theirs.named_parameters():  # no bias is to be zero, and no scale one
            scale = weight.ndim == 1 and path.endswith("weight")
            weight.copy_(scale + 0.2 * torch.randn(weight.shape, generator=generator))
        theirs.eval().save_pretrained(Path(folder) / "theirs")
        import_checkpoint(Path(folder) / "theirs", Path(folder) / "run")
        run = Run(Path(folder) / "run")
        ids = np.random.default_rng(3).integers(2, V, (5, T - 4))
        wanted = theirs(torch.tensor(ids)).logits.numpy()
        bound = run.program.model.bind(run.params)
        found = bound.logits(ids) if hasattr(bound, "logits") else bound.project(bound.encode(ids))
    return float(np.abs(np.asarray(found) - wanted).max())


def _errors(count: int, of: int, share: float) -> float:
    """How many binomial standard errors a count is from what was expected."""
    return abs(count - of * share) / (of * share * (1 - share)) ** 0.5


def _oracle() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise NotMeasured(f"{error.name} is not installed: pip install 'lmlab[oracle]'") from None
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers
