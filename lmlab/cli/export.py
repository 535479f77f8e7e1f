"""Write a run's model for other programs: as Hugging Face's Transformers reads it, as StableHLO, or as ONNX.

lmlab export runs/gpt2 exported                        # AutoModelForCausalLM.from_pretrained('exported')
lmlab export runs/gpt2 exported --format stablehlo     # python exported/run.py 'The capital of France is'
lmlab export runs/gpt2 exported --format onnx          # onnxruntime.InferenceSession('exported/step.onnx')
lmlab export runs/lora merged                          # of a run with an adapter, the merged model
lmlab export runs/lora adapter --adapter               # the adapter alone: PeftModel.from_pretrained(base, 'adapter')
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lmlab.errors import ConfigError
from lmlab.generation.saved import SavedRun
from lmlab.interop.hugging_face import export_checkpoint
from lmlab.interop.onnx import export_onnx
from lmlab.interop.peft import export_adapter
from lmlab.interop.stablehlo import export_stablehlo
from lmlab.nn.adapters import Adapted
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("folder", metavar="FOLDER", help="to be made")
    parser.add_argument("--format", choices=("transformers", "stablehlo", "onnx"), default="transformers", help="what "
                        "to write: a checkpoint of Transformers (default), or functions (prefill, cached step) of any "
                        "batch and length that jax (stablehlo) or onnxruntime (onnx) runs without lmlab")  # fmt: skip
    parser.add_argument("--baked", action="store_true", help="stablehlo: parameters inside of each function, not in a "
                        "file beside them")  # fmt: skip
    parser.add_argument("--adapter", action="store_true", help="write the adapter alone, as PEFT reads it")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Says what was written."""
    if args.baked and args.format != "stablehlo":
        raise ConfigError(f"--baked is for --format stablehlo, not {args.format}: leave it out.")
    if args.adapter and args.format != "transformers":
        raise ConfigError(f"--adapter is for --format transformers, not {args.format}: leave one of them out.")
    use_compilation_cache()
    saved = SavedRun(args.run)
    program, folder = saved.program, Path(args.folder)
    if args.adapter:
        modules = export_adapter(program, saved.params(args.step), folder)
        print(f"{folder}: the adapter of {len(modules)} modules")
        return 0
    size = (program.model.plain if isinstance(program.model, Adapted) else program.model).size
    if args.format == "transformers":
        family = export_checkpoint(program, saved.params(args.step), folder)
        print(f"{folder}: {family.architecture}, {size:,} parameters")
        return 0
    if args.format == "onnx":
        inference = export_onnx(program, saved.params(args.step), folder)
    else:
        inference = export_stablehlo(program, saved.params(args.step), folder, baked=args.baked)
    names = ", ".join(function.name for function in inference.functions)
    print(f"{folder}: {names} of '{program.experiment.model.name}', {size:,} parameters")
    if inference.left_out:
        print(f"  left out: {', '.join(inference.left_out)}")
    return 0
