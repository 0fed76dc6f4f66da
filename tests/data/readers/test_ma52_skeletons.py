"""The reader of published 2D skeletons of MA-52: MMN's pickles and PCAN's."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.core.clip_preprocess import clip_preprocess
from kinema.data.readers import ma52_skeletons
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError
from tests.data.clip_layouts import clip, options


def points(seed: int, joints: int, persons: int = 1) -> np.ndarray:
    return 200 + 100 * clip(seed, joints=joints, channels=2, persons=persons)


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


@pytest.fixture
def mmn(tmp_path: Path) -> Path:
    for split, names in (("train", ("0001_01", "0002_01")), ("test", ("test0000",))):
        entries = [{"frame_dir": f"frames/{name}", "keypoint": points(i, 44, 2)} for i, name in enumerate(names)]
        dump(tmp_path / f"{split}_data.pkl", {"annotations": entries})
        labels = [{"file_name": f"{name}.mp4", "label": i if split == "train" else 0} for i, name in enumerate(names)]
        dump(tmp_path / f"{split}_label.pkl", labels)
    return tmp_path


@pytest.fixture
def pcan(tmp_path: Path) -> Path:
    entries = [
        {"filename": f"{name}.mp4", "label": i + 1, "keypoint": points(i, 28).astype(np.float16),
         "keypoint_score": np.full((1, 9, 28), 0.75, np.float16), "img_shape": (480, 640), "total_frames": 9}
        for i, name in enumerate(("0001_01", "0002_01"))
    ]  # fmt: skip
    dump(tmp_path / "MA52_train.pkl", entries)
    dump(tmp_path / "MA52_val.pkl", {"split": {"val": ["0002_01"]}, "annotations": entries[1:]})
    return tmp_path


def read(root: Path, **changes: Any) -> Sequences:
    form = {"preprocess": "mmn", "skeleton": "mmn44", "surplus": "drop"}
    return ma52_skeletons.read(root, **options(**form | changes))


def read_pcan(root: Path, **changes: Any) -> Sequences:
    form = {"form": "openpose", "preprocess": "pyskl_2d", "skeleton": "openpose28"}
    return ma52_skeletons.read(root, **options(**form | changes))


def test_mmn_clips_are_its_test_input(mmn: Path) -> None:
    store = read(mmn)
    assert store.table["clip"].tolist() == ["0001_01", "0002_01", "test0000"]
    assert store.table["label"].tolist() == [0, 1, -1]
    expected = clip_preprocess("mmn").apply(points(1, 44, 2)[:1], skeleton="mmn44")[0]
    np.testing.assert_array_equal(store.sequence(1)["pose2d"], expected)
    # Every axis spreads over [-1, 1] beside the score.
    np.testing.assert_allclose([expected[..., :2].min(), expected[..., :2].max()], [-1, 1], atol=1e-5)


def test_pcan_clips_keep_scores_and_size(pcan: Path) -> None:
    store = read_pcan(pcan)
    assert store.table["split"].tolist() == ["train", "train", "val"]
    assert store.table["label"].tolist() == [1, 2, 2]
    assert set(zip(store.table["width"].tolist(), store.table["height"].tolist(), strict=True)) == {(640, 480)}
    raw = points(0, 28).astype(np.float16).astype(np.float32)[0]
    expected = (raw - [320, 240]) / [320, 240]
    np.testing.assert_allclose(store.sequence(0)["pose2d"][..., :2], expected, atol=1e-5)
    assert (store.sequence(0)["pose2d"][..., 2] == 0.75).all()


def test_labels_and_clips_must_belong_together(mmn: Path) -> None:
    dump(mmn / "train_label.pkl", [{"file_name": "0001_01", "label": 0}, {"file_name": "ghost", "label": 1}])
    with pytest.raises(DataError, match=r"train_label\.pkl gives ghost a label, but train_data\.pkl has no such clip"):
        read(mmn)
    with pytest.raises(DataError, match=r"Clip 0002_01 has no label"):
        read(mmn, missing="drop")
    assert read(mmn, missing="drop", unlabeled="drop").table["clip"].tolist() == ["0001_01", "test0000"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("train_data.pkl", {"annotations": [{"frame_dir": "a"}]}, r"annotation 0: frame_dir or keypoint is missing"),
        ("train_data.pkl", 3, r"holds no list of annotations"),
        ("train_label.pkl", [{"file_name": "a"}], r"is no list of \{file_name, label\}"),
        (
            "train_data.pkl",
            {"annotations": [{"frame_dir": "a", "keypoint": "x"}]},
            r"Clip a: its keypoints are no numbers",
        ),
        (
            "train_data.pkl",
            {"annotations": [{"frame_dir": "a", "keypoint": points(0, 44), "keypoint_score": np.ones((1, 9, 17))}]},
            r"Clip a: \(1, 9, 17\) scores for",
        ),
        ("train_data.pkl", {"annotations": [{"frame_dir": "a", "keypoint": points(0, 17)}]}, r"mmn44 .* has 44 joints"),
    ],
)
def test_a_damaged_pickle_gets_its_sentence(mmn: Path, name: str, content: Any, sentence: str) -> None:
    dump(mmn / "train_label.pkl", [{"file_name": "a", "label": 0}])
    dump(mmn / name, content)
    with pytest.raises(DataError, match=sentence):
        read(mmn)


def test_a_missing_file_says_where_it_comes_from(tmp_path: Path, mmn: Path) -> None:
    with pytest.raises(DataError, match=r"train_data\.pkl not found in .*Ask\. If it is elsewhere"):
        ma52_skeletons.files(tmp_path / "a" / "b", **options(preprocess="mmn", skeleton="mmn44", source="Ask."))
    (mmn / "test_label.pkl").unlink()
    with pytest.raises(DataError, match=r"test_label\.pkl not found"):
        read(mmn)


def test_an_unknown_form_gets_its_sentence(mmn: Path) -> None:
    with pytest.raises(ConfigError, match=r"form=pcan is not known\. Choose one of mmn, openpose"):
        read(mmn, form="pcan")


def test_the_data_sets_open(mmn: Path, pcan: Path) -> None:
    for dataset, clips in (("ma52_mmn", 3), ("ma52_openpose", 3)):
        config = compose([f"dataset={dataset}", f"dataset.root={mmn}", "dataset.cache_dir=null"])
        data = make(config.dataset, _recursive_=False)
        assert len(data.sequences) == clips
        assert data.sequences.table["subject"].tolist()[:2] == ["0001", "0002"]
