"""Sequences: views, files, the cache and its keys."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from kinema.core.random import deterministic_random
from kinema.core.skeleton import skeleton
from kinema.data import sequences as module
from kinema.data.sequences import Sequences, cache_key, hash_files
from kinema.errors import DataError
from tests.data import tiny


def test_from_arrays_fills_the_table() -> None:
    store = tiny.store()
    assert store.table["start"].tolist() == [0, 11, 18, 27, 35]
    assert store.table["length"].tolist() == list(tiny.LENGTHS.values())
    assert store.table["trial"].tolist() == store.table["action"].tolist()
    assert store.label(2) == "S5/Sit/0"
    assert store.num_frames == 40
    assert store.cameras["intrinsics"].shape == (5, 9)


def test_arrays_of_unequal_length_are_refused() -> None:
    item = {"pose2d": np.zeros((4, 17, 2)), "pose3d": np.zeros((5, 17, 3)), "subject": "S1", "action": "Walk"}
    with pytest.raises(DataError, match=r"S1/Walk/0: pose2d has 4 frames, but \{'pose3d': 5\}"):
        Sequences.from_arrays([item])


def test_select_shares_the_arrays_and_keeps_the_order_asked_for() -> None:
    store = tiny.store()
    chosen = store.select([3, 0])
    assert chosen.arrays is store.arrays
    assert chosen.table["subject"].tolist() == ["S9", "S1"]
    np.testing.assert_array_equal(chosen.sequence(0)["pose3d"], store.sequence(3)["pose3d"])
    assert np.shares_memory(chosen.sequence(1)["pose2d"], store.arrays["pose2d"])
    assert len(store.select(store.table["subject"] == "S1")) == 2
    assert len(store.select([])) == 0


@pytest.mark.parametrize(("subset", "step"), [(1.0, 3), (0.5, 1), (0.4, 2)])
def test_thin_takes_the_frames_videopose3d_takes(subset: float, step: int) -> None:
    store = tiny.store()
    thin = store.thin(subset=subset, step=step)
    for row in range(len(store)):
        expected = store.sequence(row)["pose3d"]
        if subset < 1:
            count = round(len(expected) // step * subset) * step
            start = deterministic_random(0, len(expected) - count + 1, str(len(expected)))
            expected = expected[start : start + count]
        np.testing.assert_array_equal(thin.sequence(row)["pose3d"], expected[::step])
        assert thin.table["length"][row] == len(expected[::step])


def test_mirrored_copy_stands_behind_and_is_its_own_inverse() -> None:
    store = tiny.store(channels=3)
    both = store.with_mirror()
    flip = list(skeleton("h36m17").flip_index)
    for name, channels in (("pose2d", 3), ("pose3d", 3)):
        expected = store.arrays[name][:, flip] * np.array([-1, 1, 1])[:channels]
        np.testing.assert_array_equal(both.arrays.both(name)[store.num_frames :], expected)
        np.testing.assert_array_equal(both.arrays[name], store.arrays[name])
    assert both.with_mirror().arrays.both("pose2d").shape == both.arrays.both("pose2d").shape


def test_saved_store_opens_as_it_was(tmp_path: Path) -> None:
    store = tiny.store().with_mirror()
    store.meta["actions"] = ["Sit", "Walk"]
    store.save(tmp_path / "a")
    opened = Sequences.open(tmp_path / "a")
    for name in store.arrays:
        np.testing.assert_array_equal(opened.arrays.both(name), store.arrays.both(name))
    for name, column in store.table.items():
        np.testing.assert_array_equal(opened.table[name], column)
    np.testing.assert_array_equal(opened.cameras["intrinsics"], store.cameras["intrinsics"])
    assert (opened.skeleton, opened.space, opened.meta) == (store.skeleton, store.space, store.meta)
    assert not opened.arrays["pose2d"].flags.writeable


def test_pickle_of_a_store_on_disk_holds_paths_only(tmp_path: Path) -> None:
    tiny.store(lengths={"S1/Walk": 5000}).save(tmp_path / "a")
    opened = Sequences.open(tmp_path / "a")
    pickled = pickle.dumps(opened)
    assert len(pickled) < 10_000
    np.testing.assert_array_equal(pickle.loads(pickled).arrays["pose3d"], opened.arrays["pose3d"])


def test_cache_is_built_once(tmp_path: Path) -> None:
    built = []

    def build() -> Sequences:
        built.append(1)
        return tiny.store()

    first = Sequences.cached(tmp_path, "key", build)
    second = Sequences.cached(tmp_path, "key", build)
    assert len(built) == 1
    np.testing.assert_array_equal(first.arrays["pose3d"], second.arrays["pose3d"])


def test_killed_build_leaves_nothing_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(file: object) -> None:
        os._exit(9)

    def build_and_die() -> None:
        monkeypatch.setattr(module, "_flush", dies)
        Sequences.cached(tmp_path, "key", tiny.store)

    child = multiprocessing.get_context("fork").Process(target=build_and_die)
    child.start()
    child.join(60)
    assert child.exitcode == 9
    assert [path.name[:10] for path in tmp_path.iterdir()] == [".building-"]
    assert Sequences.cached(tmp_path, "key", tiny.store).num_frames == 40
    left = next(tmp_path.glob(".building-*"))
    os.utime(left, (0, 0))
    Sequences.cached(tmp_path, "other", tiny.store)
    assert not left.exists(), "what a killed process left a day ago is removed"


@pytest.mark.parametrize("damage", ["truncated array", "foreign array", "short table", "no head"])
def test_damaged_cache_is_built_again_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    Sequences.cached(tmp_path, "key", tiny.store)
    folder = tmp_path / "key"
    if damage == "truncated array":
        data = (folder / "pose3d.npy").read_bytes()
        (folder / "pose3d.npy").write_bytes(data[: len(data) // 2])
    elif damage == "foreign array":
        np.save(folder / "pose3d.npy", np.zeros((40, 15, 3), np.float32))
    elif damage == "short table":
        head = json.loads((folder / "store.json").read_text())
        (folder / "store.json").write_text(json.dumps({**head, "rows": 39}))
    else:
        (folder / "store.json").unlink()
    with caplog.at_level(logging.WARNING):
        found = Sequences.cached(tmp_path, "key", tiny.store)
    assert "no intact store" in caplog.text
    np.testing.assert_array_equal(found.arrays["pose3d"], tiny.store().arrays["pose3d"])


def _race(folder: Path, barrier: object, seed: int) -> None:
    def build() -> Sequences:
        barrier.wait()  # type: ignore[attr-defined]
        return tiny.store(lengths={"S1/Walk": 3000}, seed=0)

    store = Sequences.cached(folder, "key", build)
    os._exit(0 if np.isfinite(store.arrays["pose3d"]).all() and store.num_frames == 3000 else 1)


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    children = [context.Process(target=_race, args=(tmp_path, barrier, seed)) for seed in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_key_changes_with_contents_and_options_and_not_with_the_place(tmp_path: Path) -> None:
    a, b = tmp_path / "a" / "raw.npz", tmp_path / "b" / "raw.npz"
    for path, content in ((a, b"one"), (b, b"one")):
        path.parent.mkdir()
        path.write_bytes(content)
    key = cache_key("x", [a], tmp_path, reader="r", options={"dataset": "h36m"})
    assert key.startswith("x-")
    assert key == cache_key("x", [b], tmp_path, reader="r", options={"dataset": "h36m"})
    assert key != cache_key("x", [a], tmp_path, reader="r", options={"dataset": "cmu"})
    b.write_bytes(b"two")
    assert key != cache_key("x", [b], tmp_path, reader="r", options={"dataset": "h36m"})


def test_key_changes_where_a_file_goes_into_another_folder(tmp_path: Path) -> None:
    def keyed(top: str, *names: str) -> str:
        paths = [tmp_path / top / name / "pose.npy" for name in names]
        for number, path in enumerate(paths):
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes([number]))
        return cache_key("x", paths, tmp_path)

    key = keyed("here", "walking/a", "running/b")
    assert key == keyed("moved", "walking/a", "running/b")
    assert key != keyed("relabelled", "running/a", "walking/b")


def test_unchanged_files_are_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "raw.npz"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first = hash_files([path], tmp_path)
    read = []
    monkeypatch.setattr(module, "_hash_bytes", lambda path: read.append(path) or "new")
    assert hash_files([path], tmp_path) == first
    assert not read
    path.write_bytes(b"two")  # the same size, another time
    assert hash_files([path], tmp_path) == ["new"]
    assert hash_files([path], tmp_path) == ["new"]
    assert len(read) == 2, "a file touched this moment is not remembered: it may change again within the clock's grain"
