"""A fingerprint of every array of a state, computed where the array lies.

Each word of an array is multiplied by an odd number that depends on its position, and the products are summed
modulo 2^32. Odd numbers are invertible there, so that a change to any one word changes the sum; and integer sums
do not depend on the order, so that the fingerprint is the same however the array is laid out over devices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import UInt32


def checksums(arrays: Mapping[str, Array]) -> dict[str, int]:
    """The fingerprint of each array, fetched from the devices at once.

    In a run of several processes, all of them must call this.
    """
    names = sorted(arrays)
    if not names:
        return {}
    sums = np.asarray(jax.device_get(_fingerprints([arrays[name] for name in names])))
    return {name: int(value) for name, value in zip(names, sums, strict=True)}


@jax.jit
def _fingerprints(arrays: list[Array]) -> UInt32[Array, " N"]:
    return jnp.stack([fingerprint(array) for array in arrays])


@jax.jit  # traced once per shape, and the moments of an optimizer have the shapes of the parameters
def fingerprint(array: Array) -> UInt32[Array, ""]:
    """The fingerprint of one array, traceable."""
    words = _words(array)
    index = jnp.zeros(words.shape, jnp.uint32)
    stride = math.prod(words.shape)
    for axis, size in enumerate(words.shape):  # one iota per axis: flattening would gather a sharded array
        stride //= max(size, 1)
        index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride % 2**32)
    return jnp.sum(words * _odd(index), dtype=jnp.uint32)


def _words(array: Array) -> UInt32[Array, "..."]:
    """The array's bits as 32-bit words (two of them, on a new last axis, for types of 64 bits)."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    bits = array.dtype.itemsize * 8
    if bits > 32:
        return jax.lax.bitcast_convert_type(array, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)


def _odd(index: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """An odd number that looks random, for each position (the finaliser of MurmurHash3, its last bit set)."""
    index = (index ^ (index >> 16)) * jnp.uint32(0x85EBCA6B)
    index = (index ^ (index >> 13)) * jnp.uint32(0xC2B2AE35)
    return (index ^ (index >> 16)) | jnp.uint32(1)
