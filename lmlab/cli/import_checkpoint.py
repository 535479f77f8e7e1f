"""Make a run folder of a checkpoint: GPT-2, Llama, Mistral, BERT or Mamba of Transformers, a Llama in a GGUF file.

lmlab import ~/models/gpt2 --run runs/gpt2
lmlab generate runs/gpt2 --prompt 'The capital of France is' --temperature 0
lmlab import ~/models/llama.Q4_1.gguf --run runs/llama                  # its numbers as float32
lmlab import minilm --run runs/minilm                                   # of a package: lmlab data fetch minilm
lmlab import ~/models/gpt2 --run runs/mine --set "experiment.dataset = @text_files; text_files.train = 'mine/*.txt'"

The folder holds config.json, model.safetensors (or several with an index) and, for texts, tokenizer.json. The run
stands before its first step: eval, generate and the like read it, `experiment.init_from` starts another run from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lmlab.cli.configuration import add_plugins
from lmlab.interop.hugging_face import import_checkpoint
from lmlab.interop.packaged import PACKAGED, unpacked
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a folder, a GGUF file, or " + " or ".join(PACKAGED))
    parser.add_argument("--run", required=True, metavar="DIR", help="the run folder to make")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="'experiment.loss = @mlm'",
                        help="gin statements for the run, such as its dataset; may be repeated")  # fmt: skip
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Says what was made of what."""
    use_compilation_cache()
    source = Path(args.source)
    if not source.exists() and args.source in PACKAGED:
        source = unpacked(args.source)
    found = import_checkpoint(source, Path(args.run), args.overrides, args.plugins)
    print(f"{found.run}: a '{found.model}' of {found.size:,} parameters; {len(found.loaded)} read of {source}")
    if found.new:
        print(f"  new, not in the checkpoint: {', '.join(found.new)}")
    if found.ignored:
        print(f"  ignored: {', '.join(found.ignored)}")
    return 0
