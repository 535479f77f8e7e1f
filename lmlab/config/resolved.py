"""A resolved configuration: the Spec, where each of its values comes from, and how it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmlab import registry
from lmlab.config.construction import build
from lmlab.config.gin_text import gin_text
from lmlab.config.specs import identity, spec_from_json, spec_hash, spec_to_json
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import ConfigError


@dataclass(frozen=True)
class Resolved:
    """What `resolve` makes of a configuration.

    Args:
      spec: the root component and everything below it, complete.
      provenance: path below the root (`model.layers`, `evaluators.0.batches`) to `file:line`, `command line` or
        `default`; with a macro, `file:line (%NAME from file:line)`.
      files, overrides, plugins: what was asked for.
    """

    spec: Spec
    provenance: Mapping[str, str] = field(default_factory=FrozenDict, compare=False)
    files: tuple[str, ...] = field(default=(), compare=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)
    plugins: tuple[str, ...] = field(default=(), compare=False)

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that name this configuration."""
        return spec_hash(self.spec)

    @property
    def identity(self) -> str:
        """12 hexadecimal digits that name what is learned: equal for a run and its resumption on other devices."""
        return spec_hash(identity(self.spec))

    def build(self, **supplied: Any) -> Any:
        """The root component; its errors say where the values come from."""
        return build(self.spec, self.provenance, "", **supplied)

    def gin(self) -> str:
        """gin text that needs no other file and resolves to the same Spec, each line with its provenance."""
        return gin_text(self.spec, self.provenance, self.plugins)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON data."""
        return {
            "spec": spec_to_json(self.spec),
            "hash": self.hash,
            "identity": self.identity,
            "provenance": dict(self.provenance),
            "files": list(self.files),
            "overrides": list(self.overrides),
            "plugins": list(self.plugins),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Resolved:
        """What `to_json` saved; loads its plug-ins, so that it can be built.

        Raises:
          ConfigError: it is not such data, it was changed by hand (its hash differs), or a plug-in is gone.
        """
        try:
            spec, saved_hash = spec_from_json(data["spec"]), data["hash"]
            rest = {key: tuple(data.get(key, ())) for key in ("files", "overrides", "plugins")}
            found = Resolved(spec, FrozenDict(data["provenance"]), **rest)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"not a saved configuration (config.json): {error} is missing or of a wrong form"
            ) from None
        if found.hash != saved_hash:
            raise ConfigError(
                f"the saved configuration has the hash {found.hash}, but says {saved_hash}: it was changed after it "
                "was saved. Train from its config.gin as a new run instead."
            )
        registry.scan_installed_plugins()
        for plugin in found.plugins:
            registry.load_plugin(plugin)
        return found
