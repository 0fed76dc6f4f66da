"""Windows: how tables are filled, and the gather against a plain loop over samples."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.motion import split_clips
from kinema.core.skeleton import skeleton
from kinema.data.sequences import ArrayStore, Sequences
from kinema.data.windows import SEQUENCE, SPAN, START, VIEW, Windows
from kinema.errors import ConfigError, DataError
from tests.data import tiny

FLIP = list(skeleton("h36m17").flip_index)


def _picks(rows: list[int]) -> torch.Tensor:
    return torch.tensor([[0, position, row] for position, row in enumerate(rows)])


def _every(windows: Windows) -> dict[str, torch.Tensor]:
    return windows[_picks(list(range(len(windows))))]


def _slow(sequence: np.ndarray, frames: list[int], mirrored: bool) -> np.ndarray:
    pose = np.stack([sequence[min(max(frame, 0), len(sequence) - 1)] for frame in frames])
    if mirrored:
        pose = pose[:, FLIP].copy()
        pose[..., 0] *= -1
    return pose


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    targets=st.integers(1, 4),
    context=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    stored=st.booleans(),
    step=st.integers(1, 2),
)
def test_chunks_equal_a_loop(
    lengths: list[int], targets: int, context: tuple[int, int], stored: bool, step: int
) -> None:
    sequences = tiny.store(lengths={f"S{i}/Walk": length for i, length in enumerate(lengths)}, channels=3)
    sequences = sequences.with_mirror() if stored else sequences
    sequences = sequences.thin(step=step)
    windows = Windows.chunked(sequences, targets, context=context, both_views=True, keys=("pose2d", "pose3d"))
    batch = _every(windows)
    row = 0
    for number in range(len(sequences)):
        arrays = sequences.sequence(number)
        length = len(arrays["pose3d"])
        chunks = -(-length // targets)
        first = -((chunks * targets - length) // 2)
        for view in range(2):
            for chunk in range(chunks):
                start = first + chunk * targets
                wanted = list(range(start, start + targets))
                inputs = list(range(start - context[0], start + targets + context[1]))
                np.testing.assert_array_equal(batch["pose2d"][row], _slow(arrays["pose2d"], inputs, view == 1))
                np.testing.assert_array_equal(batch["pose3d"][row], _slow(arrays["pose3d"], wanted, view == 1))
                assert batch["valid"][row].tolist() == [0 <= frame < length for frame in wanted]
                assert bool(batch["flip"][row]) == (view == 1)
                row += 1
    assert row == len(windows)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 9), st.integers(1, 9))
def test_chunks_with_a_stride_overlap_and_cover_every_frame(lengths: list[int], targets: int, stride: int) -> None:
    stride = min(stride, targets)
    sequences = tiny.store(lengths={f"S{i}/Walk": length for i, length in enumerate(lengths)})
    windows = Windows.chunked(sequences, targets, context=(1, 1), stride=stride)
    batch = _every(windows)
    np.testing.assert_array_equal(np.unique(batch["frames"][batch["valid"]].numpy()), np.arange(sequences.num_frames))
    for number, length in enumerate(lengths):
        starts = windows.table[windows.table[:, SEQUENCE] == number][:, START]
        assert (np.diff(starts) == stride).all()
        before, behind = -starts[0], starts[-1] + targets - length
        assert 0 <= behind - before <= 1, "the overhang is shared by both ends"
        assert before + behind < max(stride, targets - length + 1)


def test_targets_can_be_gathered_at_the_input_frames() -> None:
    keys = ("pose2d", "pose3d", "pose3d_input")
    windows = Windows.chunked(tiny.store(), 3, context=(2, 1), both_views=True, keys=keys)
    batch = _every(windows)
    assert batch["pose3d_input"].shape[1] == batch["pose2d"].shape[1] == 6
    torch.testing.assert_close(batch["pose3d_input"][:, 2:-1], batch["pose3d"])
    walk = windows.sequences.sequence(0)["pose3d"]
    start = int(windows.table[0, START])
    np.testing.assert_array_equal(batch["pose3d_input"][0], _slow(walk, list(range(start - 2, start + 4)), False))


def test_batch_names_its_rows_and_frames() -> None:
    sequences = tiny.store()
    windows = Windows.chunked(sequences, 1, context=(1, 1))
    picks = torch.tensor([[3, 40, 12], [3, 41, -1]])
    batch = windows[picks]
    assert batch["index"].tolist() == [12, -1]
    assert batch["draw"].tolist() == [40, 41]
    assert batch["frames"].tolist() == [[12], [0]], "rows of the store; a filler reads row 0"
    torch.testing.assert_close(windows.frames(picks), batch["frames"])
    np.testing.assert_array_equal(batch["pose3d"][0, 0], sequences.arrays["pose3d"][12])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 9), st.integers(1, 9))
def test_tiles_cover_every_frame_and_end_with_the_sequence(lengths: list[int], frames: int, stride: int) -> None:
    stride = min(stride, frames)
    sequences = tiny.store(lengths={f"S{i}/Walk": length for i, length in enumerate(lengths)})
    windows = Windows.tiled(sequences, frames, stride)
    batch = _every(windows)
    seen = np.unique(batch["frames"][batch["valid"]].numpy())
    np.testing.assert_array_equal(seen, np.arange(sequences.num_frames))
    for number, length in enumerate(lengths):
        rows = windows.table[windows.table[:, SEQUENCE] == number]
        assert rows[-1, START] == max(length - frames, 0)
        assert (rows[:, SPAN] == min(frames, length)).all()
        assert len(rows) == -(-max(length - frames, 0) // stride) + 1


def test_clips_are_those_of_motionbert() -> None:
    lengths = {"S1/a": 11, "S1/b": 3, "S1/c": 9, "S1/d": 2}
    sequences = tiny.store(lengths=lengths)
    windows = Windows.strided(sequences, 4, 2, random=np.random.RandomState(3))
    owner = np.repeat(np.arange(4), list(lengths.values()))
    expected = split_clips(owner, 4, 2, np.random.RandomState(3))
    batch = _every(windows)
    np.testing.assert_array_equal(batch["frames"], expected)
    np.testing.assert_array_equal(batch["pose2d"], sequences.arrays["pose2d"][expected])
    assert windows.rule == "given"
    assert windows.table[:, SEQUENCE].tolist() == owner[expected[:, 0]].tolist()
    assert windows.table[windows.table[:, SEQUENCE] == 1, SPAN].tolist() == [3]
    part = windows.subset(np.array([4, 0]))
    np.testing.assert_array_equal(_every(part)["frames"], expected[[4, 0]])


def test_clips_of_long_sequences_need_no_table_of_positions() -> None:
    windows = Windows.strided(tiny.store(), 5, 3, random=np.random.RandomState(0))
    assert windows.given is None
    assert _every(windows)["valid"].all()


@pytest.mark.parametrize(("frames", "stride"), [(9, 3), (4, 4), (1, 2), (5, 9)])
def test_stretched_clips_go_to_the_end_and_repeat_frames(frames: int, stride: int) -> None:
    sequences = tiny.store(lengths={"S1/Walk": 29, "S1/Sit": 3, "S5/Sit": 8})
    windows = Windows.stretched(sequences, frames, stride, both_views=True)
    expected = []
    for number, length in enumerate((29, 3, 8)):
        for view in (0, 1):
            for start in range(0, length, stride):
                left = min(frames, length - start)
                spread = np.floor(np.linspace(0, left, frames, endpoint=False)).astype(int)
                expected.append((number, view, (start + spread + sequences.table["start"][number]).tolist()))
    batch = _every(windows)
    found = zip(windows.table[:, SEQUENCE].tolist(), windows.table[:, VIEW].tolist(), batch["frames"].tolist(),
                strict=True)  # fmt: skip
    assert list(found) == expected
    assert batch["valid"].all()


@pytest.mark.parametrize(
    ("targets", "context", "step"), [(5, (0, 0), 1), (1, (3, 3), 1), (1, (4, 2), 2), (4, (0, 0), 2)]
)
def test_centred_windows_stand_around_every_valid_frame(targets: int, context: tuple[int, int], step: int) -> None:
    lengths = {"S1/Walk": 7, "S5/Sit": 4}
    plain = tiny.store(lengths=lengths)
    known = np.arange(11) % 3 != 1
    arrays = {**{name: plain.arrays[name] for name in plain.arrays}, "valid": known}
    sequences = plain.replace(arrays=ArrayStore(11, arrays)).thin(step=step)
    windows = Windows.centred(sequences, targets, context=context, keys=("pose2d", "pose3d"))
    batch = _every(windows)
    row = 0
    for number in range(2):
        arrays = sequences.sequence(number)
        for frame in np.flatnonzero(arrays["valid"]):
            first = frame - targets // 2
            wanted = list(range(first - context[0], first + targets + context[1]))
            np.testing.assert_array_equal(batch["pose2d"][row], _slow(arrays["pose2d"], wanted, mirrored=False))
            counted = np.flatnonzero(batch["valid"][row].numpy())
            assert counted.tolist() == [targets // 2]
            np.testing.assert_array_equal(batch["pose3d"][row, targets // 2], arrays["pose3d"][frame])
            row += 1
    assert row == len(windows) > 3
    everything = Windows.centred(plain, targets, context=context)
    assert len(everything) == 11


def test_whole_sequences_come_one_by_one() -> None:
    sequences = tiny.store()
    windows = Windows.whole(sequences, context=(2, 1))
    assert len(windows) == 5
    batch = windows[_picks([2])]
    assert batch["pose2d"].shape == (1, 9 + 3, 17, 2)
    np.testing.assert_array_equal(batch["pose3d"][0], sequences.sequence(2)["pose3d"])
    with pytest.raises(ValueError, match="one by one"):
        windows[_picks([0, 1])]


def test_evenly_spaced_rows_span_the_table() -> None:
    windows = Windows.chunked(tiny.store(), 1, context=(0, 0), both_views=True)
    few = windows.evenly_spaced(7)
    assert len(few) == 7
    np.testing.assert_array_equal(few.table, windows.table[np.arange(7) * len(windows) // 7])
    assert windows.evenly_spaced(10_000) is windows


def test_columns_and_cameras_are_gathered_when_asked_for() -> None:
    sequences = tiny.store()
    sequences.table["fps"][:] = [50, 51, 52, 53, 54]
    windows = Windows.chunked(sequences, 1, context=(0, 0), both_views=True, keys=("fps", "intrinsics"))
    row = int(np.flatnonzero((windows.table[:, SEQUENCE] == 3) & (windows.table[:, VIEW] == 1))[0])
    batch = windows[_picks([0, row])]
    assert batch["fps"].tolist() == [50, 53]
    assert batch["intrinsics"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, -2, 3, 4, 5, 6, -7, 8]]
    assert sequences.cameras["intrinsics"][3, 2] == 2, "the store is not written to"


def test_keys_that_the_data_lacks_are_refused() -> None:
    for key in ("smpl", "subject"):
        with pytest.raises(DataError, match=f"no '{key}'. It has: .*pose2d"):
            Windows.chunked(tiny.store(), 1, context=(0, 0), keys=(key,))


def test_valid_per_joint_is_mirrored_like_the_pose() -> None:
    sequences = tiny.store()
    valid = np.random.default_rng(0).random((40, 17)) < 0.5
    arrays = {name: sequences.arrays[name] for name in sequences.arrays}
    sequences = sequences.replace(arrays=ArrayStore(40, {**arrays, "valid": valid}))
    for store in (sequences, sequences.with_mirror()):
        windows = Windows.chunked(store, 2, context=(0, 0), both_views=True)
        batch = _every(windows)
        for row in range(len(windows)):
            at = batch["frames"][row].numpy()
            inside = np.array([0, 1]) + windows.table[row, START]
            length = sequences.table["length"][windows.table[row, SEQUENCE]]
            expected = valid[at][:, FLIP] if windows.table[row, VIEW] else valid[at]
            expected = expected & ((inside >= 0) & (inside < length))[:, None]
            np.testing.assert_array_equal(batch["valid"][row], expected)


def test_pickle_for_loader_processes_is_small(tmp_path: Path) -> None:
    tiny.store(lengths={"S1/Walk": 20_000}).save(tmp_path / "store")
    sequences = Sequences.open(tmp_path / "store")
    windows = Windows.chunked(sequences, 1, context=(1, 1), both_views=True)
    expected = windows[_picks([7, 39_000])]
    pickled = pickle.dumps(windows.mapped(tmp_path / "windows"))
    assert len(pickled) < 10_000
    found = pickle.loads(pickled)[_picks([7, 39_000])]
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    given = Windows.strided(tiny.store(), 8, 8, random=np.random.RandomState(0))
    again = pickle.loads(pickle.dumps(given.mapped(tmp_path / "windows")))
    torch.testing.assert_close(_every(again), _every(given))


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="No frame rule is called 'klamp'"):
        Windows(tiny.store(), np.zeros((1, 4), np.int32), 1, rule="klamp")
