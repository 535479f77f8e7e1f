"""Parameters of a model for tests that do not ask where it starts: no program is compiled for them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lmlab.nn.functional import ModelDef


def drawn(model: ModelDef[Any], seed: int = 0, std: float = 0.3) -> dict[str, Array]:
    """Normal values, of which no two are alike; those of a norm's scale are about 1."""
    draw = np.random.default_rng(seed)
    return {
        path: jnp.asarray(std * draw.standard_normal(shape.shape) + path.endswith("/scale"), shape.dtype)
        for path, shape in model.shapes.items()
    }
