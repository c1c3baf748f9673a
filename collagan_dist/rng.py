"""Randomness as a pure function: no generator anywhere, so nothing of it needs to be saved or agreed upon.

Every random number of a run is a function of (seed, stream, epoch, sample id, counter). A stream is what the number
is for (geometry, hole, fill, dropout of one layer). The counter runs over the elements of one tensor.

Two hashes do it. SplitMix64 (Steele, Lea, Flood 2014) mixes the few integers of a key. Elements of large tensors come
from a 32-bit Weyl sequence with a start and an odd increment of the sample's own, finished by a 32-bit mixer of good
avalanche (Wellons, "lowbias32"); torch's int32 arithmetic wraps, so CPU and GPU give the same bits.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: uint64 to uint64, element by element."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def name_id(name: str) -> int:
    """The number that stands for a name: its CRC-32."""
    return zlib.crc32(name.encode())


def key64(*parts: int | str | np.ndarray) -> np.ndarray:
    """uint64 key of a chain of integers (arrays broadcast); a string stands for its CRC-32."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            value = name_id(part) if isinstance(part, str) else part
            word = np.asarray(value).astype(np.int64).astype(np.uint64)
            state = splitmix64(state + _GAMMA + word * np.uint64(0xD1342543DE82EF95))
    return np.asarray(state)


def uniforms(key: np.ndarray, count: int) -> np.ndarray:
    """`count` float64 numbers in [0, 1) behind each key: shape key.shape + (count,)."""
    with np.errstate(over="ignore"):
        words = splitmix64(key[..., None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def tensor_keys(key: np.ndarray) -> np.ndarray:
    """(B,) uint64 keys to (B, 2) int32: start and odd increment of each sample's Weyl sequence."""
    start = (key >> np.uint64(32)).astype(np.uint32)
    increment = (key & np.uint64(0xFFFFFFFF)).astype(np.uint32) | np.uint32(1)
    return np.stack([start, increment], axis=-1).view(np.int32)


def sample_keys(seed: int, epoch: int | np.ndarray, uids: np.ndarray) -> np.ndarray:
    """(B, 2) int32 keys of the large tensors of samples (hole, fill, dropout); `uids` are the name_ids of their keys."""
    return tensor_keys(key64(seed, "tensors", epoch, uids))


def hash_tensor(keys_B2: torch.Tensor, count: int, stream: int = 0) -> torch.Tensor:
    """(B, count) int32 hash bits; `stream` separates tensors that share the keys."""
    import torch

    index = torch.arange(1, count + 1, dtype=torch.int32, device=keys_B2.device)
    # A stream's constant enters behind a multiplication, so that streams are not shifts of each other.
    offset = (name_id(f"stream {stream}") | 1) - 2**31
    x = index * keys_B2[:, 1:] + (keys_B2[:, :1] ^ offset)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        x.mul_(factor)
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def uniform_tensor(keys_B2: torch.Tensor, count: int, stream: int = 0) -> torch.Tensor:
    """(B, count) float32 in [0, 1) on the device of the keys."""
    bits = hash_tensor(keys_B2, count, stream)
    return (bits >> 8).bitwise_and_(0xFFFFFF).float().mul_(2.0**-24)
