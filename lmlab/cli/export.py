"""Write a run's model as Hugging Face's Transformers reads it: GPT-2, Llama, Mistral or BERT.

lmlab export runs/gpt2 exported            # AutoModelForCausalLM.from_pretrained('exported')
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lmlab.generation.saved import SavedRun
from lmlab.interop.hugging_face import export_checkpoint
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("folder", metavar="FOLDER", help="to be made")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Says what was written."""
    use_compilation_cache()
    saved = SavedRun(args.run)
    family = export_checkpoint(saved.program, saved.params(args.step), Path(args.folder))
    print(f"{args.folder}: {family.architecture}, {saved.program.model.size:,} parameters")
    return 0
