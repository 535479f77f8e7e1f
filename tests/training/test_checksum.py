import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lmlab.training.checksum import checksums

TYPES = [np.float32, np.int32, np.uint8, np.float16, ml_dtypes.bfloat16, np.int8, np.bool_]


def numpy_checksum(array: np.ndarray) -> int:
    """The definition, in NumPy: words times odd numbers by position, summed modulo 2^32."""
    width = {1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
    words = array.reshape(-1).view(width).astype(np.uint64)
    index = np.arange(words.size, dtype=np.uint64)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        index = ((index ^ (index >> np.uint64(shift))) * np.uint64(factor)) % np.uint64(2**32)
    odd = (index ^ (index >> np.uint64(16))) | np.uint64(1)
    return int(sum((int(w) * int(o)) % 2**32 for w, o in zip(words, odd, strict=True)) % 2**32)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 3, 5)])
def test_it_is_what_its_definition_says(dtype, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    assert checksums({"x": jnp.asarray(array)}) == {"x": numpy_checksum(np.asarray(array))}


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8])
def test_any_one_changed_byte_changes_it(dtype):
    array = np.random.default_rng(1).normal(size=(3, 5)).astype(dtype)
    changed = []
    for at in range(array.nbytes):
        data = bytearray(array.tobytes())
        data[at] ^= 1 << (at % 8)
        changed.append(jnp.asarray(np.frombuffer(bytes(data), dtype).reshape(3, 5)))
    sums = checksums({str(i): x for i, x in enumerate(changed)} | {"same": jnp.asarray(array)})
    assert all(sums[str(i)] != sums["same"] for i in range(len(changed)))


def test_two_swapped_rows_change_it():
    array = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32))
    sums = checksums({"a": array, "b": array[jnp.array([1, 0, 2, 3, 4])]})
    assert sums["a"] != sums["b"]


def test_it_is_the_same_however_the_array_is_laid_out():
    array = np.random.default_rng(3).normal(size=(16, 24)).astype(np.float32)
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    layouts = [PartitionSpec(), PartitionSpec("a"), PartitionSpec("a", "b"), PartitionSpec(None, ("a", "b"))]
    placed = {str(spec): jax.device_put(array, NamedSharding(mesh, spec)) for spec in layouts}
    assert set(checksums(placed).values()) == {numpy_checksum(array)}


def test_it_gathers_nothing():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    array = jax.device_put(np.zeros((16, 24), np.float32), NamedSharding(mesh, PartitionSpec("a")))
    from lmlab.training.checksum import _fingerprints

    assert "all-gather" not in _fingerprints.lower([array]).compile().as_text()
