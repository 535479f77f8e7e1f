"""Goes on with a text by a model that `lmlab export --format stablehlo` wrote.

python run.py 'The capital of France is' --length 20    # ids with spaces between, where there is no tokenizer.json

It needs jax, numpy, flatbuffers and safetensors (and tokenizers for texts), but not lmlab.

`Exported(folder)` is the same for other programs: `functions` has what the manifest says under `functions`, each to be
called with `parameters` and then its arguments, on whatever devices jax finds. The sizes are free: batch, length of the
prompts, and the slots of the cache, which are the most tokens of a row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file


class Exported:
    """A model in a folder.

    Args:
      folder: what the export wrote.

    Raises:
      ValueError: a file is not the one that was written.

    Attributes:
      manifest: its JSON.
      parameters: arrays by name, on the device; empty where they are inside of the functions.
      functions: by name, compiled when they are first called with arguments of some sizes. A cache that is given to
        one of them is used up.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, wanted in self.manifest["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted:
                raise ValueError(f"{folder / name} is damaged: it is not what the export wrote.")
        found: dict[str, np.ndarray] = {}
        for name in self.manifest["parameters"]["files"]:
            found |= load_file(folder / name)
        self.parameters = jax.device_put(found)
        self.functions = {name: self._load(folder, **said) for name, said in self.manifest["functions"].items()}

    def _load(self, folder: Path, *, file: str, arguments: dict[str, Any], results: dict[str, Any]) -> Any:
        call = jax.export.deserialize(bytearray((folder / file).read_bytes())).call
        used = [place for place, name in enumerate(arguments, start=1) if name == "cache" and name in results]
        return jax.jit(call, donate_argnums=used)

    def greedy(self, prompts: list[list[int]], length: int) -> tuple[list[list[int]], list[np.ndarray]]:
        """The most probable token after another, up to `length` of them and the end of the text.

        Args:
          prompts: ids, at least one in each row.
          length: the most tokens to add.

        Returns:
          What is added to each row, without the end of text, and the logits (B, V) that each token was taken by.

        Raises:
          ValueError: there is no token in a prompt, an id that the model does not know, or no position for so many.
        """
        call, lengths = self.functions, np.array([len(prompt) for prompt in prompts], np.int32)
        self._check(prompts, int(lengths.max()) + length)
        tokens = np.zeros((len(prompts), lengths.max()), np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        cache = call["begin"](self.parameters, np.zeros((len(prompts), tokens.shape[1] + length), np.int32))
        logits, cache = call["prefill"](self.parameters, cache, tokens, lengths)
        chosen, seen = [], []
        for _ in range(length):
            seen.append(np.asarray(logits))
            chosen.append(np.asarray(jnp.argmax(logits, -1).astype(np.int32)))
            if len(chosen) < length:
                logits, cache = call["step"](self.parameters, cache, chosen[-1])
        end = self.manifest["end_of_text"]
        rows = [[int(step[row]) for step in chosen] for row in range(len(prompts))]
        return [row[: row.index(end)] if end in row else row for row in rows], seen

    def _check(self, prompts: list[list[int]], slots: int) -> None:
        vocab, longest = self.manifest["vocab"], self.manifest["longest"]
        if not all(prompts) or not all(0 <= token < vocab for prompt in prompts for token in prompt):
            raise ValueError(f"a prompt is at least one id, each from 0 to {vocab - 1}.")
        if longest is not None and slots > longest:
            raise ValueError(f"the model has positions for {longest} tokens, not {slots}: ask for fewer.")


def main() -> None:
    """Writes what the model goes on with."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", help="a text, or ids with spaces between them")
    parser.add_argument("--length", type=int, default=20, help="the most tokens to add (default: 20)")
    args = parser.parse_args()
    try:
        _go_on(Path(__file__).resolve().parent, args.prompt, args.length)
    except ValueError as error:
        parser.error(str(error))


def _go_on(folder: Path, prompt: str, length: int) -> None:
    exported = Exported(folder)
    if not (folder / "tokenizer.json").exists():
        (ids,), _ = exported.greedy([[int(word) for word in prompt.split()]], length)
        print(*ids)
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (ids,), _ = exported.greedy([tokenizer.encode(prompt).ids], length)
    print(f"{prompt}{tokenizer.decode(ids)}")


if __name__ == "__main__":
    main()
