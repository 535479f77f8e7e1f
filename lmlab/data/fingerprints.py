"""What identifies a pipeline: JSON-able facts, and a readable comparison of two of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def digest(parts: Iterable[bytes]) -> str:
    """sha256 in hex over `parts`, each preceded by its length, so that moving a boundary changes it."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def digest_json(value: Any) -> str:
    """sha256 in hex of `value` as canonical JSON."""
    return digest([json.dumps(value, sort_keys=True, separators=(",", ":")).encode()])


def compare_fingerprints(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """None where the two pipelines are the same, else one line per difference: `path: saved → now`.

    Example: `dataset.train.documents: 612 → 613`.
    """
    before, after = _flat(saved), _flat(now)
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    return "\n".join(f"  {path}: {_short(before.get(path))} → {_short(after.get(path))}" for path in changed) or None


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Leaves as JSON text, by path: a tuple and a list are the same fact, 1 and true are not."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
    return {path: json.dumps(value)}


def _short(value: str | None) -> str:
    if value is None:
        return "(absent)"
    text = value.strip('"')
    return text if len(text) <= 40 else f"{text[:16]}…"
