"""Adapters for PEFT: their files added up by NumPy, and by PEFT itself where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.generation.saved import SavedRun
from lmlab.interop.hugging_face import export_checkpoint, import_checkpoint
from lmlab.interop.peft import export_adapter
from lmlab.nn.adapters import ADAPTER
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")
from safetensors.numpy import load_file  # noqa: E402  # behind what skips without it

V, T, D, H, RANK, ALPHA = 37, 13, 12, 3, 2, 5.0
LORA = f"experiment.adapter = @lora; lora.rank = {RANK}; lora.alpha = {ALPHA}; lora.kernels = "


def gpt2() -> Any:
    sizes = {"vocab_size": V, "n_positions": T, "n_embd": D, "n_layer": 2, "n_head": H, "n_inner": 19}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(eos_token_id=0, bos_token_id=0, **sizes))


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=19, num_hidden_layers=2, num_attention_heads=H,
        max_position_embeddings=T, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


KINDS = {
    "gpt2": (gpt2, "['/(q|v)/kernel$', 'mlp/up/']", {"attn.c_attn": 2 * RANK, "mlp.c_fc": RANK}),
    "llama": (llama, "['/(k|v)/kernel$', 'gate/', 'head/']", {"k_proj": RANK, "v_proj": RANK, "gate_proj": RANK}),
}


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any, Any]:
    """A model with an adapter that has moved: the base, the adapter and the merged model, as folders."""
    make, kernels, _ = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(3)
    make().save_pretrained(folder / "theirs")
    import_checkpoint(folder / "theirs", folder / "run", [LORA + kernels])
    program, params = (saved := SavedRun(str(folder / "run"))).program, dict(saved.params())
    draw = np.random.default_rng(5)
    for path in params:
        if path.startswith(ADAPTER):
            params[path] = jax.numpy.asarray(draw.normal(size=params[path].shape).astype(np.float32))
    export_checkpoint(program, params, folder / "merged")
    export_adapter(program, params, folder / "adapter")
    return request.param, folder, program, params


def test_the_base_and_the_files_add_up_to_the_merged_model(exported):
    name, folder, _, _ = exported
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    base, merged = (load_file(folder / kind / "model.safetensors") for kind in ("theirs", "merged"))
    for module in config["target_modules"]:
        a, b = (adapter.pop(f"base_model.model.{module}.lora_{which}.weight").astype(np.float64) for which in "AB")
        rank, alpha = config["rank_pattern"].get(module, config["r"]), config["alpha_pattern"].get(module, ALPHA)
        wanted = next((rank for part, rank in KINDS[name][2].items() if module.endswith(part)), RANK)
        assert a.shape[0] == b.shape[1] == rank == wanted
        difference = alpha / rank * b @ a
        key = f"{module}.weight"
        changed = base[key] + (difference.T if config["fan_in_fan_out"] else difference)
        np.testing.assert_allclose(merged.pop(key), changed, rtol=1e-5, atol=1e-5, err_msg=module)
    assert not adapter and len(config["target_modules"]) == (4 if name == "gpt2" else 7)
    for key, value in merged.items():
        np.testing.assert_array_equal(value, base[key], err_msg=key)


def test_peft_computes_what_the_merged_model_does(exported):
    peft = pytest.importorskip("peft")
    _, folder, _, _ = exported
    tokens = torch.tensor(np.random.default_rng(7).integers(0, V, (2, 11)))
    load = transformers.AutoModelForCausalLM.from_pretrained
    with torch.no_grad():
        wanted = load(folder / "merged")(tokens).logits
        found = peft.PeftModel.from_pretrained(load(folder / "theirs"), folder / "adapter").eval()(tokens).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_is_no_adapter_is_refused(tmp_path):
    more = Tiny(REGISTRIES["adapter"].entry("lora"), tmp_path).program(**{"lora.train": "['^norm/']"})
    with pytest.raises(ConfigError, match=r"has also learned norm/.* export without --adapter"):
        export_adapter(more, {}, tmp_path / "never")
    plain = Tiny(REGISTRIES["model"].entry("gpt"), tmp_path).program()
    with pytest.raises(ConfigError, match="the run has no adapter of the kind that PEFT has"):
        export_adapter(plain, {}, tmp_path / "never")
    assert not (tmp_path / "never").exists()
