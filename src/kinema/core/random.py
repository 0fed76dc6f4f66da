"""Counter-based random draws: a value depends on (seed, epoch, draw, name, position in the shape) and nothing else.

So a sample gets the same draws whatever the batch size, the number of workers or devices, and after a resume. The
generator is Philox 4x32-10 (Salmon et al. 2011) on int64 tensors; integers and uniforms have the same bits on every
device, normals agree to rounding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Lane = TypeVar("Lane", Tensor, np.ndarray)
_MASK = 0xFFFFFFFF
# Multipliers and key increments of Philox 4x32.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def uniform(seed: int, epoch: int | Tensor, draw: Tensor, name: str, shape: Sequence[int] = ()) -> Tensor:
    """Draw float32 uniforms in [0, 1), multiples of 2^-24.

    Args:
        seed: of the run.
        epoch: number, or one per sample (B,).
        draw: (B,) int64, position in the epoch's order (batch key `draw`); for a draw shared by a batch the step, (1,).
        name: of the draw, such as "flip"; other names give independent values.
        shape: of one sample's values; a shorter shape gets the first values of a longer one (in storage order).

    Returns:
        (B, *shape) on the device of `draw`.
    """
    bits = _bits(seed, epoch, draw, name, math.prod(shape))
    return ((bits >> 8).to(torch.float32) * 2.0**-24).reshape(len(draw), *shape)


def normal(seed: int, epoch: int | Tensor, draw: Tensor, name: str, shape: Sequence[int] = ()) -> Tensor:
    """Draw float32 standard normals by the Box-Muller transform; arguments and result as in `uniform`."""
    size = math.prod(shape)
    # Pairs stand side by side, so that a longer shape keeps the values of a shorter one.
    bits = _bits(seed, epoch, draw, name, size + size % 2).reshape(len(draw), -1, 2)
    # (0, 1], so that the logarithm is finite.
    radius = (-2 * torch.log(((bits[..., 0] >> 8) + 1).to(torch.float32) * 2.0**-24)).sqrt()
    turn = (bits[..., 1] >> 8).to(torch.float32) * (2.0**-24 * 2 * math.pi)
    pairs = torch.stack([radius * turn.cos(), radius * turn.sin()], dim=-1).flatten(1)
    return pairs[:, :size].reshape(len(draw), *shape)


def deterministic_random(low: int, high: int, text: str) -> int:
    """Integer from `low` up to `high`, made of the first four bytes of the text's SHA-256.

    Source: VideoPose3D, common/utils.py: picks the frames of `subset` < 1.
    """
    first = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    return int(first / (2**32 - 1) * (high - low)) + low


def _bits(seed: int, epoch: int | Tensor, draw: Tensor, name: str, size: int) -> Tensor:
    """(B, size) random 32-bit integers."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))
    draw = draw.to(torch.int64)
    blocks = torch.arange((size + 3) // 4, device=draw.device)
    epochs = torch.as_tensor(epoch, dtype=torch.int64, device=draw.device)
    a, b, c, d = torch.broadcast_tensors(blocks, draw[:, None], draw[:, None] >> 32, epochs.reshape(-1, 1))
    if draw.device.type == "cpu":  # the same integers; a call of numpy costs a third of one of torch
        # Lanes that are only broadcast give results of mixed layouts, and every further call takes twice as long.
        arrays = _philox(tuple(lane.contiguous().numpy() for lane in (a, b, c, d)), key)
        lanes = tuple(torch.from_numpy(lane) for lane in arrays)
    else:
        lanes = _philox((a, b, c, d), key)
    return torch.stack(lanes, dim=-1).flatten(1)[:, :size]


def _philox(counter: tuple[Lane, Lane, Lane, Lane], key: tuple[int, int]) -> tuple[Lane, ...]:
    """Encrypt 128-bit counters held as four int64 tensors or arrays of 32-bit lanes."""
    a, b, c, d = (lane & _MASK for lane in counter)
    key0, key1 = key
    for _ in range(_ROUNDS):
        # Wrap-around of int64 leaves the lower 64 bits of the product, which is all that is read.
        product0, product1 = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        high0, high1 = (product0 >> 32) & _MASK, (product1 >> 32) & _MASK
        a, b, c, d = high1 ^ b ^ key0, product1 & _MASK, high0 ^ d ^ key1, product0 & _MASK
        key0, key1 = (key0 + _WEYL[0]) & _MASK, (key1 + _WEYL[1]) & _MASK
    return a, b, c, d
