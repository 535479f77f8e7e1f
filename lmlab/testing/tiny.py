"""The smallest experiment around a component.

A component says how small it can be by a class attribute, gin bindings in a string, each on one line:

    @models.register("gpt")
    class GPT(nnx.Module):
        TINY: ClassVar[str] = '''
        gpt.width = 12
        gpt.heads = 3
        '''

Needed are values for required parameters, and sizes that compile in a second; different primes show swapped axes. A
binding of `experiment.*` chooses the components beside it, where the ones that would be taken do not fit.
`{folder}` stands for a folder with `text/*.txt` (documents), `text.jsonl`, `tokens.npy` (ids below 11),
`tokenizer.json` (bytes, as Hugging Face writes such a file); with `rows.jsonl`, `pairs.tsv`, `messages.po`,
`tagged.conll`, `documents.txt` (a sentence to a line), `questions.json`, `choices.jsonl` and `conversations.jsonl`,
each of 41 short examples; with a table `synonyms.tsv`; and with two stores of the documents, `prepared` (in bytes) and
`prepared_examples`.
`{run of lstm by autoregressive}` stands for a run folder of the smallest such model, saved before its first step.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np

from lmlab.batches import TokenBatch
from lmlab.config import Resolved, resolve, spec_to_json
from lmlab.data.features import CONVERSIONS
from lmlab.data.prepared import Request, prepare
from lmlab.data.tokenizers.byte_level import letters
from lmlab.examples import IDS
from lmlab.registry import Entry, datasets, find, losses, models
from lmlab.training.checkpoint import Checkpoints, Note
from lmlab.training.metrics_file import Position
from lmlab.training.program import Program
from lmlab.training.run_folder import RunFolder

BASE = {
    "experiment.model": "@lstm",
    "experiment.loss": "@autoregressive",
    "experiment.dataset": "@random_tokens",
    "experiment.optimizer": "@adamw",
    "experiment.partitioner": "@mesh",
    "experiment.steps": "6",
    "experiment.global_batch_size": "16",
    "experiment.seq_len": "7",
    "experiment.overlong": "'cut'",
    "experiment.seed": "3",
    "experiment.compute_dtype": "'float32'",
    "experiment.log_every": "1",
    "experiment.evaluators": "[]",
    "experiment.hooks": "[]",
    "experiment.writers": "[]",
}
"""What stands around a component that does not say otherwise. 16 rows divide over 8 devices and 2 microbatches."""

PLACES = {
    "model": {"experiment.model": "@{}"},
    "loss": {"experiment.loss": "@{}"},
    "dataset": {"experiment.dataset": "@{}"},
    "tokenizer": {"experiment.tokenizer": "@{}", "experiment.dataset": "@text_files"},
    "optimizer": {"experiment.optimizer": "@{}"},
    "schedule": {"adamw.learning_rate": "@{}"},
    "partitioner": {"experiment.partitioner": "@{}"},
    "evaluator": {"experiment.evaluators": "[@{}]"},
    "hook": {"experiment.hooks": "[@{}]"},
    "writer": {"experiment.writers": "[@{}]"},
    "sampler": {"samples.sampler": "@{}", "experiment.hooks": "[@samples]"},
    "adapter": {"experiment.adapter": "@{}"},
    "transform": {
        "transformed.transforms": "[@{}]",
        "experiment.dataset": "@transformed",
        "experiment.loss": "@autoregressive",
    },
}
"""Where a component of each kind stands in an experiment."""

TEXT = "def f(x):\n    return 'naïve'\n\nThe quick brown fox, 日本, jumps over {n} lazy dogs.\n"


@dataclass(frozen=True)
class Tiny:
    """A component, and an empty folder that its tests may use."""

    entry: Entry
    folder: Path

    @property
    def component(self) -> Any:
        """The class or function."""
        return self.entry.component

    def alone(self) -> Resolved:
        """The component's own configuration, without an experiment around it (unless it is the experiment)."""
        if self.entry.name == "experiment":
            return self.resolved()
        text = tiny_bindings(self.entry)
        beside = {"experiment"}  # with what the experiment is told of the components beside this one
        for key, value in text.items():
            if key.startswith("experiment."):
                beside |= set(re.findall(r"@(\w+)", value)) - {self.entry.name}
        own = {key: value for key, value in text.items() if key.split(".")[0] not in beside}
        return resolve([], _lines(own), root=self.entry.name)

    def resolved(self, **experiment: Any) -> Resolved:
        """The experiment around it.

        Settings of the experiment (`steps=4`, `partitioner="@pmap"`) and of components (`**{"mesh.data": 8}`) win
        over the base's and the components' own; a component or a list is given as gin text.
        """
        return _resolved(self.entry, tuple(experiment.items()))

    def program(self, **experiment: Any) -> Program:
        """The experiment made ready to run; the same one for laws that ask for the same, one after the other."""
        return _program(self.entry, tuple(experiment.items()))

    def losses(self) -> list[str]:
        """The losses that the component fits, the base's first; of a component that names its loss, that one."""
        own = tiny_bindings(self.entry)
        place = {key: value.format(self.entry.name) for key, value in PLACES.get(self.entry.kind, {}).items()}
        return fitting_losses({**place, **own})


def _resolved(entry: Entry, experiment: tuple[tuple[str, Any], ...]) -> Resolved:
    text = {key if "." in key else f"experiment.{key}": _spelled(value) for key, value in experiment}
    return resolve([], _lines(around(entry, text)))


@functools.lru_cache(maxsize=4)
def _program(entry: Entry, experiment: tuple[tuple[str, Any], ...]) -> Program:
    return Program(_resolved(entry, experiment))


def tiny_bindings(entry: Entry) -> dict[str, str]:
    """The bindings that a component calls its smallest, as gin text by key."""
    text = inspect.cleandoc(getattr(entry.component, "TINY", ""))
    if "{folder}" in text:
        text = text.replace("{folder}", str(small_files()))
    text = re.sub(r"\{run of (\w+) by (\w+)\}", lambda found: str(tiny_run(*found.groups())), text)
    pairs = (line.partition("=") for line in text.splitlines() if line.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def around(entry: Entry, chosen: dict[str, str]) -> dict[str, str]:
    """Bindings of an experiment with `entry` in it, each component in it as small as it can be.

    What is chosen wins over what the component says, and this over the base.
    """
    own = tiny_bindings(entry)
    place = {key.format(entry.name): value.format(entry.name) for key, value in PLACES.get(entry.kind, {}).items()}
    bindings = {**place, **own, **chosen}
    _fill(bindings)
    bindings = {**BASE, **bindings}
    example = getattr(_named(bindings["experiment.dataset"]), "example", None)
    if isinstance(example, type) and example not in IDS:
        bindings.setdefault("experiment.tokenizer", "@bytes")
    return with_parts(bindings)


def with_parts(bindings: dict[str, str], small: Iterable[str] = ()) -> dict[str, str]:
    """With the smallest sizes of every component that is named, and of those that these name, but of `small` ones."""
    seen = set(small)
    while names := set(re.findall(r"@(?:\w+/)*(\w+)", " ".join(bindings.values()))) - seen:
        for name in sorted(names):
            seen.add(name)
            known = find(name)
            own = tiny_bindings(known) if known else {}
            bindings |= {key: value for key, value in own.items() if key not in bindings}
    return bindings


def _fill(bindings: dict[str, str]) -> None:
    """Chooses the model, the loss and the dataset that are still open so that they fit; the base's where they do."""
    model, loss, dataset = "experiment.model", "experiment.loss", "experiment.dataset"
    if loss not in bindings:
        fitting = fitting_losses(bindings)
        if not fitting:
            raise SkipTest(f"no registered loss fits {' and '.join(bindings.get(k, '') for k in (model, dataset))}")
        bindings[loss] = f"@{fitting[0]}"
    chosen = find(bindings[loss].removeprefix("@"))
    assert chosen is not None, f"{bindings[loss]} is no component"
    # What the loss says of the experiment around it, such as a tokenizer with a mask.
    bindings |= {key: value for key, value in tiny_bindings(chosen).items() if key not in bindings}
    needs, reads = _named(bindings[loss]).needs, _named(bindings[loss]).reads
    if model not in bindings:
        able = [name for name in _first(models.names(), BASE[model]) if _can(f"@{name}", needs)]
        if not able:
            raise SkipTest(f"no registered model serves {bindings[loss]}")
        bindings[model] = f"@{able[0]}"
    if dataset not in bindings:
        fitting = [name for name in _first(datasets.names(), BASE[dataset]) if _read(f"@{name}", reads)]
        bindings[dataset] = f"@{fitting[0]}"


def fitting_losses(bindings: dict[str, str]) -> list[str]:
    """The losses that fit the experiment's model and dataset, as far as these are chosen; see `_generality`."""
    model, loss, dataset = (bindings.get(f"experiment.{part}") for part in ("model", "loss", "dataset"))
    return [
        name
        for name in ([loss.removeprefix("@")] if loss else sorted(losses.names(), key=_generality))
        if (model is None or _can(model, _named(f"@{name}").needs))
        and (model is None or name in getattr(_named(model), "LOSSES", (name,)))
        and (dataset is None or _read(dataset, _named(f"@{name}").reads))
    ]


def _generality(loss: str) -> tuple[bool, bool, str]:
    """The base's loss first, then those that one capability serves: the others leave a model's projection idle."""
    return (f"@{loss}" != BASE["experiment.loss"], isinstance(_named(f"@{loss}").needs, tuple), loss)


def _first(names: list[str], preferred: str) -> list[str]:
    return sorted(names, key=lambda name: f"@{name}" != preferred)


def _can(model: str, needs: type | tuple[type, ...]) -> bool:
    component = _named(model)
    return inspect.isclass(component) and issubclass(component, needs)


def _read(dataset: str, reads: type) -> bool:
    """Whether such batches can be made of the dataset; of one whose kind depends on its parts, next-token rows."""
    example = getattr(_named(dataset), "example", None)
    return (example, reads) in CONVERSIONS if isinstance(example, type) else reads is TokenBatch


def _named(reference: str) -> Any:
    """The component that `@name` refers to."""
    entry = find(reference.removeprefix("@"))
    assert entry is not None, f"{reference} is no component"
    return entry.component


def _lines(bindings: dict[str, str]) -> list[str]:
    return ["\n".join(f"{key} = {value}" for key, value in bindings.items())]


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) and value.startswith(("@", "[")) else repr(value)


@functools.cache
def small_files() -> Path:
    """The folder that `{folder}` stands for: one for the whole process, gone with it. To be read only."""
    folder = _own_folder()
    _write_files(folder)
    return folder


def _own_folder() -> Path:
    """An empty folder that is gone with the process."""
    folder = tempfile.TemporaryDirectory(prefix="lmlab-tiny-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _write_files(folder: Path) -> None:
    (folder / "text").mkdir()
    texts = [TEXT.format(n=n) * 3 for n in range(41)]
    for n, text in enumerate(texts):
        (folder / "text" / f"{n}.txt").write_text(text, encoding="utf-8")
    lines = "".join(json.dumps({"text": text, "label": n % 2}) + "\n" for n, text in enumerate(texts))
    (folder / "text.jsonl").write_text(lines, encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_of_bytes()), encoding="utf-8")
    _write_rows(folder)
    shares = "text_files.valid_share = 0.2; text_files.test_share = 0.2"
    documents = resolve([], [f"text_files.train = '{folder}/text/*.txt'; {shares}"], root="text_files").spec
    for name in ("prepared", "prepared_examples"):
        request = Request(documents, resolve([], root="bytes").spec, shard_size=3000, examples=name != "prepared")
        prepare(request, folder / name, lambda line: None)
    (folder / "synonyms.tsv").write_text("quick\tfast\trapid\nlazy\tidle\n", encoding="utf-8")
    np.save(folder / "tokens.npy", np.random.default_rng(5).integers(0, 11, 2003).astype(np.uint8))


@functools.cache
def tiny_run(model: str, loss: str) -> Path:
    """A run folder of the smallest model and loss of these names, made once in a process."""
    resolved = _resolved(models.entry(model), (("loss", f"@{loss}"),))
    program, folder = Program(resolved), RunFolder(_own_folder() / "run")
    folder.write_config(resolved)
    checkpoints = Checkpoints(folder.checkpoints, program.checkpoints)
    note = Note(0, {}, Position(), -1, 0, {}, None, spec_to_json(resolved.spec))
    checkpoints.save(program.partitioner.export(program.init_state()), note)
    checkpoints.close()
    return folder.path


def _tokenizer_of_bytes() -> dict[str, Any]:
    """A byte-level tokenizer.json without joins, whose id 256 ends documents."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    end = {
        "id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }  # fmt: skip
    model = {"type": "BPE", "vocab": letters(), "merges": []}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model,
    }  # fmt: skip


def _write_rows(folder: Path) -> None:
    """Files of formats that hold labelled texts, pairs, tagged sentences and questions."""
    numbers = range(41)
    rows = [{"text": f"{n} lazy dogs", "target": f"chiens : {n}", "label": f"class {n % 2}"} for n in numbers]
    files = {
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "pairs.tsv": "".join(f"{n} lazy dogs\tchiens paresseux : {n}\n" for n in numbers),
        "messages.po": "\n".join(f'msgid "{n} lazy dogs\\n"\nmsgstr "chiens paresseux : {n}\\n"\n' for n in numbers),
        "tagged.conll": "\n".join(f"The DT O\n{n} CD O\nlazy JJ B-DOG\ndogs NNS I-DOG\n" for n in numbers),
        "documents.txt": "\n\n".join(f"The fox {n}\njumps over {n}\nlazy dogs." for n in numbers),
        "conversations.jsonl": "".join(
            json.dumps({"prompt": f"Which dogs, {n}?", "completion": "Lazy ones."}) + "\n" for n in numbers
        ),
        "choices.jsonl": "".join(json.dumps(_choice(n)) + "\n" for n in numbers),
        "questions.json": json.dumps({"data": [{"paragraphs": [_paragraph(n) for n in numbers]}]}),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _choice(n: int) -> dict[str, Any]:
    """A context with a blank to fill, for which there are two or three choices."""
    choices = [f"{n} dogs", f"{n} foxes", "none"][: 2 + n % 2]
    return {"context": f"{n} lazy dogs.", "question": "Lazy: ___.", "choices": choices, "answer": choices[0]}


def _paragraph(n: int) -> dict[str, Any]:
    """A context with one question, as SQuAD has them."""
    answer = {"text": f"{n} lazy dogs", "answer_start": 19}
    return {
        "context": f"The fox jumps over {n} lazy dogs.",
        "qas": [{"id": f"q{n}", "question": "Over what?", "answers": [answer]}],
    }
