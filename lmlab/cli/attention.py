"""Draw what the attention of a run looks at in a text as a heat map: a line for each token that reads.

lmlab attention runs/quickstart 'def main():'                          # all layers and heads
lmlab attention runs/quickstart 'def main():' --layer 2 --head 1       # one of them, with the tokens beside it
lmlab attention runs/scan 'I_JUMP' --source 'jump'                     # an encoder-decoder, from target to source
lmlab attention runs/quickstart 'def main():' --json weights.json      # the numbers themselves

Special ids are written by their roles, as the picture shows them: '<classify>It is so.<separator>' is what a BERT with
pairs of sentences has read. Layers and heads count from 1, the layer next to the embedding. Drawing needs matplotlib:
pip install 'lmlab[plot]'.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np

from lmlab.data.optional import imported
from lmlab.errors import ConfigError
from lmlab.evaluation.attention_map import AttentionMap, attention_map
from lmlab.generation.saved import SavedRun
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.files import writing

LARGEST = 40.0
"""Inches that a picture is wide or high at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("text", metavar="TEXT", help="what is read; for a dataset of ids, numbers with spaces between")
    parser.add_argument("--source", help="an encoder-decoder's source, of which TEXT is the target (without it, TEXT "
                        "is the source, which looks at itself)")  # fmt: skip
    parser.add_argument("--own", action="store_true", help="what the target looks at in itself, not in its source")
    parser.add_argument("--layer", type=int, help="only this layer, from 1 on")
    parser.add_argument("--head", type=int, help="only this head, from 1 on")
    parser.add_argument("--out", metavar="FILE.png", help="where to draw (default: attention.png in the run folder)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there ('-': standard output), and draw only "
                        "if --out is given, too")  # fmt: skip
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Draws, or writes the numbers."""
    if args.own and args.source is None:
        raise ConfigError("--own is about a target: give its --source, or leave it out.")
    use_compilation_cache()
    saved = SavedRun(args.run)
    looks = attention_map(saved.program, saved.params(args.step), args.text, source=args.source, own=args.own)
    layers, heads = (
        _chosen(name, number, count)
        for name, number, count in zip(("layer", "head"), (args.layer, args.head), looks.weights.shape[:2], strict=True)
    )
    if args.json is not None:
        _write_json(args.json, looks, layers, heads)
    if args.json is None or args.out is not None:
        path = Path(args.out or Path(args.run) / "attention.png")
        draw(looks, layers, heads, path)
        print(f"written to {path}", file=sys.stderr if args.json == "-" else sys.stdout)
    return 0


def _chosen(name: str, number: int | None, count: int) -> list[int]:
    """The layers or heads asked for, from 1 on."""
    if number is None:
        return list(range(1, count + 1))
    if not 1 <= number <= count:
        raise ConfigError(f"--{name} {number}: the model has the {name}s 1 to {count}.")
    return [number]


def _part(looks: AttentionMap, layers: list[int], heads: list[int]) -> np.ndarray:
    return looks.weights[np.ix_([layer - 1 for layer in layers], [head - 1 for head in heads])]


def _write_json(name: str, looks: AttentionMap, layers: list[int], heads: list[int]) -> None:
    """The numbers, (layers, heads, tokens that read, tokens that are read), with what they belong to."""
    text = json.dumps({
        "layers": layers, "heads": heads, "reading": looks.reading, "read": looks.read,
        "weights": _part(looks, layers, heads).tolist(),
    }, ensure_ascii=False)  # fmt: skip
    if name == "-":
        print(text)
        return
    with writing(Path(name)):
        Path(name).write_text(text + "\n", encoding="utf-8")
    print(f"written to {name}")


def draw(looks: AttentionMap, layers: list[int], heads: list[int], path: Path) -> None:
    """Draws a map for each of these layers (rows) and heads (columns); a single one has its tokens beside it.

    Raises:
      ConfigError: matplotlib is not installed, or does not know how to write such a file.
    """
    figures = imported("matplotlib.figure", "drawing", "plot")
    part = _part(looks, layers, heads)
    alone = len(layers) == len(heads) == 1
    high, wide = (2.0 + 0.25 * len(tokens) if alone else 1.6 * many
                  for tokens, many in ((looks.reading, len(layers)), (looks.read, len(heads))))  # fmt: skip
    size = min(LARGEST, max(3.0, wide + 1)), min(LARGEST, max(2.0, high + (0.5 if alone else 0)))
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(layers), len(heads), squeeze=False)
    for (row, column), ax in np.ndenumerate(axes):
        image = ax.imshow(part[row, column], vmin=0, vmax=part.max(), cmap="viridis", aspect="auto")
        ax.set_title(f"layer {layers[row]}, head {heads[column]}", fontsize=8)
        if alone:
            ax.set_xticks(range(len(looks.read)), looks.read, rotation=90, fontsize=8)
            ax.set_yticks(range(len(looks.reading)), looks.reading, fontsize=8)
        else:
            ax.set_xticks([])
            ax.set_yticks([])
    figure.colorbar(image, ax=axes, shrink=0.8)
    with writing(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box
        try:
            figure.savefig(path, dpi=100)
        except ValueError as error:
            raise ConfigError(f"--out {path}: {error}") from None
