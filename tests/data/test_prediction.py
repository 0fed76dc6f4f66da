"""PredictionDataModule: published windows, splits, orders, what evaluation asks of it, and sentences for faults."""

from __future__ import annotations

import logging
import re
import weakref
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.motion_features import to_features, to_joints
from kinema.core.skeleton import skeleton
from kinema.data import motion_windows
from kinema.data.motion_orders import Published, balanced_sequences
from kinema.data.motion_windows import counts, every, published
from kinema.data.prediction import PredictionDataModule
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError
from tests.data import motions
from tests.data.motions import HISTORY, HORIZON, LENGTHS, module, positions, write

N = HISTORY + HORIZON


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path)


def windows_of(data: PredictionDataModule, stage: str) -> list[tuple[str, int]]:
    windows = data.windows(stage)
    assert windows is not None
    return [(windows.sequences.label(int(row[0])), int(row[1])) for row in windows.table]


def batches(data: PredictionDataModule, stage: str = "train") -> list[dict[str, torch.Tensor]]:
    loader = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[stage]()
    return [data.transform(dict(batch), training=stage == "train") for batch in loader]


# Windows.


def test_test_windows_are_the_published_ones(root: Path) -> None:
    expected = [
        (key, start)
        for key, length in LENGTHS.items()
        if key.startswith("S9")
        for start in range(0, length - N, HISTORY)
    ]
    assert windows_of(module(root), "test") == expected
    assert ("S9/Walk", 12) not in expected  # 12 + 10 frames are there, but the last place is never taken
    assert [start for key, start in windows_of(module(root, stride=3), "test") if key == "S9/Walk"] == [0, 3, 6, 9]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), length=st.integers(2, 12), stride=st.integers(1, 7)
)
def test_windows_of_any_sequences(lengths: list[int], length: int, stride: int) -> None:
    store = Sequences.from_arrays([{"pose3d": np.zeros((n, 3, 3), np.float32), "subject": "a"} for n in lengths])
    made = published(store, length, stride)
    assert [(int(row[0]), int(row[1])) for row in made.table] == [
        (i, start) for i, n in enumerate(lengths) for start in range(0, n - length, stride)
    ]
    long = store.select(np.array(lengths) >= length)
    if len(long):
        assert counts(every(long, length, length)).tolist() == [n - length + 1 for n in lengths if n >= length]


def test_training_windows_begin_at_every_frame_and_one_of_exactly_its_length_is_one(root: Path) -> None:
    found = windows_of(module(root), "train")
    expected = [(key, start) for key in ("S1/Walk 1", "S5/Walk", "S5/Sit 2") for start in range(LENGTHS[key] - N + 1)]
    assert found == expected


def test_a_batch_holds_the_motion_of_its_windows(root: Path) -> None:
    data = module(root)
    stored, number = positions(), 0
    for batch in batches(data, "test"):
        assert batch["motion"].shape == (4, N, 48)
        for place, index in enumerate(batch["index"].tolist()):
            if index < 0:
                continue
            key, start = windows_of(data, "test")[index]
            subject, trial = key.split("/")
            world = stored[subject][trial][start : start + N]
            assert np.array_equal(batch["pose3d"][place].numpy(), world)
            assert np.array_equal(batch["motion"][place].numpy(), (world[:, 1:] - world[:, :1]).reshape(N, 48))
            number += 1
    assert number == len(windows_of(data, "test"))


@pytest.mark.parametrize("name", ["h36m17", "mpi_inf_3dhp17"])
def test_features_are_joints_without_the_root_and_back(name: str) -> None:
    body = skeleton(name)
    pose = torch.randn(2, 5, len(body), 3, dtype=torch.float64)
    features = to_features(pose, body.root)
    others = [joint for joint in range(len(body)) if joint != body.root]
    assert torch.equal(features, (pose - pose[:, :, body.root, None])[:, :, others].flatten(-2))
    back = to_joints(features, body.root, pose[:, :, body.root])
    torch.testing.assert_close(back, pose)
    assert not to_joints(features, body.root)[:, :, body.root].any()


def test_short_sequences_are_left_out_with_one_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = module(root)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            data.windows("train"), data.windows("test"), data.mean_motion(), data.training_windows(2)
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert lines == [
        "train: 1 of 4 sequences are shorter than 10 frames and left out: S1/Sit.",
        "test: 1 of 3 sequences are shorter than 11 frames and left out: S9/Box.",
    ]


def test_no_sequence_long_enough_is_an_error_whose_remedy_works(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"no test sequence has the 38 frames .* 4 \+ 33 needs; the longest has 22"
    ) as told:
        module(root, horizon=33).windows("test")
    (horizon,) = re.findall(r"Use dataset\.horizon=(\d+)", str(told.value))
    windows = module(root, horizon=int(horizon)).windows("test")
    assert windows is not None and len(windows)
    with pytest.raises(DataError, match="longer recordings"):
        module(root, history=40).windows("test")


def test_a_limit_takes_evenly_spaced_windows_and_says_of_how_many(root: Path) -> None:
    whole = windows_of(module(root, stride=1), "test")
    data = module(root, stride=1, limit_windows=5, val_windows=2)
    assert windows_of(data, "test") == [whole[i * len(whole) // 5] for i in range(5)]
    windows = data.windows("test")
    assert windows is not None and windows.total == len(whole)
    assert len(windows_of(data, "val")) == 2
    assert len(windows_of(data, "train")) == len(windows_of(module(root), "train"))


# Splits.


def test_withheld_trials_validate_and_are_not_trained_on(root: Path) -> None:
    data = module(root)
    assert {key for key, _ in windows_of(data, "val")} == {"S1/Walk"}
    assert "S1/Walk" not in {key for key, _ in windows_of(data, "train")}
    alone, more = data.training_windows(2), data.training_windows(2, withheld=True)
    assert alone is not None and more is not None
    assert len(more) == len(alone) + len(range(0, LENGTHS["S1/Walk"] - N, 2))
    assert {key for key, _ in windows_of(module(root, selection="test"), "val")} == {"S9/Walk", "S9/Sit"}
    with pytest.raises(DataError, match="nothing to validate on"):
        module(root, trials_val=[]).windows("val")


def test_training_windows_are_the_motion_of_the_training_sequences(root: Path) -> None:
    found = module(root).training_windows(3)
    stored, expected = positions(), []
    for key in ("S1/Walk 1", "S5/Sit 2"):  # S5/Walk has exactly the frames of a window
        subject, trial = key.split("/")
        pose = stored[subject][trial]
        relative = (pose[:, 1:] - pose[:, :1]).reshape(len(pose), -1)
        expected += [relative[start : start + N] for start in range(0, len(pose) - N, 3)]
    assert found is not None
    assert np.array_equal(found.numpy(), np.stack(expected))
    few = module(root).training_windows(3, limit=4)
    assert few is not None and len(few) == 4


def test_training_windows_are_gathered_into_one_array(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts, alive = module(root).training_windows(3), [], []

    def watched(pose: torch.Tensor, root: int) -> torch.Tensor:
        alive.append(sum(part() is not None for part in parts))
        made = to_features(pose, root)
        parts.append(weakref.ref(made))
        return made

    monkeypatch.setattr(motion_windows, "_TOGETHER", 2)
    monkeypatch.setattr(motion_windows, "to_features", watched)
    found = module(root).training_windows(3)
    assert whole is not None and found is not None and torch.equal(found, whole)
    assert len(parts) > 3 and max(alive) <= 1  # the one before, until its name is given to the next


def test_mean_motion_is_measured_by_action_or_published(root: Path) -> None:
    found = module(root).mean_motion()
    steps = []
    for key in ("S1/Walk 1", "S5/Walk"):
        subject, trial = key.split("/")
        pose = positions()[subject][trial].astype(np.float64)
        steps.append(np.linalg.norm(np.diff(pose[:, 1:] - pose[:, :1], axis=0), axis=-1).reshape(-1))
    assert found is not None and set(found) == {"Walk", "Sit"}
    assert found["Walk"] == pytest.approx(np.concatenate(steps).mean(), rel=1e-5)
    assert module(root, mean_motion={"Walk": 0.01}).mean_motion() == {"Walk": 0.01}


def test_a_folder_with_test_data_alone_can_be_tested(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path, {"S9": positions()["S9"]})
    data = module(root)
    assert data.has_test()
    assert windows_of(data, "test") == windows_of(module(write(tmp_path / "all")), "test")
    assert data.mean_motion() is None and data.training_windows(5) is None and data.training_windows(2) is None
    told = [record.getMessage() for record in caplog.records if "needs training data" in record.getMessage()]
    assert told == [f"What needs training data is left out: {root} holds S9 and none of S1, S5"]


def test_has_test_says_why_there_is_none(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not module(root, subjects_test=["S77"]).has_test()
    assert not module(root, horizon=33).has_test()
    assert "no subject 'S77'" in caplog.text and "no test sequence has more frames than a window, 37" in caplog.text


# Orders.


def test_the_balanced_order_draws_subject_sequence_and_start_evenly() -> None:
    subjects, count = np.array(["a", "b", "a", "b", "b"]), np.array([3, 1, 5, 40, 2])
    rows = balanced_sequences(subjects, count, seed=3, visits=60000)(7)
    sequence = np.repeat(np.arange(5), count)[rows]
    share = np.bincount(sequence, minlength=5) / len(rows)
    np.testing.assert_allclose(share, [1 / 4, 1 / 6, 1 / 4, 1 / 6, 1 / 6], atol=0.01)
    starts = np.bincount(rows - np.repeat(np.cumsum(count) - count, count)[rows], minlength=40)[:5]
    within = np.bincount(rows[sequence == 2] - 4, minlength=5) / (sequence == 2).sum()
    np.testing.assert_allclose(within, np.full(5, 0.2), atol=0.02)
    assert starts.min() > 0
    again = balanced_sequences(subjects, count, seed=3, visits=60000)
    assert np.array_equal(again(7), rows)
    assert not np.array_equal(again(8), rows)


def test_an_epoch_has_whole_batches_and_ranks_share_them(root: Path) -> None:
    data = module(root, windows_per_epoch=43)
    drawn = [batch["index"] for batch in data.train_dataloader()]
    assert [len(index) for index in drawn] == [8] * 5
    windows = data.windows("train")
    assert windows is not None
    parts = [list(data._make_order(windows, rank, 2)) for rank in (0, 1)]
    for whole, even, odd in zip(drawn, *parts, strict=True):
        assert torch.equal(whole[0::2], even[:, 2]) and torch.equal(whole[1::2], odd[:, 2])
    small = module(root, windows_per_epoch=3)
    assert [len(batch["index"]) for batch in small.train_dataloader()] == [3]


def test_the_seeded_order_sees_every_window_once(root: Path) -> None:
    data = module(root, order="seeded")
    drawn = torch.cat([batch["index"] for batch in data.train_dataloader()])
    assert sorted(drawn.tolist()) == list(range(len(windows_of(data, "train"))))


def naive(lengths: dict[str, dict[str, int]], seed: int, batches: int, size: int, augmented: bool) -> list[Any]:
    """The published loop, in its own words."""
    np.random.seed(seed)
    made = []
    for _ in range(batches):
        chosen = []
        for _ in range(size):
            subject = np.random.choice(list(lengths))
            trial = np.random.choice(list(lengths[subject].keys()))
            free = lengths[subject][trial] - N
            chosen.append((f"{subject}/{trial}", np.random.randint(free) if free else 0))
        turn = [0.0, 1.0, 1.0]
        if augmented:
            if np.random.uniform() > 0.5:
                turn[0] = np.random.uniform(0, 2 * np.pi)
            for axis in (1, 2):
                if np.random.uniform() > 0.5:
                    turn[axis] = -1.0
        made.append((chosen, turn))
    return made


@pytest.mark.parametrize("augmented", [False, True])
def test_the_legacy_order_draws_as_published(root: Path, augmented: bool) -> None:
    lengths = {"S1": {"Walk 1": 24}, "S5": {"Walk": 10, "Sit 2": 31}}
    state = np.random.get_state()
    try:
        expected = naive(lengths, 5, 10, 8, augmented)
    finally:
        np.random.set_state(state)
    data = module(root, order="legacy", seed=5, augment=["published_turns"] if augmented else [])
    windows = data.windows("train")
    assert windows is not None
    order = data._make_order(windows, 0, 1)
    names = windows_of(data, "train")
    for epoch in (1, 0):  # also back, as a resumed run may go
        order.set_epoch(epoch)
        for picks, (chosen, turn) in zip(order, expected[5 * epoch :], strict=False):
            assert [names[row] for row in picks[:, 2].tolist()] == chosen
            step = int(picks[0, 1]) // 8
            assert isinstance(order.rows, Published)
            assert order.rows.turns(epoch)[step].tolist() == turn


def test_legacy_batches_are_turned_by_the_published_draws(root: Path) -> None:
    plain = module(root, order="legacy", seed=5, batch_size=8)
    turned = module(root, order="legacy", seed=5, augment=["published_turns"])
    order = turned._make_order(turned.windows("train"), 0, 1)  # type: ignore[arg-type]
    assert isinstance(order.rows, Published)
    drawn = order.rows.turns(0)
    assert len({tuple(turn) for turn in drawn.tolist()}) > 2  # of five batches
    for batch, (angle, x, y) in zip(batches(turned), drawn, strict=True):
        windows = turned.windows("train")
        assert windows is not None
        picks = torch.stack([torch.zeros_like(batch["draw"]), batch["draw"], batch["index"]], dim=1)
        pose = windows[picks]["pose3d"].double().numpy()
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        expected = np.concatenate([pose[..., :2] @ matrix * [x, y], pose[..., 2:]], axis=-1)
        np.testing.assert_allclose(batch["pose3d"].numpy(), expected, atol=1e-6)
    assert len(batches(plain)) == 5


# Faults.


def test_positions_that_are_nan_are_refused_or_filled(root: Path) -> None:
    stored = positions()
    stored["S9"]["Walk"] = stored["S9"]["Walk"].copy()
    stored["S9"]["Walk"][5:8, 3] = np.nan
    root = write(root, stored)
    with pytest.raises(DataError, match=r"S9/Walk: 3 of 22 frames hold NaN \(first 5\)\..*dataset\.on_nan=mask"):
        module(root).windows("test")
    data = module(root, on_nan="mask")
    data.windows("test")
    pose = next(
        data.sequences.sequence(i)["pose3d"] for i in range(len(LENGTHS)) if data.sequences.label(i) == "S9/Walk"
    )
    before, after = stored["S9"]["Walk"][4, 3], stored["S9"]["Walk"][8, 3]
    np.testing.assert_allclose(pose[6, 3], (before + after) / 2, atol=1e-6)
    stored["S9"]["Walk"][:, 3] = np.nan
    with pytest.raises(DataError, match=r"S9/Walk: joint 3 is NaN in every frame.*dataset\.drop=\[S9/Walk\]"):
        module(write(root, stored), on_nan="mask").windows("test")


def test_millimetres_are_refused_or_converted(root: Path) -> None:
    large = {s: {t: pose * 1000 for t, pose in trials.items()} for s, trials in positions().items()}
    folder = write(root / "mm", large)
    with pytest.raises(DataError, match=r"these are millimetres, metres expected.*dataset\.unit=mm"):
        module(folder).windows("test")
    metres, converted = (
        next(iter(batches(data, "test")))["motion"] for data in (module(root), module(folder, unit="mm"))
    )
    torch.testing.assert_close(converted, metres, atol=1e-6, rtol=0)


def files(root: Path, **options: Any) -> list[Path]:
    return []


def read(root: Path, *, fps: float, **options: Any) -> Sequences:
    """A reader that knows the rate and the skeleton of its files; found by this module's dotted path."""
    random, body = np.random.default_rng(0), skeleton("humaneva15")
    items = [
        {"pose3d": motions.motion(40, body, random), "subject": s, "trial": "Walk", "action": "Walk", "fps": fps,
         "camera": "", "split": split}
        for s, split in (("A", "train"), ("B", "val"), ("C", "test"))
    ]  # fmt: skip
    return Sequences.from_arrays(items, skeleton=body, space="world")


def describe() -> str:
    return "Two people."


def own(root: Path, **changes: Any) -> PredictionDataModule:
    told: dict[str, Any] = {
        "reader": "tests.data.test_prediction", "reader_options": {"fps": 60.0}, "skeleton": None, "num_joints": 15,
        "num_features": 42, "subjects_train": None, "subjects_test": None, "trials_val": [],
    }  # fmt: skip
    return module(root, **{**told, **changes})


def test_the_reader_tells_skeleton_and_split(tmp_path: Path) -> None:
    data = own(tmp_path, fps=60)
    assert data.skeleton == data.spec.skeleton == skeleton("humaneva15")
    assert {stage: windows_of(data, stage)[0][0] for stage in ("train", "val", "test")} == {
        "train": "A/Walk", "val": "B/Walk", "test": "C/Walk",
    }  # fmt: skip
    assert next(iter(batches(data, "test")))["motion"].shape == (4, N, 42)


def test_another_frame_rate_is_refused_with_windows_that_last_as_long(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"A/Walk has 60 frames per second, dataset\.fps=50") as told:
        own(tmp_path, fps=50).windows("train")
    changes = {key: int(value) for key, value in re.findall(r"dataset\.(fps|history|horizon)=(\d+)", str(told.value))}
    assert changes == {"fps": 60, "history": 5, "horizon": 7}
    assert own(tmp_path, **changes).windows("train") is not None
    assert own(tmp_path, fps=59.94).windows("train") is not None
    assert own(tmp_path, fps=None).windows("train") is not None


def test_numbers_that_contradict_the_skeleton_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 15 joints.*Use dataset\.num_joints=15 dataset\.num_features=42"):
        own(tmp_path, num_features=45)


def test_a_skeleton_of_ones_own_is_a_list_of_parents(tmp_path: Path) -> None:
    body = {"parents": [-1, 0, 1, 0, 3], "joints": ["hip", "left_knee", "left_foot", "right_knee", "right_foot"]}
    random = np.random.default_rng(1)
    stored = {s: {"Walk": random.normal(size=(20, 5, 3)).astype(np.float32) * 0.3} for s in ("S1", "S5", "S9")}
    stored["S1"]["Walk 2"] = stored["S1"]["Walk"]
    data = module(
        write(tmp_path, stored),
        skeleton=body,
        num_joints=5,
        num_features=12,
        trials_val=["S1/Walk 2"],
        augment=["mirror_body"],
    )
    assert data.skeleton.left == (1, 2) and data.skeleton.right == (3, 4)
    assert batches(data)[0]["motion"].shape == (8, N, 12)
    with pytest.raises(ConfigError, match="joint 2 has parent 7, which is no other joint of 3"):
        module(tmp_path, skeleton={"parents": [-1, 0, 7]})
    with pytest.raises(ConfigError, match="no list of parents"):
        module(tmp_path, skeleton={"joints": ["a"]})
    plain = {"parents": body["parents"]}
    with pytest.raises(ConfigError, match="mirror_body needs left and right joints"):
        batches(module(tmp_path, skeleton=plain, num_joints=5, num_features=12, trials_val=[], augment=["mirror_body"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"history": 0}, r"dataset\.history=0 is less than one"),
        ({"limit_windows": 0}, r"dataset\.limit_windows=0 leaves no window"),
        ({"order": "shuffled"}, r"dataset\.order=shuffled is none of balanced_sequences, seeded, legacy"),
        ({"on_nan": "zero"}, r"dataset\.on_nan=zero is none of error, mask"),
        ({"unit": "inch"}, r"dataset\.unit=inch is none of m, cm, mm"),
        ({"augment": ["spinn"]}, r"no transform is called 'spinn'\. Did you mean 'spin'"),
        ({"augment": [{"stretch_time": {"slowest": 1.2, "fastest": 0.8}}]}, "are no two speeds"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        module(root, **changes)


def test_the_store_is_cached_and_named_by_its_contents(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    first = module(root, cache_dir=tmp_path / "cache")
    first.prepare_data()
    kept = batches(first, "test")[0]["motion"]
    again = module(root, cache_dir=tmp_path / "cache")
    assert torch.equal(batches(again, "test")[0]["motion"], kept)
    assert again.fingerprint == first.fingerprint != module(root, cache_dir=tmp_path / "cache", fps=25).fingerprint
    assert again.sequences.arrays.folder is not None


def test_it_says_what_it_is(root: Path) -> None:
    told = module(root).describe()
    assert "4 frames observed, 6 to predict at 50 frames per second; 17 joints" in told
    assert "validation: S1/Walk" in told


# In a training.


class Net(pl.LightningModule):
    """Notes what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(48, 48)
        self.seen: list[tuple[list[int], float]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append((batch["index"].tolist(), float(batch["motion"].sum())))
        return (self.head(batch["motion"]) ** 2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(root: Path, order: str, resume: Path | None = None, **trainer: Any) -> Net:
    augment: list[Any] = ["published_turns" if order == "legacy" else "spin"]
    if order == "balanced_sequences":
        augment.append({"stretch_time": {"slowest": 0.8, "fastest": 1.5}})
    data, net = module(root, order=order, augment=augment), Net()
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
    }
    made = pl.Trainer(default_root_dir=root, accelerator="cpu", enable_checkpointing="callbacks" in trainer,
                      use_distributed_sampler=False, **quiet, **trainer)  # fmt: skip
    made.fit(net, datamodule=data, ckpt_path=resume, weights_only=True)
    return net


@pytest.mark.parametrize("order", ["balanced_sequences", "seeded", "legacy"])
def test_a_resumed_training_sees_what_the_uninterrupted_one_sees(root: Path, order: str) -> None:
    saver = pl.callbacks.ModelCheckpoint(root / "c", save_top_k=-1, every_n_train_steps=1, filename="{step}")
    straight = fit(root, order, max_epochs=2, callbacks=[saver])
    assert len({tuple(index) for index, _ in straight.seen}) == len(straight.seen) > 8
    for step in (2, len(straight.seen) // 2, len(straight.seen) // 2 + 1):
        resumed = fit(root, order, root / "c" / f"step={step}.ckpt", max_epochs=2)
        assert resumed.seen == straight.seen[step:]
        assert torch.equal(resumed.head.weight, straight.head.weight)


def test_an_epoch_of_another_length_cannot_be_continued(root: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(root / "c", save_top_k=-1, every_n_train_steps=1, filename="{step}")
    fit(root, "balanced_sequences", max_steps=2, callbacks=[saver])
    data = module(root, windows_per_epoch=80)
    with pytest.raises(ConfigError, match=r"inside an epoch of 40 windows in batches of 8, this one has 80"):
        pl.Trainer(default_root_dir=root, accelerator="cpu", logger=False, max_steps=4, limit_val_batches=0).fit(
            Net(), datamodule=data, ckpt_path=root / "c" / "step=2.ckpt", weights_only=True
        )
