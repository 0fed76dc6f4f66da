"""Motion as a sequence of frames: resampling, clips, rigid drift, identity switches."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kinema.errors import DataError


def resample_indices(frames: int | np.ndarray, count: int) -> np.ndarray:
    """Frame numbers that spread `count` frames evenly over a video: floor(i * frames / count).

    Computed in float64 like numpy.linspace without its end point; integer division differs for some lengths.

    Args:
        frames: length of the video, or lengths (...,).
        count: wanted frames.

    Returns:
        (..., count) int64.
    """
    step = np.asarray(frames, np.float64)[..., None] / count
    return np.floor(np.arange(count) * step).astype(np.int64)


def resample_random(frames: int, count: int, draws: np.ndarray) -> np.ndarray:
    """Frame numbers drawn around the evenly spread ones of `resample_indices`.

    Shrinking takes one random frame of each interval; stretching rounds each position down or up by a coin.

    Args:
        frames: length of the video.
        count: wanted frames.
        draws: (..., count) uniforms in [0, 1); for stretching a 0/1 coin serves as well (1 = down).

    Returns:
        (..., count) int64, not decreasing.

    Source: MotionBERT, lib/utils/utils_data.py (resample).
    """
    return resample_spread(np.asarray(frames), count, draws)


def resample_spread(lengths: np.ndarray, count: int, draws: np.ndarray) -> np.ndarray:
    """`resample_random` for many videos at once.

    Args:
        lengths: (B,) lengths of the videos, each at least 1.
        count: wanted frames.
        draws: (B, count) uniforms in [0, 1).

    Returns:
        (B, count) int64, not decreasing in a row.
    """
    lengths = lengths[..., None]
    step = lengths / count
    even = np.arange(count) * step
    chosen = np.where(lengths < count, np.where(draws < 0.5, np.ceil(even), np.floor(even)), even + draws * step)
    # Coins may put a frame behind the next one.
    return np.floor(np.clip(np.sort(chosen, axis=-1), 0, lengths - 1)).astype(np.int64)


def resample_legacy(frames: int, count: int, random: np.random.RandomState) -> np.ndarray:
    """`resample_random` with the draws MotionBERT makes from numpy's legacy generator; (count,) int64."""
    if frames < count:
        return resample_random(frames, count, random.randint(2, size=count))
    return resample_random(frames, count, random.random_sample(count))


def replay_legacy(frames: int, count: int, random: np.random.RandomState) -> np.ndarray:
    """Frame numbers of a random stretch of consecutive frames, or of a short video played again and again.

    Source: MotionBERT, lib/utils/utils_data.py (resample, replay mode).
    """
    if frames > count:
        return random.randint(frames - count) + np.arange(count)
    return np.arange(count) % frames


def uniform_draws(count: int) -> int:
    """How many uniforms `uniform_indices` takes for a video."""
    return count + 1


def uniform_indices(lengths: np.ndarray, count: int, draws: np.ndarray) -> np.ndarray:
    """Frame numbers of uniform sampling in training: one random frame of each of `count` equal parts of a video.

    A video of one to two times `count` frames gives a random choice of its frames without more than one left out in a
    place; a shorter one is played again and again from a random frame on.

    Args:
        lengths: (B,) lengths of the videos, each at least 1.
        count: wanted frames.
        draws: (B, `uniform_draws(count)`) uniforms in [0, 1). Long videos use the first `count`, one for each part;
            those between leave a frame out at the places of their smallest draws; short ones start by the first.

    Returns:
        (B, count) int64 in [0, length).

    Source: pyskl, datasets/pipelines/sampling.py (UniformSampleFrames), with draws of our own.
    """
    lengths = lengths.astype(np.int64)[:, None]
    places = np.arange(count)
    again = (np.floor(draws[:, :1] * lengths).astype(np.int64) + places) % lengths
    order = np.argsort(np.argsort(draws, axis=1, kind="stable"), axis=1, kind="stable")
    skipped = places + np.cumsum(order < lengths - count, axis=1)[:, :count]
    first, after = places * lengths // count, (places + 1) * lengths // count
    # A draw next to 1 must not round up into the next part.
    within = np.minimum(np.floor(draws[:, :count] * (after - first)).astype(np.int64), after - first - 1)
    parts = first + within
    return np.where(lengths < count, again, np.where(lengths < 2 * count, skipped, parts))


def uniform_test_indices(length: int, count: int, clips: int, seed: int = 255) -> np.ndarray:
    """Frame numbers of uniform sampling in tests: the same for every video of a length.

    Short videos start at evenly spread frames; the others are drawn as in `uniform_indices`, with numpy's legacy
    generator in the published order.

    Args:
        length: frames of the video, at least 1.
        count: frames of a clip.
        clips: wanted clips.
        seed: of the generator, started anew for each video.

    Returns:
        (clips, count) int64 in [0, length).

    Source: pyskl, datasets/pipelines/sampling.py (UniformSampleFrames, test mode).
    """
    random = np.random.RandomState(seed)
    number, places = np.arange(clips), np.arange(count)
    if length < count:
        start = number if length < clips else number * length // clips
        return (start[:, None] + places) % length
    edges = np.arange(count + 1) * length // count
    found = np.empty((clips, count), np.int64)
    for row in found:  # the generator's order; tests have ten clips at most
        # published behaviour: a number is drawn for a crop in time that is never made.
        random.random_sample()
        if length < 2 * count:
            skipped = np.zeros(count + 1, np.int64)
            skipped[random.choice(count + 1, length - count, replace=False)] = 1
            row[:] = places + np.cumsum(skipped)[:-1]
        else:
            row[:] = edges[:-1] + random.randint(np.diff(edges))
    return found


def split_clips(ids: np.ndarray, count: int, stride: int, random: np.random.RandomState) -> np.ndarray:
    """Cut consecutive videos into clips of `count` frames, a new one every `stride` frames.

    Published behaviour, kept because the training and test sets depend on it: the rest of a video that gave a clip is
    dropped; a video too short for one is resampled at random to one clip, unless it is the last of all, which is lost.

    Args:
        ids: (N,) video of each frame; frames of a video stand together.
        count: frames of a clip.
        stride: distance of clip starts.
        random: legacy generator for short videos.

    Returns:
        (clips, count) int64 frame numbers into `ids`.

    Source: MotionBERT, lib/utils/utils_data.py (split_clips).
    """
    ids = np.asarray(ids)
    cuts = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    starts, ends = np.concatenate([[0], cuts]), np.concatenate([cuts, [len(ids)]])
    served: set[object] = set()
    clips = [np.empty((0, count), np.int64)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        firsts = np.arange(start, end - count + 1, stride)
        name = ids[start]
        if len(firsts):
            served.add(name)
            clips.append(firsts[:, None] + np.arange(count))
        elif name not in served and end < len(ids):
            clips.append(start + resample_legacy(end - start, count, random)[None])
    return np.concatenate(clips)


def stretched_clips(frames: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a video into clips of exactly `count` frames, for networks that take no other length.

    Clips stand side by side; the last one, or the only one of a short video, is stretched to `count` frames by
    repetition. Taking the second answer out of the last clip gives back every frame once.

    Args:
        frames: length of the video, at least 1.
        count: frames of a clip.

    Returns:
        (clips, count) int64 frame numbers, and (rest,) int64 positions in the last clip, the first of each frame.

    Source: MotionAGFormer, demo/vis.py (turn_into_clips), which crashes where `frames` is 2, 3, ... times `count`.
    """
    if frames < 1:
        raise DataError(f"A video of {frames} frames gives no clip. Pass one with frames.")
    start = (frames - 1) // count * count
    last = start + resample_indices(frames - start, count)
    whole = np.arange(start, dtype=np.int64).reshape(-1, count)
    return np.concatenate([whole, last[None]]), np.unique(last, return_index=True)[1]


def repair_identities(tracks: np.ndarray) -> np.ndarray:
    """Undo identity switches between two tracked persons.

    In each frame person A is compared with where A and B were in the frame before (sum of absolute differences); the
    tracks are exchanged wherever the number of frames so far in which A was nearer to B is odd.

    Args:
        tracks: (2, T, J, D).

    Returns:
        (2, T, J, D), a copy.

    Source: MotionBERT, lib/data/dataset_action.py (human_tracking).
    """
    return np.where(switched_identities(tracks)[None, :, None, None], tracks[::-1], tracks)


def switched_identities(tracks: np.ndarray) -> np.ndarray:
    """Frames in which `repair_identities` exchanges two tracks (2, T, J, D); (T,) bool."""
    first, second = tracks
    stay = np.abs(first[1:] - first[:-1]).sum((-2, -1))
    switch = np.abs(first[1:] - second[:-1]).sum((-2, -1))
    odd: np.ndarray = np.concatenate([[0], np.cumsum(stay > switch)]) % 2 == 1
    return odd


def drift_ranges(unit: Tensor, angle: float = 10.0, scale: float = 0.1, shift: float = 0.1) -> Tensor:
    """Spread uniforms over the ranges of `drift`.

    Args:
        unit: (..., 4, K) uniforms in [0, 1).
        angle: largest rotation in degrees, either way.
        scale: largest relative change of size, either way.
        shift: largest shift per axis in normalised units, either way.

    Returns:
        (..., 4, K): angle in degrees, scale, x shift, y shift.

    Source: defaults of MotionBERT, lib/data/dataset_action.py (random_move). Filled row by row from numpy's legacy
        generator, `random_sample((4, 2))`, these are the published draws.
    """
    low = unit.new_tensor([-angle, 1 - scale, -shift, -shift])[:, None]
    high = unit.new_tensor([angle, 1 + scale, shift, shift])[:, None]
    return low + (high - low) * unit


def drift(motion: Tensor, draws: Tensor) -> Tensor:
    """Rotate, scale and shift a 2D motion about the origin by amounts that change linearly in time.

    Args:
        motion: (..., T, J, C), channels x, y and anything else, which stays.
        draws: (4, K) or one per leading entry of `motion` (B, 4, K), K at least 2: angle in degrees, scale, x shift
            and y shift at the ends of K - 1 equally long parts of the motion.

    Returns:
        (..., T, J, C), a copy.

    Source: MotionBERT, lib/data/dataset_action.py (random_move, with move_time = K - 1).
    """
    path = _over_parts(draws.to(motion.dtype), motion.shape[-3])  # (..., 4, T)
    # One set of draws serves all persons of a sample: axes between its own and the frames are broadcast.
    path = path.reshape(*path.shape[:-2], *(1,) * (motion.ndim - 1 - path.ndim), *path.shape[-2:])
    angle, scale, shift_x, shift_y = (path[..., i, :, None] for i in range(4))  # (..., T, 1)
    cosine, sine = scale * torch.deg2rad(angle).cos(), scale * torch.deg2rad(angle).sin()
    x, y = motion[..., 0], motion[..., 1]
    moved = torch.stack([cosine * x - sine * y + shift_x, sine * x + cosine * y + shift_y], dim=-1)
    return torch.cat([moved, motion[..., 2:]], dim=-1)


def _over_parts(values: Tensor, frames: int) -> Tensor:
    """Values at the ends of equally long parts of a motion (..., K), for every frame (..., frames)."""
    part, share = _parts(frames, values.shape[-1] - 1, values.device, values.dtype)
    return values[..., part] + (values[..., part + 1] - values[..., part]) * share


@lru_cache
def _parts(frames: int, parts: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Part that each frame lies in, and how far: 0 in its first frame, 1 in its last.

    So the last frame of a part and the first one of the next have the same value.
    """
    # Halves are rounded to even.
    nodes = np.round(np.arange(parts + 1) * (frames / parts)).astype(np.int64)
    time = np.arange(frames)
    part = np.searchsorted(nodes, time, side="right") - 1
    share = (time - nodes[part]) / np.maximum(nodes[part + 1] - nodes[part] - 1, 1)
    # A tensor born in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(False):
        return torch.from_numpy(part).to(device), torch.from_numpy(share).to(dtype).to(device)
