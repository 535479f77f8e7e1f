"""Write a run's model as Hugging Face's Transformers reads it: GPT-2, Llama, Mistral or BERT.

lmlab export runs/gpt2 exported            # AutoModelForCausalLM.from_pretrained('exported')
lmlab export runs/lora merged              # of a run with an adapter, the merged model
lmlab export runs/lora adapter --adapter   # the adapter alone: PeftModel.from_pretrained(base, 'adapter')
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from lmlab.generation.saved import SavedRun
from lmlab.interop.hugging_face import export_checkpoint
from lmlab.interop.peft import export_adapter
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("folder", metavar="FOLDER", help="to be made")
    parser.add_argument("--adapter", action="store_true", help="write the adapter alone, as PEFT reads it")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Says what was written."""
    use_compilation_cache()
    saved = SavedRun(args.run)
    if args.adapter:
        modules = export_adapter(saved.program, saved.params(args.step), Path(args.folder))
        print(f"{args.folder}: the adapter of {len(modules)} modules")
        return 0
    family = export_checkpoint(saved.program, saved.params(args.step), Path(args.folder))
    size = sum(math.prod(shape.shape) for shape in saved.program.model.merged(saved.program.model.shapes).values())
    print(f"{args.folder}: {family.architecture}, {size:,} parameters")
    return 0
