"""ActionDataModule: clips of one or two persons, chosen frames, splits, orders, and sentences for what cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.core.motion import resample_indices, uniform_test_indices
from kinema.data.held_out import held_out
from kinema.errors import ConfigError, DataError
from tests.data.clips import module, read


def batches(data: Any, stage: str) -> list[dict[str, torch.Tensor]]:
    loader = {"train": data.train_dataloader, "test": data.test_dataloader, "val": data.val_dataloader}[stage]()
    return [data.transform(dict(batch), training=stage == "train") for batch in loader]


def test_a_batch_holds_persons_who_are_there_and_zeros_for_others(tmp_path: Path) -> None:
    data = module(tmp_path)
    for batch in batches(data, "test"):
        pose, persons = batch["pose"], batch["persons"]
        assert pose.shape[1:] == (2, 16, 17, 3)
        assert persons[:, 0].all()
        there = pose.abs().amax((2, 3, 4)) > 0
        assert torch.equal(there, persons)
    assert any(not batch["persons"].all() for batch in batches(data, "test"))


def test_frames_of_a_test_clip_are_spread_evenly_over_each_person(tmp_path: Path) -> None:
    data = module(tmp_path)
    windows = data.windows("test")
    assert windows is not None
    store = windows.sequences
    for batch in data.test_dataloader():
        for row, pose in zip(batch["index"].tolist(), batch["pose3d"], strict=True):
            first = int(windows.table[max(row, 0), 0])  # a filler reads row 0
            chosen = resample_indices(int(store.table["length"][first]), 16)
            for person in range(int(store.table["persons"][first])):
                whole = store.sequence(first + person)["pose3d"]
                assert np.array_equal(pose[person].numpy(), whole[chosen])


def test_transforms_of_places_are_for_joints_alone(tmp_path: Path) -> None:
    crop = {"crop_scale": {"train": [1.0, 3.0], "test": [2.0, 2.0]}}
    module(tmp_path, augment=["random_move"], transforms=[crop])
    module(tmp_path, stream="bone", augment=[{"random_move": {"shift": 0.0}}, {"turn": {"degrees": 10}}])
    with pytest.raises(
        ConfigError, match=r"but random_move shifts them\. Use '.*=\[\{random_move:\{shift:0\}\}\]', or"
    ):
        module(tmp_path, stream="bone_motion", augment=["random_move"])
    with pytest.raises(
        ConfigError, match=r"box around the joints\. Use 'dataset.transforms=\[\]', or dataset.stream=joint"
    ):
        module(tmp_path, stream="joint_motion", transforms=[crop])


def test_training_frames_change_with_the_epoch_unless_frozen(tmp_path: Path) -> None:
    def frames(data: Any, epoch: int) -> dict[int, list[int]]:
        windows = data.windows("train")
        picks = torch.tensor([[epoch, draw, row] for draw, row in enumerate(range(len(windows)))])
        return dict(zip(range(len(windows)), windows[picks]["frames"].tolist(), strict=True))

    free, frozen = module(tmp_path), module(tmp_path, rule="frozen")
    assert frames(free, 0) != frames(free, 1)
    assert frames(free, 0) == frames(free, 0)
    assert frames(frozen, 0) == frames(frozen, 3)


def test_a_frozen_row_draws_the_same_wherever_it_stands_in_the_order(tmp_path: Path) -> None:
    windows = module(tmp_path, rule="frozen").windows("train")
    assert windows is not None
    one, other = windows[torch.tensor([[0, 0, 3]])], windows[torch.tensor([[4, 9, 3]])]
    assert torch.equal(one["frames"], other["frames"])


def test_a_random_cut_shows_a_stretch_of_the_clip_in_order(tmp_path: Path) -> None:
    windows = module(tmp_path, cut=[0.5, 0.5], rule="resample").windows("train")
    assert windows is not None
    picks = torch.tensor([[epoch, row, row] for epoch in range(20) for row in range(len(windows))])
    frames = windows[picks]["frames"].numpy()
    rows = windows.table[picks[:, 2].numpy()]
    start, length = windows.sequences.table["start"][rows[:, 0]], rows[:, 2]
    assert (frames >= start[:, None]).all() and (frames < (start + length)[:, None]).all()
    spread = frames.max(1) - frames.min(1) + 1
    assert (spread <= np.maximum(np.rint(length / 2), 2)).all()
    assert (np.diff(frames, axis=1) >= 0).all()
    assert len(np.unique(frames[:, 0] - start)) > 3


def test_the_published_test_clips_come_from_their_generator(tmp_path: Path) -> None:
    windows = module(tmp_path, eval_rule="uniform", test_clips=3).windows("test")
    assert windows is not None and windows.views == 3
    batch = windows[torch.tensor([[0, i, i] for i in range(len(windows))])]
    start = windows.sequences.table["start"][windows.table[:, 0]]
    for i, frames in enumerate(batch["frames"].numpy()):
        length = int(windows.table[i, 2])
        assert np.array_equal(frames - start[i], uniform_test_indices(length, 16, 3)[i % 3])


def test_further_test_clips_differ_and_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    windows = module(tmp_path, test_clips=4).windows("test")
    assert windows is not None
    alone = torch.cat([windows[torch.tensor([[0, i, i]])]["frames"] for i in range(8)])
    together = windows[torch.tensor([[0, i, i] for i in range(8)])]["frames"]
    assert torch.equal(alone, together)
    assert len({tuple(row) for row in together[:4].tolist()}) > 1


@pytest.mark.parametrize("by", ["trial", "subject", "clip", "frames"])
def test_withheld_clips_share_nothing_with_training(by: str) -> None:
    table = read(Path(), per_class=14).table
    rows = np.flatnonzero(table["split"] == "train")
    verdict = held_out(table, rows, by=by, share=0.3, seed=0)
    train, val = rows[verdict == 0], rows[verdict == 1]
    assert len(val) and len(train)
    assert set(table["label"][train]) == {0, 1, 2}
    assert not set(table["clip"][train]) & set(table["clip"][val])
    if by != "frames":
        assert not ({(by, v) for v in table[by][val]} & {(by, v) for v in table[by][train]})
        return
    for row in val:
        same = train[table["trial"][train] == table["trial"][row]]
        assert (table["first"][same] + table["length"][same] <= table["first"][row]).all()


def test_withholding_depends_on_the_seed_and_on_nothing_else() -> None:
    table = read(Path(), per_class=30).table
    rows = np.flatnonzero(table["split"] == "train")
    first = [held_out(table, rows, by="clip", share=0.2, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])


def test_a_folder_of_test_clips_alone_can_be_tested(tmp_path: Path) -> None:
    data = module(tmp_path, reader_options={"split": "test"})
    assert data.has_test() and len(batches(data, "test")) > 1
    with pytest.raises(DataError, match=r"nothing to train on.*splits test"):
        data.windows("train")


def test_withheld_labels_are_no_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = module(tmp_path, reader_options={"label": -1})
    assert not data.has_test()
    assert "mode=submit" in caplog.text
    with pytest.raises(DataError, match=r"has no label, and training needs one.*dataset.unlabeled=drop"):
        module(tmp_path, reader_options={"label": -1}, validation={"by": None}).windows("train")


def test_a_class_without_training_clips_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["class0", "class1", "class2", "nobody"]
    module(tmp_path, classes=names, num_classes=4).windows("train")
    assert "No training clip shows nobody" in caplog.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_classes": 4}, r"num_classes=4, but dataset.classes names 3. Use dataset.num_classes=3"),
        ({"rule": "clamp"}, r"dataset.rule=clamp is none of"),
        ({"cut": [0.9, 0.5]}, r"no two shares of a clip. Use 'dataset.cut=\[0.6,1.0\]'"),
        ({"validation": {"by": "trial", "shares": 1}}, r"dataset.validation has no key 'shares'"),
        ({"test_clips": 0}, r"Use dataset.test_clips=1"),
        ({"num_joints": 25}, r"num_joints=25"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        module(tmp_path, **changes)


def test_an_unknown_way_of_withholding_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"validation.by=day is none of trial, subject, clip, frames"):
        module(tmp_path, validation={"by": "day"}).windows("train")


def test_orders_by_class_reach_the_loader(tmp_path: Path) -> None:
    data = module(
        tmp_path,
        order="per_class",
        order_options={"per_class": {"per_class": 2}},
        batch_size=4,
        validation={"by": None},
    )
    windows = data.windows("train")
    assert windows is not None
    for batch in data.train_dataloader():
        labels, count = batch["label"].unique(return_counts=True)
        assert len(labels) == 2 and (count == 2).all()


def test_repeat_lengthens_the_epoch(tmp_path: Path) -> None:
    one, five = module(tmp_path).windows("train"), module(tmp_path, repeat=5).windows("train")
    assert one is not None and five is not None and len(five) == 5 * len(one)
