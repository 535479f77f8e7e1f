"""Data parallelism the old way: one replica of the program per device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from lmlab.errors import ConfigError
from lmlab.parallel.batches import by_row, check_division
from lmlab.parallel.compiling import compile_for_speed, compile_once
from lmlab.registry import partitioners


@partitioners.register("pmap")
@dataclass(frozen=True)
class Pmap:
    """A replica of the state on every device of one process, which sums its gradients itself (jax.pmap).

    For comparison, and for code that counts on an axis name; `mesh` does the same and more.

    Args:
      devices: how many of the process's devices to use; -1: all.
    """

    devices: int = -1

    @property
    def axis_name(self) -> str:
        """The axis that the step sums over."""
        return "devices"

    @cached_property
    def used(self) -> list[jax.Device]:
        """The devices.

        Raises:
          ConfigError: there are too few, or several processes.
        """
        if jax.process_count() > 1:
            raise ConfigError(
                f"pmap runs in one process, not {jax.process_count()}. Use experiment.partitioner = @mesh."
            )
        devices = jax.devices()
        count = len(devices) if self.devices == -1 else self.devices
        if not 1 <= count <= len(devices):
            raise ConfigError(f"pmap.devices = {self.devices}: there are {len(devices)} (-1 takes all).")
        return devices[:count]

    def check(self, global_batch_size: int, microbatches: int) -> None:
        """ConfigError unless the batch divides over the devices and the microbatches."""
        check_division(global_batch_size, len(self.used), microbatches)

    def rows(self, global_batch_size: int) -> range:
        """All rows: there is one process."""
        return range(global_batch_size)

    def initializer(self, make_state: Callable[[Any], Any], given: Any) -> Callable[[Any], Any]:
        """See `contracts.Partitioner.initializer`; it is made on one device and copied to every one."""
        make = compile_once(make_state, given)
        return lambda given: self.load(make(given))

    def place(self, batch: Mapping[str, np.ndarray], leading: int = 0) -> dict[str, Array]:
        """The batch with a leading device axis; `leading` axes stand before B."""
        over_devices = NamedSharding(self._grid, PartitionSpec(self.axis_name))
        # ascontiguousarray may not copy; the device's array may be the host's memory, which the loader may use again.
        return {
            name: jax.device_put(np.array(self._split(np.asarray(rows), leading), copy=True), over_devices)
            for name, rows in batch.items()
        }

    def lower(
        self,
        function: Callable[..., Any],
        state: Any,
        batch: Any,
        *,
        leading: int = 0,
        donate: bool = False,
        carries: bool = False,
    ) -> jax.stages.Lowered:
        """The traced and lowered program of `compile`, with its `cost_analysis()`."""
        count = len(self.used)
        mapped = self._map(
            function,
            in_axes=(0, 0),
            out_axes=(0, None) if donate or carries else None,
            donate_argnums=(0,) if donate else (),
        )
        states = _by_kind(
            lambda leaf: _split_shape(leaf, 0, count),
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype),
            state,
        )
        batches = jax.tree.map(lambda leaf: _split_shape(leaf, leading, count), dict(batch))
        return mapped.lower(states, batches)

    def compile(self, function: Callable[..., Any], state: Any, batch: Any, **options: Any) -> jax.stages.Compiled:
        """See `lmlab.contracts.Partitioner.compile`; the options are those of `lower`."""
        return compile_for_speed(self.lower(function, state, batch, **options))

    def export(self, state: Any) -> Any:
        """The first device's state, replicated without the device axis; what rows carry, of all devices."""

        def gathered(state: Any) -> Any:
            return _by_kind(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), lambda leaf: leaf[0], state)

        return jax.jit(gathered, out_shardings=self._replicated)(state)

    def abstract(self, make_state: Callable[[Array], Any], key: Array) -> Any:
        """The exported state as ShapeDtypeStructs with shardings: the target of a restore."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._replicated),
            jax.eval_shape(make_state, key),
        )

    def load(self, exported: Any) -> Any:
        """The exported state on every device; what rows carry, on the device that has the rows."""
        count = len(self.used)

        def of_device(device: Array, state: Any) -> Any:
            return _by_kind(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:])[device], lambda leaf: leaf, state)

        return self._map(of_device, in_axes=(0, None))(np.arange(count), exported)

    @cached_property
    def _grid(self) -> jax.sharding.Mesh:
        return jax.sharding.Mesh(np.asarray(self.used), (self.axis_name,))

    @property
    def _replicated(self) -> NamedSharding:
        return NamedSharding(self._grid, PartitionSpec())

    def _map(self, function: Callable[..., Any], **options: Any) -> Any:
        return jax.pmap(function, axis_name=self.axis_name, axis_size=len(self.used), devices=self.used, **options)

    def _split(self, rows: np.ndarray, leading: int) -> np.ndarray:
        shape = _split_shape(rows, leading, len(self.used)).shape
        blocks = rows.reshape(*rows.shape[:leading], shape[0], shape[leading + 1], *rows.shape[leading + 1 :])
        return np.moveaxis(blocks, leading, 0)


def _split_shape(leaf: Any, leading: int, count: int) -> jax.ShapeDtypeStruct:
    """(*leading, B, ...) as (count, *leading, B / count, ...)."""
    before, rows, after = leaf.shape[:leading], leaf.shape[leading], leaf.shape[leading + 1 :]
    return jax.ShapeDtypeStruct((count, *before, rows // count, *after), leaf.dtype)


def _by_kind(of_rows: Callable[[Any], Any], of_others: Callable[[Any], Any], state: Any) -> Any:
    """The state with the first function of the leaves that have rows, and the other one of all others."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: of_rows(leaf) if by_row(path) else of_others(leaf), state
    )
