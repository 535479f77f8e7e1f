"""Laws of every component, whatever it is."""

from __future__ import annotations

import inspect
import json
import re

from lmlab.config import Resolved, diff, parameters, resolve, spec_from_json, spec_to_json
from lmlab.testing.tiny import Tiny


def says_what_it_is(tiny: Tiny) -> None:
    """It has a docstring, and this names every parameter."""
    doc = inspect.getdoc(tiny.component) or ""
    assert doc.split("\n")[0].strip(), f"{tiny.entry.place}: no docstring"
    missing = [name for name in parameters(tiny.entry) if not re.search(rf"\b{name}\b", doc)]
    assert not missing, f"{tiny.entry.place}: the docstring does not name {', '.join(missing)}"


def its_spec_survives_json_and_gin(tiny: Tiny) -> None:
    """Spec → JSON → Spec, and Spec → gin text → Spec, are the identity."""
    resolved = tiny.alone()
    text = json.dumps(spec_to_json(resolved.spec), allow_nan=False)
    assert spec_from_json(json.loads(text)) == resolved.spec
    again = Resolved.from_json(json.loads(json.dumps(resolved.to_json())))
    assert (again.spec, again.hash, again.identity) == (resolved.spec, resolved.hash, resolved.identity)
    file = tiny.folder / "again.gin"
    file.write_text(resolved.gin(), encoding="utf-8")
    from_gin = resolve([str(file)], root=tiny.entry.name).spec
    assert from_gin == resolved.spec, f"gin text gives another Spec: {diff(resolved.spec, from_gin)}"


def what_is_operational_is_a_parameter(tiny: Tiny) -> None:
    """Every name in OPERATIONAL is one of its parameters: a misspelt one would change identities in silence."""
    operational: frozenset[str] = getattr(tiny.component, "OPERATIONAL", frozenset())
    unknown = operational - parameters(tiny.entry).keys()
    assert not unknown, f"{tiny.entry.place}: OPERATIONAL names {', '.join(sorted(unknown))}, which it does not have"


LAWS = (says_what_it_is, its_spec_survives_json_and_gin, what_is_operational_is_a_parameter)
