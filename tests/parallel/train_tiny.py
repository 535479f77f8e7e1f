"""One of several processes that train the tiny model together: `train_tiny.py HOST:PORT ID COUNT OUT [DIE_AT]`."""

import os
import signal
import sys

import jax
import numpy as np
from tiny_lm import NextToken, ragged_batches, tiny_model

from lmlab.errors import LmlabError
from lmlab.optim.optimizers import SGD
from lmlab.parallel.mesh import Mesh
from lmlab.parallel.processes import among_peers, connect
from lmlab.training.randomness import INIT, stream_key
from lmlab.training.step import Recipe, make_init, make_step

B, STEPS, SEED = 16, 5, 3
LAYOUTS = {
    "data": Mesh(),
    "fsdp": Mesh(data=1, fsdp=8),
    "tensor": Mesh(data=2, tensor=4),
    "across": Mesh(data=1, tensor=8),
}


def train(mesh, die_at=None):
    recipe = Recipe(tiny_model(), NextToken(), SGD(0.5, momentum=0.9), seed=SEED, clip_norm=0.7, ema=0.9)
    batches = ragged_batches(STEPS, B)
    init, key, rows = make_init(recipe), stream_key(SEED, INIT), mesh.rows(B)
    step = mesh.compile(make_step(recipe, microbatches=2), mesh.abstract(init, key), batches[0], donate=True)
    state, losses = mesh.initializer(init, key)(key), []
    for number, batch in enumerate(batches):
        if number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        own = {name: array[rows.start : rows.stop] for name, array in batch.items()}
        with jax.transfer_guard("disallow"):
            state, metrics = step(state, mesh.place(own))
        total, weight = jax.device_get(metrics["loss"])
        losses.append(float(total / weight))
    return losses, (rows.start, rows.stop)


def main(address, process_id, count, out, die_at="-1"):
    connect(address, int(process_id), int(count))
    layouts = LAYOUTS if die_at == "-1" else {"data": LAYOUTS["data"]}
    results = {name: train(mesh, int(die_at) if process_id == "1" else None) for name, mesh in layouts.items()}
    np.savez(out, **{f"{name}_{part}": np.array(value) for name, both in results.items()
                     for part, value in zip(("losses", "rows"), both, strict=True)})  # fmt: skip


if __name__ == "__main__":
    try:
        with among_peers():
            main(*sys.argv[1:])
    except LmlabError as error:
        print(f"lmlab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
