"""Counter-based random numbers: pure functions of (seed, stream, epoch, sample id, counter), without any state.

So checkpoints hold no generator states, and ranks need not agree on any. A stream is the purpose of a number (geometry,
hole, fill, dropout of one layer). The counter runs over the elements of one tensor.
"""

from __future__ import annotations

import os
import zlib
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# There are two hashes. SplitMix64 (Steele, Lea, Flood 2014) mixes the few integers of a key. Elements of large tensors come
# from a 32-bit Weyl sequence and the 32-bit mixer "lowbias32" (Wellons). Each sample has its own start and odd increment of
# the sequence. torch's int32 arithmetic wraps around, so CPU and GPU give the same bits.

# SplitMix64's increment: 2^64 divided by the golden ratio, made odd.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: uint64 to uint64, element by element."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def name_id(name: str) -> int:
    """Return the CRC-32 of a name. Python's hash() would differ between processes."""
    # A file's name may be no UTF-8.
    return zlib.crc32(os.fsencode(name))


# Of the streams of random numbers. The stream is hashed first: with consecutive offsets the streams would be shifts of each other.
_OFFSETS = tuple((name_id(f"stream {stream}") | 1) - 2**31 for stream in range(32))


def key64(*parts: int | str | np.ndarray) -> np.ndarray:
    """Return the uint64 key of a sequence of integers; arrays broadcast, and a string stands for its name_id."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            value = name_id(part) if isinstance(part, str) else part
            # By way of int64, so that negative parts (the epoch of evaluation is -1) wrap to large ones.
            word = np.asarray(value).astype(np.int64).astype(np.uint64)
            # The factor, an odd constant, spreads small integers over all bits before they are added.
            state = splitmix64(state + _GAMMA + word * np.uint64(0xD1342543DE82EF95))
    return np.asarray(state)


def uniforms(key: np.ndarray, count: int) -> np.ndarray:
    """Return `count` float64 numbers in [0, 1) for each key: shape key.shape + (count,)."""
    with np.errstate(over="ignore"):
        words = splitmix64(key[..., None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))
    # A double has 53 bits of mantissa: the upper 53 of 64.
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def tensor_keys(key: np.ndarray) -> np.ndarray:
    """Return (B, 2) int32 for (B,) uint64 keys: start and increment of each sample's Weyl sequence."""
    start = (key >> np.uint64(32)).astype(np.uint32)
    # An odd increment makes the sequence visit all 2^32 values before it repeats.
    increment = (key & np.uint64(0xFFFFFFFF)).astype(np.uint32) | np.uint32(1)
    return np.stack([start, increment], axis=-1).view(np.int32)


def sample_keys(seed: int, epoch: int | np.ndarray, uids: np.ndarray) -> np.ndarray:
    """Return (B, 2) int32 keys for the large tensors of samples (hole, fill, dropout); `uids` are the name_ids of their keys."""
    return tensor_keys(key64(seed, "tensors", epoch, uids))


def hash_tensor(keys_B2: torch.Tensor, count: int, stream: int = 0) -> torch.Tensor:
    """Return (B, count) int32 random bits; `stream` separates tensors that share the keys."""
    import torch

    index = torch.arange(1, count + 1, dtype=torch.int32, device=keys_B2.device)
    return _mix(index * keys_B2[:, 1:] + (keys_B2[:, :1] ^ _offset(stream)))


def _offset(stream: int) -> int:
    return _OFFSETS[stream]


def _mix(x: torch.Tensor) -> torch.Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        # The mask makes the arithmetic shift of int32 a logical one, as lowbias32 needs.
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        x.mul_(factor)
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def uniform_tensor(keys_B2: torch.Tensor, count: int, stream: int = 0) -> torch.Tensor:
    """Return (B, count) float32 in [0, 1) on the device of the keys."""
    return _uniform(hash_tensor(keys_B2, count, stream))


def uniform_tensors(keys_B2: torch.Tensor, counts: tuple[int, ...], stream: int) -> torch.Tensor:
    """Return the `uniform_tensor`s of the streams from `stream` on, joined: (B, sum of counts)."""
    import torch

    # In a compiled graph they cost nothing, but must not come from a cache.
    positions = _positions if torch.compiler.is_compiling() else _kept_positions
    index, offsets = positions(counts, stream, keys_B2.device)
    return _uniform(_mix(index * keys_B2[:, 1:] + (keys_B2[:, :1] ^ offsets)))


def _positions(counts: tuple[int, ...], stream: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each element's index in its stream, and its stream's offset; both (sum of counts,) int32."""
    import torch

    numbers, same = (
        partial(torch.arange, dtype=torch.int32, device=device),
        partial(torch.full, dtype=torch.int32, device=device),
    )
    index = torch.cat([numbers(1, count + 1) for count in counts])
    return index, torch.cat([same((count,), _offset(stream + n)) for n, count in enumerate(counts)])


# A CUDA graph of a step knows these tensors by their address; a training needs one entry.
_kept_positions = lru_cache(maxsize=8)(_positions)


def _uniform(bits: torch.Tensor) -> torch.Tensor:
    # float32 has 24 bits of mantissa: more would round up to 1.
    return (bits >> 8).bitwise_and_(0xFFFFFF).float().mul_(2.0**-24)
