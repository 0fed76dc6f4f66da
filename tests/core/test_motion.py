"""Resampling, clips, drift and identity switches against slow, obvious forms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core import motion
from kinema.errors import DataError
from tests.core.poses import poses, seeds

few = settings(max_examples=40, deadline=None)
lengths = st.integers(1, 700)


@few
@given(lengths, lengths)
def test_resample_equals_linspace(frames: int, count: int) -> None:
    expected = np.floor(np.linspace(0, frames, num=count, endpoint=False)).astype(int)
    np.testing.assert_array_equal(motion.resample_indices(frames, count), expected)


@few
@given(lengths, st.integers(1, 100))
def test_stretched_clips_give_every_frame_back_once(frames: int, count: int) -> None:
    clips, kept = motion.stretched_clips(frames, count)
    assert clips.shape == (-(-frames // count), count)
    found = np.concatenate([clips[:-1].ravel(), clips[-1, kept]])
    np.testing.assert_array_equal(found, np.arange(frames))
    assert (np.diff(clips[-1]) >= 0).all()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_exact_multiples_are_plain_clips(times: int) -> None:
    clips, kept = motion.stretched_clips(243 * times, 243)
    np.testing.assert_array_equal(clips, np.arange(243 * times).reshape(times, 243))
    np.testing.assert_array_equal(kept, np.arange(243))


def test_a_video_without_frames_gives_no_clip() -> None:
    with pytest.raises(DataError, match="0 frames gives no clip"):
        motion.stretched_clips(0, 243)


@pytest.mark.parametrize(("frames", "count"), [(58, 100), (549, 243)])
def test_resample_is_not_integer_division(frames: int, count: int) -> None:
    found = motion.resample_indices(frames, count)
    assert (found != np.arange(count) * frames // count).any()
    np.testing.assert_array_equal(found, np.floor(np.linspace(0, frames, num=count, endpoint=False)))


def test_resample_takes_one_length_per_row() -> None:
    found = motion.resample_indices(np.array([[7, 20], [1, 300]]), 12)
    assert found.shape == (2, 2, 12)
    np.testing.assert_array_equal(found[1, 1], motion.resample_indices(300, 12))


@few
@given(lengths, lengths, seeds)
def test_random_resample_stays_near_the_even_one(frames: int, count: int, seed: int) -> None:
    draws = np.random.default_rng(seed).random((3, count))
    found = motion.resample_random(frames, count, draws)
    even = np.arange(count) * frames / count
    assert (np.diff(found) >= 0).all()
    assert (found >= 0).all()
    assert (found < frames).all()
    # One interval at most; stretching rounds up at most.
    assert (np.abs(found - even) <= max(1, frames / count)).all()


def test_random_resample_shrinks_by_interval_and_stretches_by_coin() -> None:
    np.testing.assert_array_equal(motion.resample_random(10, 5, np.full(5, 0.5)), [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(motion.resample_random(10, 5, np.zeros(5)), [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(motion.resample_random(2, 4, np.array([1, 1, 1, 1])), [0, 0, 1, 1])
    np.testing.assert_array_equal(motion.resample_random(2, 4, np.array([0, 0, 0, 0])), [0, 1, 1, 1])


@few
@given(st.lists(lengths, min_size=1, max_size=6), st.integers(1, 60), seeds)
def test_spread_treats_every_video_as_alone(videos: list[int], count: int, seed: int) -> None:
    draws = np.random.default_rng(seed).random((len(videos), count))
    found = motion.resample_spread(np.array(videos), count, draws)
    for i, frames in enumerate(videos):
        even = np.linspace(0, frames, count, endpoint=False)
        wanted = [
            (math.ceil(x) if u < 0.5 else math.floor(x)) if frames < count else math.floor(x + u * frames / count)
            for x, u in zip(even, draws[i], strict=True)
        ]
        np.testing.assert_array_equal(found[i], np.clip(sorted(wanted), 0, frames - 1))
    # Draws of the batches are single precision.
    np.testing.assert_array_equal(
        motion.resample_spread(np.array([count]), count, draws[:1].astype(np.float32)), [range(count)]
    )


@few
@given(st.lists(st.integers(1, 90), min_size=1, max_size=8), st.integers(1, 30), seeds)
def test_uniform_indices_follow_their_three_rules(videos: list[int], count: int, seed: int) -> None:
    draws = np.random.default_rng(seed).random((len(videos), motion.uniform_draws(count)), dtype=np.float32)
    found = motion.uniform_indices(np.array(videos), count, draws)
    assert found.shape == (len(videos), count)
    for frames, row, drawn in zip(videos, found, draws, strict=True):
        assert (row >= 0).all()
        assert (row < frames).all()
        if frames < count:
            np.testing.assert_array_equal(row, (int(drawn[0] * frames) + np.arange(count)) % frames)
        elif frames < 2 * count:
            places = sorted(np.argsort(drawn)[: frames - count].tolist())
            left_out = [place + i for i, place in enumerate(places)]
            np.testing.assert_array_equal(row, [t for t in range(frames) if t not in left_out])
        else:
            for i, t in enumerate(row.tolist()):
                assert i * frames // count <= t < (i + 1) * frames // count


def test_uniform_indices_reach_both_ends_of_a_part() -> None:
    lengths_ = np.full(4, 30)
    for value, at in ((0.0, 0), (1 - 2**-24, 2)):
        draws = np.full((4, motion.uniform_draws(10)), value, np.float32)
        np.testing.assert_array_equal(motion.uniform_indices(lengths_, 10, draws)[0], 3 * np.arange(10) + at)
    # The largest single-precision draw times the length of a video rounds to that length.
    long, top = np.array([40_000_001]), np.full((1, 2), 1 - 2**-24, np.float32)
    assert motion.uniform_indices(long, 1, top)[0, 0] < long[0]
    short = motion.uniform_indices(np.array([3]), 7, np.full((1, 8), 1 - 2**-24, np.float32))
    np.testing.assert_array_equal(short[0], [2, 0, 1, 2, 0, 1, 2])


@few
@given(st.integers(1, 90), st.integers(1, 30), st.integers(1, 10), st.integers(0, 300))
def test_uniform_test_clips_are_fixed_and_obey_the_rules(frames: int, count: int, clips: int, seed: int) -> None:
    found = motion.uniform_test_indices(frames, count, clips, seed)
    assert found.shape == (clips, count)
    np.testing.assert_array_equal(found, motion.uniform_test_indices(frames, count, clips, seed))
    assert ((found >= 0) & (found < frames)).all()
    if frames < count:
        starts = [c if frames < clips else c * frames // clips for c in range(clips)]
        np.testing.assert_array_equal(found, (np.array(starts)[:, None] + np.arange(count)) % frames)
    elif frames < 2 * count:
        steps = np.diff(np.concatenate([np.full((clips, 1), -1), found], axis=1))
        assert ((steps == 1) | (steps == 2)).all()
    else:
        edges = np.arange(count + 1) * frames // count
        assert ((found >= edges[:-1]) & (found < edges[1:])).all()


def slow_clips(ids: list[int], count: int, stride: int, random: np.random.RandomState) -> list[list[int]]:
    """Frame by frame, as the published text describes it."""
    clips, served, start = [], set(), 0
    for i in range(len(ids)):
        if i and ids[i] != ids[i - 1]:
            if ids[i - 1] not in served:
                clips.append((start + motion.resample_legacy(i - start, count, random)).tolist())
            start = i
        if i - start + 1 == count:
            clips.append(list(range(start, i + 1)))
            served.add(ids[i])
            start += stride
    return clips


@few
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 12), st.integers(1, 15), seeds)
def test_split_clips_equals_the_scan(videos: list[int], count: int, stride: int, seed: int) -> None:
    ids = [name for name, frames in enumerate(videos) for _ in range(frames)]
    found = motion.split_clips(np.array(ids), count, stride, np.random.RandomState(seed))
    expected = slow_clips(ids, count, stride, np.random.RandomState(seed))
    assert found.shape == (len(expected), count)
    np.testing.assert_array_equal(found, np.array(expected).reshape(-1, count))


def test_replay_is_consecutive_or_repeats() -> None:
    random = np.random.RandomState(0)
    for _ in range(20):
        found = motion.replay_legacy(30, 12, random)
        assert (np.diff(found) == 1).all()
        assert 0 <= found[0] < 18
    np.testing.assert_array_equal(motion.replay_legacy(3, 7, random), [0, 1, 2, 0, 1, 2, 0])


@few
@given(seeds, st.lists(st.integers(1, 19), max_size=5, unique=True))
def test_repair_undoes_switches_of_persons_apart(seed: int, cuts: list[int]) -> None:
    steps = 0.05 * poses(seed, 2, 20, 17, 2)
    clean = np.cumsum(steps, axis=1) + np.array([0, 10])[:, None, None, None]
    broken = clean.copy()
    for cut in cuts:
        broken[:, cut:] = broken[::-1, cut:]
    np.testing.assert_array_equal(motion.repair_identities(broken), clean)


def test_drift_ranges_are_symmetric_about_no_drift() -> None:
    ends = motion.drift_ranges(torch.tensor([[0.0, 1.0]] * 4, dtype=torch.float64))
    expected = [[-10, 10], [0.9, 1.1], [-0.1, 0.1], [-0.1, 0.1]]
    torch.testing.assert_close(ends, torch.tensor(expected, dtype=torch.float64))
    middle = motion.drift_ranges(torch.full((4, 2), 0.5))
    clip = torch.from_numpy(poses(0, 5, 17, 3)).float()
    torch.testing.assert_close(motion.drift(clip, middle), clip)


@few
@given(seeds, st.integers(1, 6))
def test_drift_equals_a_loop_over_frames(seed: int, frames: int) -> None:
    clips = poses(seed, 3, 2, frames, 5, 3)
    draws = motion.drift_ranges(torch.from_numpy(np.random.default_rng(seed).random((3, 4, 2))))
    found = motion.drift(torch.from_numpy(clips), draws)
    for sample in range(3):
        path = [np.linspace(a, b, frames) for a, b in draws[sample].numpy()]
        for t in range(frames):
            angle, scale, x, y = (values[t] for values in path)
            c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            expected = scale * clips[sample, :, t, :, :2] @ np.array([[c, -s], [s, c]]).T + [x, y]
            np.testing.assert_allclose(found[sample, :, t, :, :2], expected, atol=1e-12)
    np.testing.assert_array_equal(found[..., 2], clips[..., 2])
    # One set of draws for all is the same as each alone.
    torch.testing.assert_close(motion.drift(torch.from_numpy(clips[0]), draws[0]), found[0])


@few
@given(seeds, st.integers(1, 40), st.integers(1, 5))
def test_drift_of_several_parts_equals_its_parts_one_by_one(seed: int, frames: int, parts: int) -> None:
    clip = poses(seed, 2, frames, 5, 3)
    draws = motion.drift_ranges(torch.from_numpy(np.random.default_rng(seed).random((4, parts + 1))))
    found = motion.drift(torch.from_numpy(clip), draws).numpy()
    nodes = [*np.arange(0, frames, frames / parts)[:parts].round().astype(int).tolist(), frames]
    for i, (start, end) in enumerate(pairwise(nodes)):
        alone = motion.drift(torch.from_numpy(clip[:, start:end]), draws[:, i : i + 2]).numpy()
        np.testing.assert_allclose(found[:, start:end], alone, atol=1e-12)


def test_drift_serves_training_after_a_first_use_without_gradients() -> None:
    clip, draws = torch.ones(1, 11, 3, 3), motion.drift_ranges(torch.rand(4, 3))
    with torch.inference_mode():
        motion.drift(clip, draws)
    variable = clip.clone().requires_grad_()
    motion.drift(variable, draws).sum().backward()
    assert variable.grad is not None


def test_switched_identities_are_the_exchanged_frames() -> None:
    tracks = np.stack([np.zeros((6, 2, 2)), np.full((6, 2, 2), 9.0)])
    tracks[:, 2:5] = tracks[::-1, 2:5].copy()
    assert motion.switched_identities(tracks).tolist() == [False, False, True, True, True, False]
