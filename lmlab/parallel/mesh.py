"""Data, fully-sharded and tensor parallelism as one compiled program over a mesh of devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding

from lmlab.errors import ConfigError
from lmlab.nn.layout import ROWS
from lmlab.parallel.batches import check_division, contiguous_rows
from lmlab.parallel.compiling import compile_for_speed, compile_once
from lmlab.parallel.rules import RULES, shardings
from lmlab.registry import partitioners


@partitioners.register("mesh")
@dataclass(frozen=True)
class Mesh:
    """Devices in a grid data × fsdp × tensor; the compiler inserts the communication (jit with NamedSharding).

    The rows of a batch lie over data and fsdp; parameters and optimizer state over fsdp (ZeRO 3, arXiv:1910.02054)
    and tensor (arXiv:1909.08053), as `rules` say. With data × fsdp × tensor below the number of devices, the first
    devices are used.

    Args:
      data: devices over which batches are split; -1: all that the others leave.
      fsdp: devices over which batches and parameters are split.
      tensor: devices over which single layers are split.
      rules: pairs of a regular expression, searched in the parameter's path, and the mesh axes (`fsdp`, `tensor` or
        None) of the parameter's trailing dimensions; asked before lmlab's own rules, first match wins. A parameter
        without a rule is an error; where fsdp and tensor are 1, no rule is needed.
    """

    TINY: ClassVar[str] = "mesh.data = 1"

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = ()

    @property
    def axis_name(self) -> None:
        """None: the compiler sums over devices."""
        return

    @cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices.

        Raises:
          ConfigError: there are too few, or in a run of several processes too many.
        """
        devices = jax.devices()
        model = self.fsdp * self.tensor
        shape = (len(devices) // max(model, 1) if self.data == -1 else self.data, self.fsdp, self.tensor)
        used = math.prod(shape)
        if min(shape) < 1 or used > len(devices):
            raise ConfigError(
                f"mesh: data={self.data}, fsdp={self.fsdp}, tensor={self.tensor} does not fit on {len(devices)} "
                "devices. Each is at least 1 (data also -1: all that the others leave), and their product at most that."
            )
        axes, types = (*ROWS, "tensor"), (AxisType.Auto,) * len(shape)
        if jax.process_count() == 1:
            return jax.make_mesh(shape, axes, axis_types=types, devices=devices[:used])
        if used != len(devices):
            raise ConfigError(
                f"mesh: {jax.process_count()} processes hold {len(devices)} devices, of which data × fsdp × tensor = "
                f"{used} would be used. Use all: mesh.data = -1."
            )
        # In the order of the processes, so that each one's rows are one block.
        return jax.sharding.Mesh(np.asarray(devices).reshape(shape), axes, axis_types=types)

    def check(self, global_batch_size: int, microbatches: int) -> None:
        """ConfigError unless the batch divides over the devices and the microbatches."""
        check_division(global_batch_size, self.mesh.shape["data"] * self.mesh.shape["fsdp"], microbatches)

    def rows(self, global_batch_size: int) -> range:
        """The rows of the global batch that this process reads."""
        places = self._of_batch(0).addressable_devices_indices_map((global_batch_size,))
        return contiguous_rows((index[0] for index in places.values() if index), global_batch_size)

    def initializer(self, make_state: Callable[[Any], Any], given: Any) -> Callable[[Any], Any]:
        """See `contracts.Partitioner.initializer`."""
        # Not device_put: that may alias its source, which a donating step would delete.
        layout = self._layout(jax.eval_shape(make_state, given))
        return compile_once(make_state, given, out_shardings=layout)

    def place(self, batch: Mapping[str, np.ndarray], leading: int = 0) -> dict[str, Array]:
        """This process's rows as part of the global batch on the devices; `leading` axes stand before B."""
        sharding = self._of_batch(leading)
        with jax.transfer_guard_host_to_device("allow"):  # this is the transfer that a training loop means to make
            # Copied, because on CPU the device's array may be the host's memory, which the loader may use again.
            return {
                name: jax.make_array_from_process_local_data(sharding, np.array(rows, copy=True))
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
        layout = self._layout(state)
        replicated = NamedSharding(self.mesh, PartitionSpec())
        stays = layout if donate else self._of_batch(leading) if carries else None
        program = jax.jit(
            function,
            in_shardings=(layout, self._of_batch(leading)),
            out_shardings=replicated if stays is None else (stays, replicated),
            donate_argnums=(0,) if donate else (),
        )
        with jax.set_mesh(self.mesh):  # for lmlab.nn.layout
            return program.lower(state, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(batch)))

    def compile(self, function: Callable[..., Any], state: Any, batch: Any, **options: Any) -> jax.stages.Compiled:
        """See `lmlab.contracts.Partitioner.compile`; the options are those of `lower`."""
        return compile_for_speed(self.lower(function, state, batch, **options))

    def export(self, state: Any) -> Any:
        """The state itself: global arrays."""
        return state

    def abstract(self, make_state: Callable[[Array], Any], key: Array) -> Any:
        """The state as ShapeDtypeStructs with shardings: the target of a restore."""
        shapes = jax.eval_shape(make_state, key)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self._layout(shapes),
        )

    def load(self, exported: Any) -> Any:
        """The exported state on this mesh. It takes the arrays over: `exported` is deleted."""
        take_over = jax.jit(lambda state: state, out_shardings=self._layout(exported), donate_argnums=0)
        return take_over(exported)

    def _layout(self, state: Any) -> Any:
        return shardings(self.mesh, (*self.rules, *RULES), state)

    def _of_batch(self, leading: int) -> Sharding:
        return NamedSharding(self.mesh, PartitionSpec(*[None] * leading, ROWS))
