"""What is known of a dataset beyond its parameters: where it comes from, its splits, and what is exact about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lmlab import registry
from lmlab.cli.table import print_heading, print_table
from lmlab.config import REQUIRED, parameters, resolve
from lmlab.data.archives import Origin
from lmlab.data.fingerprints import digest_json
from lmlab.errors import LmlabError, NotFetched

_ENDLESS = 1 << 32  # examples from which on a split is one that is drawn for ever


def print_facts(entry: registry.Entry, plugins: Sequence[str]) -> None:
    """Prints the origin of a dataset and, where it can be opened with its defaults, what is in it."""
    origin: Origin | None = entry.attribute("origin")
    if origin is not None:
        print_heading("\nOrigin")
        print_table(list(_origin(origin)))
    required = [name for name, parameter in parameters(entry).items() if parameter.default is REQUIRED]
    if required:
        print(f"\nIts splits are known when it has {', '.join(required)}.")
        return
    try:
        dataset = resolve([], [], plugins, entry.name).build()
        rows = list(_contents(dataset))
    except NotFetched as missing:
        print(f"\n{missing}")
        return
    print_heading("\nWith these parameters")
    print_table(rows)


def _origin(origin: Origin) -> Iterator[list[str]]:
    yield ["source", origin.source]
    yield ["licence", origin.licence]
    yield ["size", origin.size]
    for archive in origin.archives:
        yield ["archive", f"{archive.name}, {archive.size / 1e6:.1f} MB{'' if archive.is_here() else ', to fetch'}"]
        yield ["sha256", archive.sha256]


def _contents(dataset: Any) -> Iterator[list[str]]:
    yield ["examples", dataset.example.__name__]
    for split in ("train", "valid", "test"):
        try:
            count = len(dataset.split(split))
        except NotFetched:
            raise
        except LmlabError:
            yield [split, "none"]
        else:
            yield [split, "endless" if count >= _ENDLESS else f"{count:,}"]
    for names in ("labels", "tags"):
        if found := getattr(dataset, names, ()):
            shown = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
            yield [names, f"{len(found)}: {shown}"]
    for name, value in {
        **getattr(dataset, "notes", {}),
        **(dataset.known() if hasattr(dataset, "known") else {}),
    }.items():
        yield [name, f"{value:.6g}"]
    yield ["fingerprint", digest_json(dataset.fingerprint())[:16]]
