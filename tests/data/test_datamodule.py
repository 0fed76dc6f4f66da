"""MotionDataModule: splits, bad data, loaders, and runs that go on where they stopped."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from kinema.core.spec import Signature
from kinema.data.datamodule import MotionDataModule
from kinema.data.orders import evaluation, make
from kinema.errors import ConfigError, DataError
from tests.data import tiny

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny")


def _labels(data: MotionDataModule, stage: str) -> list[str]:
    windows = data.windows(stage)
    assert windows is not None
    return [windows.sequences.label(row) for row in range(len(windows.sequences))]


class Net(pl.LightningModule):
    """A linear lifter that writes down what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(3 * 34, 51)
        self.seen: list[Any] = []

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.head(batch["pose"].flatten(1)).view(-1, 1, 17, 3)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append([batch_idx, batch["draw"].tolist(), batch["index"].tolist(), batch["flip"].tolist()])
        return (self(batch) - batch["pose3d"]).norm(dim=-1).mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        assert batch["pose"].shape[0] == 1

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.seen.append(batch["index"].tolist())

    def predict_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> list[int]:
        return batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def _trainer(root: Path, **options: Any) -> pl.Trainer:
    fixed = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options.setdefault("enable_checkpointing", bool(options.get("callbacks")))
    return pl.Trainer(default_root_dir=root, use_distributed_sampler=False, **fixed, **options)


# What is known before, and which rows belong to what.


def test_spec_is_known_before_any_file_is_there(tmp_path: Path) -> None:
    signature = Signature("pose3d", 3, 17, 17, 27, "exact", context=(13, 13))
    data = tiny.datamodule(tmp_path / "nowhere", frames=None, context=None, signature=signature)
    assert data.spec.frames == 27
    assert data.context == (13, 13)
    assert data.spec.has_3d and data.spec.tasks == {"lifting"}
    with pytest.raises(DataError, match=r"tiny\.npz not found in .*nowhere"):
        data.setup("fit")


def test_splits_keep_the_order_asked_for_and_withhold_trials(root: Path) -> None:
    data = tiny.datamodule(root, subjects_train=["S5", "S*"], subjects_test=["S9"])
    assert _labels(data, "train") == ["S5/Sit/0", "S1/Walk 1/0", "S9/Walk/0", "S9/Sit/0"]
    assert _labels(data, "val") == ["S1/Walk/0"]
    assert _labels(data, "test") == _labels(data, "predict") == ["S9/Walk/0", "S9/Sit/0"]
    chosen_on_test = tiny.datamodule(root, selection="test", actions=["Wal"])
    assert _labels(chosen_on_test, "val") == ["S9/Walk/0"]
    assert _labels(tiny.datamodule(root, subjects_val=["S5"]), "val") == ["S5/Sit/0"]


def test_split_column_of_the_file_is_followed(root: Path) -> None:
    split = {"subjects_train": None, "subjects_test": None, "trials_val": []}
    by_file = tiny.datamodule(root, reader_options={"split": "train"}, **split)
    assert len(_labels(by_file, "train")) == 5
    with pytest.raises(DataError, match="no sequence to test on"):
        by_file.windows("test")
    unsplit = tiny.datamodule(root, **split)
    assert len(_labels(unsplit, "test")) == 5
    with pytest.raises(DataError, match=r"no sequence to train on: .* holds the subjects S1, S5, S9"):
        unsplit.windows("train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects_train": ["S11"]}, r"dataset\.subjects_train: the data has no subject 'S11'. Did you mean 'S1'"),
        ({"actions": ["Walkk"]}, r"dataset\.actions: the data has no action 'Walkk'. Did you mean 'Walk'"),
        ({"trials_val": ["S1/Wolk 1"]}, r"dataset\.trials_val: .* Did you mean 'S1/Walk 1'"),
    ],
)
def test_unknown_names_get_the_nearest_one(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.datamodule(root, **changes).windows("train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": "best"}, r"dataset\.selection=val"),
        ({"num_joints": 16}, r"dataset\.num_joints=17"),
        ({"unit": "cm"}, r"dataset\.unit=m\b"),
        ({"on_nan": "drop"}, r"dataset\.on_nan=error"),
        ({"windows": {"kind": "chunk", "stride": None, "both_views": False}}, r"dataset\.windows\.kind=chunked"),
        ({"eval_windows": {"kind": "whole"}}, r"dataset\.eval_windows\.stride=null"),
        ({"reader": "videopose"}, r"Did you mean 'videopose3d'"),
        ({"reader": "no.such.module"}, r"dataset\.reader=no\.such\.module cannot be imported"),
        ({"order": "shuffled"}, r"dataset\.order=seeded"),
        ({"frames": 2}, r"dataset\.frames=3"),
        ({"frames": None}, r"dataset\.frames=81"),
        ({"windows": {"kind": "tiled", "stride": None, "both_views": False}}, r"dataset\.windows\.kind=chunked"),
    ],
)
def test_impossible_configurations_name_the_override_that_works(
    root: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.datamodule(root, **changes).train_dataloader()


def test_folder_with_test_data_only_can_be_tested(tmp_path: Path) -> None:
    kept = {key: value for key, value in tiny.sequences().items() if key.startswith("S9")}
    root = tiny.write(tmp_path / "tiny", kept)
    net, data = Net(), tiny.datamodule(root)
    _trainer(root).test(net, datamodule=data, verbose=False)
    assert net.seen == [[0], [1]]
    assert data.has_test()
    with pytest.raises(ConfigError, match="no subject 'S1'"):
        data.setup("fit")


def test_has_test_says_no_without_test_subjects(root: Path) -> None:
    assert not tiny.datamodule(root, subjects_test=["S7"]).has_test()
    assert not tiny.datamodule(root, has_3d=False).has_test()


# Bad data.


def test_nan_is_refused_with_its_place_and_masked_on_demand(tmp_path: Path) -> None:
    arrays = tiny.sequences()
    arrays["S5/Sit"][4, 3, 1] = np.nan
    arrays["S5/Sit2d"][6:8, 2, 0] = np.nan
    root = tiny.write(tmp_path / "tiny", arrays)
    with pytest.raises(DataError, match=r"S5/Sit/0: 3 of 9 frames hold NaN \(first 4\).*dataset\.on_nan=mask"):
        tiny.datamodule(root).windows("train")
    tiny.datamodule(root).windows("test")  # what a stage does not use may be faulty
    data = tiny.datamodule(root, on_nan="mask", subjects_train=["S5"], store_mirrored=True)
    windows = data.windows("train")
    assert windows is not None
    batch = windows[torch.tensor([[0, 0, 4], [0, 1, 6], [0, 2, 9 + 4]])]
    mirrored = windows.sequences.skeleton.flip_index[3]  # type: ignore[union-attr]
    assert (~batch["valid"]).nonzero().tolist() == [[0, 0, 3], [2, 0, mirrored]]
    assert all(torch.isfinite(batch[key]).all() for key in ("pose2d", "pose3d"))
    assert batch["pose2d"][1, 1, 2].tolist() == [0, 0, 0], "a missing point has score 0"
    assert batch["pose2d"][1, 1, 3, 2] == 1


def test_millimetres_are_refused(tmp_path: Path) -> None:
    arrays = {key: value if key.endswith("2d") else value * 1000 for key, value in tiny.sequences().items()}
    root = tiny.write(tmp_path / "tiny", arrays)
    with pytest.raises(DataError, match=r"Bones of subject S1 average \d{3}: these are millimetres.*dataset\.unit=mm"):
        tiny.datamodule(root).windows("train")


def test_another_number_of_joints_is_refused(tmp_path: Path) -> None:
    arrays = {key: np.concatenate([value, value[:, :15]], axis=1) for key, value in tiny.sequences().items()}
    root = tiny.write(tmp_path / "tiny", arrays)
    with pytest.raises(DataError, match=r"pose3d has 32 joints, but dataset\.skeleton=h36m17 has 17"):
        tiny.datamodule(root).windows("train")


def test_nothing_to_validate_on_is_said(root: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.selection=test"):
        tiny.datamodule(root, trials_val=[]).windows("val")


# Windows of the stages.


def test_windows_follow_the_model(root: Path) -> None:
    centre = Signature("pose3d", 2, 17, 17, 5, "exact", context=(2, 2))
    free = {"frames": None, "context": None}
    windows = tiny.datamodule(root, signature=centre, **free).windows("train")
    assert windows is not None and (windows.targets, windows.context) == (1, (2, 2))
    assert len(windows) == 2 * (11 + 9)
    clips = Signature("pose3d", 3, 17, 17, 6, "max")
    data = tiny.datamodule(root, signature=clips, **free)
    windows, whole = data.windows("train"), data.windows("test")
    assert windows is not None and whole is not None
    assert (windows.targets, windows.context, len(windows)) == (6, (0, 0), 2 * (4 + 3))
    assert whole.targets is None
    assert data.transform(windows[torch.tensor([[0, 0, 0]])])["pose"].shape == (1, 6, 17, 3)


def test_strided_clips_for_training_and_evaluation(root: Path) -> None:
    clips = {"frames": 4, "context": [0, 0]}
    data = tiny.datamodule(
        root,
        **clips,
        windows={"kind": "strided", "stride": 2, "both_views": False},
        eval_windows={"kind": "strided", "stride": None},
    )
    train, test = data.windows("train"), data.windows("test")
    assert train is not None and len(train) == 4 + 3
    assert test is not None and test.table[:, 1].tolist() == [0, 4, 0]
    assert [len(batch["index"]) for batch in data.test_dataloader()] == [4], "filled up to the batch size"
    tiled = tiny.datamodule(root, **clips, eval_windows={"kind": "tiled", "stride": None}).windows("test")
    assert tiled is not None and tiled.table[:, 1].tolist() == [0, 4, 0, 1]
    twice = {"kind": "strided", "stride": 2, "both_views": True}
    with pytest.raises(ConfigError, match=r"both_views=false"):
        tiny.datamodule(root, **clips, windows=twice).windows("train")


def test_subset_downsample_and_limit(root: Path) -> None:
    data = tiny.datamodule(root, downsample=2, subset=0.5, limit_windows=5)
    train, test = data.windows("train"), data.windows("test")
    assert train is not None and test is not None
    assert len(train) == 5
    assert test.sequences.table["length"].tolist() == [4, 3]
    assert train.sequences.table["length"].tolist() == [2, 2]


def test_keys_of_tasks_and_transforms_are_gathered(root: Path) -> None:
    data = tiny.datamodule(root, augment=[{"tests.data.test_transforms.outsider": {"factor": 1.0}}])
    train, test = data.windows("train"), data.windows("test")
    assert train is not None and test is not None
    assert train.keys == ("pose2d", "pose3d", "intrinsics")
    assert test.keys == ("pose2d", "pose3d")
    data.require("fps", "width")
    assert test.keys == ("pose2d", "pose3d", "fps", "width")
    with pytest.raises(DataError, match="no 'factor'"):
        data.require("factor")


def test_scores_in_an_array_of_their_own_become_the_third_channel(root: Path) -> None:
    data = tiny.datamodule(root, reader_options={"score": 0.5}, cache_dir=None)
    assert data.sequences.arrays["pose2d"].shape[-1] == 3
    assert "score" not in data.sequences.arrays
    np.testing.assert_array_equal(data.sequences.arrays["pose2d"][..., 2], 0.5)


# Loading.


def test_second_start_reads_the_cache_and_not_the_raw_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.datamodule(root).prepare_data()
    monkeypatch.setattr(tiny, "read", None)
    data = tiny.datamodule(root)
    data.setup("fit")
    assert data.fingerprint.startswith("tiny-")
    assert not data.sequences.arrays["pose2d"].flags.writeable
    tiny.write(root, tiny.sequences(seed=1))
    monkeypatch.undo()
    changed = tiny.datamodule(root)
    assert changed.fingerprint != data.fingerprint
    np.testing.assert_array_equal(changed.sequences.arrays["pose3d"][:11], tiny.sequences(seed=1)["S1/Walk 1"])


def test_without_a_cache_nothing_is_written(root: Path) -> None:
    data = tiny.datamodule(root, cache_dir=None, num_workers=2)
    data.prepare_data()
    assert len(list(data.train_dataloader())) == 5
    assert [path.name for path in root.iterdir()] == ["tiny.npz"]


def test_workers_change_nothing_and_receive_paths(root: Path) -> None:
    alone, helped = tiny.datamodule(root), tiny.datamodule(root, num_workers=2)
    for one, other in zip(alone.train_dataloader(), helped.train_dataloader(), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    loader = helped.train_dataloader()
    assert len(pickle.dumps(loader.dataset)) < 10_000


def test_two_ranks_get_the_one_process_batches(root: Path) -> None:
    data = tiny.datamodule(root)
    windows = data.windows("train")
    assert windows is not None
    alone = [windows[picks] for picks in make("seeded", len(windows), 8, seed=0)]
    ranks = [make("seeded", len(windows), 8, seed=0, rank=rank, world_size=2) for rank in range(2)]
    for whole, *picks in zip(alone, *ranks, strict=True):
        parts = [data.transform(windows[pick]) for pick in picks]
        order = torch.cat([part["draw"] for part in parts]).argsort()
        for key in ("pose", "pose3d", "index", "draw"):
            joined = torch.cat([part[key] for part in parts])[order]
            torch.testing.assert_close(joined, data.transform(whole)[key])
    test = data.windows("test")
    assert test is not None
    seen = [pick[:, 2].tolist() for rank in range(2) for pick in evaluation(len(test), 2, rank=rank, world_size=2)]
    assert seen == [[0], [1]]


def test_prediction_and_test_visit_every_sequence_once(root: Path) -> None:
    net, data = Net(), tiny.datamodule(root)
    trainer = _trainer(root)
    assert trainer.predict(net, datamodule=data) == [[0], [1]]
    trainer.test(net, datamodule=data, verbose=False)
    assert net.seen == [[0], [1]]


# Resuming.

_TRAINING = {"batch_size": 4, "augment": [{"flip": {"probability": 0.5}}],
             "windows": {"kind": None, "stride": None, "both_views": False}}  # fmt: skip


def _fit(root: Path, workers: int, resume: Path | None = None, **options: Any) -> Net:
    net = Net()
    data = tiny.datamodule(root, num_workers=workers, **_TRAINING)
    _trainer(root, **options).fit(net, datamodule=data, ckpt_path=resume, weights_only=True)
    return net


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_uninterrupted_one(root: Path, workers: int, accumulate: int) -> None:
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    folder = root / "checkpoints"
    saver = pl.callbacks.ModelCheckpoint(folder, save_top_k=-1, every_n_train_steps=1, filename="{step}")
    straight = _fit(root, workers, callbacks=[saver], **options)
    draws = [draw for step in straight.seen for draw in step[1]]
    assert draws == [*range(20), *range(20)]
    steps = range(1, 10) if accumulate == 1 and workers == 0 else (1, 3, 4)
    for step in steps:
        resumed = _fit(root, workers, folder / f"step={step}.ckpt", **options)
        assert resumed.seen == straight.seen[len(straight.seen) - len(resumed.seen) :]
        assert len(resumed.seen) == 10 - {1: step, 2: min(2 * step, 5) if step < 4 else 7}[accumulate]
        assert torch.equal(resumed.head.weight, straight.head.weight)
    shutil.rmtree(folder)


@pytest.mark.parametrize("stop", [3, 5])
def test_run_that_reached_its_steps_goes_on_with_more(root: Path, stop: int) -> None:
    net, data = Net(), tiny.datamodule(root, **_TRAINING)
    trainer = _trainer(root, max_steps=stop)
    trainer.fit(net, datamodule=data)
    trainer.save_checkpoint(root / "stopped.ckpt")
    resumed = _fit(root, 0, root / "stopped.ckpt", max_steps=8)
    straight = _fit(root, 0, max_steps=8)
    assert net.seen + resumed.seen == straight.seen
    assert torch.equal(resumed.head.weight, straight.head.weight)


def test_validation_inside_an_epoch_and_its_checkpoint(root: Path) -> None:
    options = {"max_epochs": 2, "val_check_interval": 2}
    saver = pl.callbacks.ModelCheckpoint(root / "c", save_top_k=-1, save_on_train_epoch_end=False, filename="{step}")
    straight = _fit(root, 0, callbacks=[saver], **options)
    for path in sorted((root / "c").glob("*.ckpt")):
        resumed = _fit(root, 0, path, **options)
        assert resumed.seen == straight.seen[len(straight.seen) - len(resumed.seen) :]
        assert torch.equal(resumed.head.weight, straight.head.weight)


def test_other_batches_cannot_continue_an_epoch(root: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(root / "c", save_top_k=-1, every_n_train_steps=1, filename="{step}")
    _fit(root, 0, callbacks=[saver], max_steps=2)
    data = tiny.datamodule(root, **{**_TRAINING, "batch_size": 5})
    with pytest.raises(ConfigError, match=r"inside an epoch of 20 windows in batches of 4.*dataset\.batch_size=4"):
        _trainer(root, max_steps=4).fit(Net(), datamodule=data, ckpt_path=root / "c" / "step=2.ckpt")


def test_testing_a_checkpoint_does_not_move_the_training_order(root: Path) -> None:
    net, data = Net(), tiny.datamodule(root, **_TRAINING)
    trainer = _trainer(root, max_steps=2)
    trainer.fit(net, datamodule=data)
    trainer.save_checkpoint(root / "a.ckpt")
    trainer.test(net, datamodule=data, ckpt_path=root / "a.ckpt", verbose=False, weights_only=True)
    fresh = Net()
    _trainer(root, max_steps=2).fit(fresh, datamodule=data)
    assert fresh.seen == net.seen[:2]
