"""The reader of the MA-52 layout: the fork's folders, the official lists, recordings, and every fault of a root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.core.clip_preprocess import clip_preprocess
from kinema.data.readers import ma52
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError
from tests.data import clip_layouts
from tests.data.clip_layouts import options, save


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return clip_layouts.ma52(tmp_path / "ma52")


def read(root: Path, **changes: Any) -> Sequences:
    return ma52.read(root, **options(**changes))


def faults(root: Path, **changes: Any) -> list[str]:
    found: list[DataError] = []
    ma52.read(root, report=found.append, **options(**changes))
    return [str(fault) for fault in found]


def clips(sequences: Sequences) -> dict[str, list[str]]:
    table = sequences.table
    return {split: table["clip"][table["split"] == split].tolist() for split in dict.fromkeys(table["split"].tolist())}


def test_clips_come_sorted_with_their_labels_and_prepared_poses(root: Path) -> None:
    store = read(root)
    assert clips(store) == {split: list(labels) for split, labels in clip_layouts.MA52.items()}
    assert store.table["label"].tolist() == [0, 1, 2, 0, 1, 2]
    assert store.table["action"].tolist() == ["nodding", "waving", "sitting", "nodding", "waving", "sitting"]
    for row in range(len(store)):
        path = root / str(store.table["split"][row]) / str(store.table["clip"][row]) / "pose_3d.npy"
        expected = clip_preprocess("ma52").apply(np.load(path)[None], skeleton="h36m17")[0]
        np.testing.assert_array_equal(store.sequence(row)["pose3d"], expected)


def test_an_official_test_list_has_no_labels(tmp_path: Path) -> None:
    splits = {"train": {"0001_01": 1}, "val": {"0002_01": 2}, "test": {"test0000": 0, "test0001": 0}}
    store = read(clip_layouts.ma52(tmp_path, splits, form="{}_list_videos.txt"))
    assert store.table["label"].tolist() == [1, 2, -1, -1]
    assert store.table["split"].tolist() == ["train", "val", "test", "test"]


def test_labels_are_withheld_as_told(root: Path) -> None:
    assert read(root, withheld=["test"]).table["label"].tolist() == [0, 1, 2, 0, -1, -1]
    assert read(root, withheld=[]).table["label"].tolist() == [0, 1, 2, 0, 1, 2]


def test_all_splits_in_one_folder(root: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for split in clip_layouts.MA52:
        for clip in (root / split).iterdir():
            save(flat / clip.name / "pose_3d.npy", np.load(clip / "pose_3d.npy"))
        (flat / f"{split}_labels.txt").write_bytes((root / f"{split}_labels.txt").read_bytes())
    one, other = read(root), read(flat)
    for name in one.table:
        np.testing.assert_array_equal(one.table[name], other.table[name])
    np.testing.assert_array_equal(one.arrays["pose3d"], other.arrays["pose3d"])


def test_clips_in_no_list_of_one_folder_have_no_label(tmp_path: Path) -> None:
    save(tmp_path / "a.npy", clip_layouts.clip(0))
    save(tmp_path / "b.npy", clip_layouts.clip(1))
    (tmp_path / "train_labels.txt").write_text("a 0\n")
    assert faults(tmp_path) == [next(text for text in faults(tmp_path) if text.startswith("Clip b has no label."))]
    assert clips(read(tmp_path, unlabeled="drop")) == {"train": ["a"]}


def test_hidden_folders_are_no_clips(root: Path) -> None:
    (root / "train" / ".cache").mkdir()
    assert len(read(root)) == 6


def test_test_clips_alone_are_enough(root: Path) -> None:
    import shutil

    shutil.rmtree(root / "train")
    (root / "train_labels.txt").unlink()
    assert clips(read(root)) == {"test": ["0003_01", "0003_02"]}


def test_lists_may_hold_extra_words_blank_lines_and_later_corrections(root: Path) -> None:
    path = root / "train_labels.txt"
    path.write_text("0001_01.mp4 2 extra\n\nbroken\n" + path.read_text() + "0001_02 0\n")
    labels = ma52.read_labels(path)
    assert labels.ids == {"0001_01": 0, "0001_02": 0, "0002_01": 2, "0002_02": 0}
    assert labels.repeated == ("0001_01", "0001_02")
    assert labels.broken == ("line 3: broken",)
    assert labels.disputed == ("0001_01", "0001_02")
    assert read(root, disputed="last").table["label"].tolist()[:2] == [0, 0]


def test_recordings_and_persons_come_from_segments(root: Path) -> None:
    facts = {"0001_01": {"class_id": 0, "subject": "train_P1", "name": "walk 2", "person": "P1", "frames": [40, 49]}}
    (root / "segments.json").write_text(json.dumps({"train": facts, "test": {}}))
    store = read(root, segments="segments.json", subject=r"(\d+)_", fps=50)
    assert store.table["subject"].tolist() == ["P1", "0001", "0002", "0002", "0003", "0003"]
    assert store.table["trial"].tolist()[:2] == ["train_P1/walk 2", "0001_02"]
    assert store.table["first"].tolist() == [40, 0, 0, 0, 0, 0]
    assert set(store.table["fps"].tolist()) == {50.0}
    assert root / "segments.json" in ma52.files(root, **options(segments="segments.json"))
    (root / "segments.json").write_text(json.dumps({"train": {"0001_01": {"frames": 3}}}))
    with pytest.raises(DataError, match=r"segments\.json is not as expected.*segments=null"):
        read(root, segments="segments.json")


def test_several_persons_of_a_clip(root: Path) -> None:
    save(root / "train" / "0001_01" / "pose_3d.npy", clip_layouts.clip(5, persons=2))
    store = read(root, persons=2)
    assert store.table["person"].tolist()[:3] == [0, 1, 0]
    assert store.table["persons"].tolist()[:3] == [2, 2, 1]


def stray_folder(root: Path) -> None:
    (root / "train" / "empty").mkdir()


def stray_label(root: Path) -> None:
    (root / "test_labels.txt").write_text((root / "test_labels.txt").read_text() + "ghost 1\n")


def unlabelled(root: Path) -> None:
    save(root / "test" / "new" / "pose_3d.npy", clip_layouts.clip(9))


def label(text: str) -> Any:
    def change(root: Path) -> None:
        path = root / "train_labels.txt"
        path.write_text(path.read_text().replace("0002_01.mp4 2", f"0002_01.mp4 {text}"))

    return change


def array(value: Any) -> Any:
    def change(root: Path) -> None:
        save(root / "train" / "0001_02" / "pose_3d.npy", value)

    return change


def torn(root: Path) -> None:
    path = root / "train" / "0001_02" / "pose_3d.npy"
    path.write_bytes(path.read_bytes()[:200])


def other_names(root: Path) -> None:
    (root / "class_names.json").write_text('{"0": "nodding", "1": "sitting", "2": "waving"}')


FAULTS = {
    "folder without array": (stray_folder, r"train/empty holds no pose_3d\.npy.*missing=drop"),
    "label without clip": (stray_label, r"test_labels\.txt gives ghost a label, but.*missing=drop"),
    "clip without label": (unlabelled, r"Clip new has no label.*unlabeled=drop"),
    "two ids": (
        lambda root: (root / "train_labels.txt").write_text((root / "train_labels.txt").read_text() + "0001_02 0\n"),
        r"train_labels\.txt gives 0001_02 two different ids.*disputed=last",
    ),
    "label too large": (label("3"), r"Clip 0002_01 has label 3, but 3 classes have the ids 0 to 2"),
    "negative label": (label("-1"), r"Clip 0002_01 has label -1; ids count from 0.*withheld=\[train\]"),
    "wrong joints": (array(clip_layouts.clip(0, joints=18)), r"Clip 0001_02 has shape \(1, 9, 18, 3\)"),
    "NaN": (array(np.full((4, 17, 3), np.nan, np.float32)), r"Clip 0001_02: 4 of 4 frames hold NaN \(first 0\)"),
    "no numbers": (array(np.array(["a"])), r"0001_02/pose_3d\.npy holds no numbers"),
    "torn file": (torn, r"0001_02/pose_3d\.npy cannot be read"),
    "other class names": (other_names, r"another class list than dataset\.classes: 1 is 'sitting' there and 'waving'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gets_its_sentence_and_the_rest_is_read(root: Path, name: str) -> None:
    change, sentence = FAULTS[name]
    change(root)
    with pytest.raises(DataError, match=sentence):
        read(root)
    assert len(faults(root)) == 1
    found: list[DataError] = []
    assert len(ma52.read(root, report=found.append, **options())) >= 5


def test_strays_are_dropped_on_demand(root: Path) -> None:
    for change in (stray_folder, stray_label, unlabelled):
        change(root)
    store = read(root, missing="drop", unlabeled="drop")
    assert clips(store) == {split: list(labels) for split, labels in clip_layouts.MA52.items()}


def test_an_id_that_is_no_number_names_its_line(root: Path) -> None:
    label("sitting")(root)
    with pytest.raises(DataError, match=r"train_labels\.txt, line 3: 'sitting' is no class id"):
        read(root)


def test_a_split_without_list_is_refused_once(root: Path) -> None:
    (root / "test_labels.txt").unlink()
    with pytest.raises(DataError, match=r"no label list for test: test_labels\.txt not found"):
        read(root)


def test_an_empty_root_says_where_the_data_comes_from(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"No clips found in .*expected train/<clip>/pose_3d\.npy.*Ask\..*dataset\.root"
    ):
        ma52.files(tmp_path, **options(source="Ask."))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"subject": "("}, r"subject=\( is no regular expression"),
        ({"subject": "x"}, r"subject=x has no group"),
        ({"missing": "no"}, r"missing=no is not known"),
    ],
)
def test_a_bad_option_gets_its_sentence(root: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read(root, **changes)


def test_the_data_sets_open_through_their_cache(root: Path, tmp_path: Path) -> None:
    for dataset, preprocess in (("ma52", "ma52"), ("ma52_fork", "ma52_fork")):
        config = compose([f"dataset={dataset}", f"dataset.root={root}", f"paths.cache_dir={tmp_path / 'cache'}"])
        config.dataset.split_val = None
        data = make(config.dataset, _recursive_=False)
        assert data.sequences.meta["preprocess"] == preprocess
        assert data.sequences.arrays.folder is not None
        assert len(data.sequences) == 6
        assert data.sequences.table["subject"].tolist()[:2] == ["0001", "0001"]
