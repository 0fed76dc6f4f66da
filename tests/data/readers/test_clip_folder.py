"""The reader of anybody's clips: folders per class, lists, npz files, and every fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.core.clip_preprocess import clip_preprocess
from kinema.data.readers import clip_folder
from kinema.data.sequences import Sequences
from kinema.errors import DataError
from tests.data.clip_layouts import CLASSES, clip, options, save


def read(root: Path, **changes: Any) -> Sequences:
    return clip_folder.read(root, **options(**changes))


def table(store: Sequences, *columns: str) -> list[tuple[Any, ...]]:
    return list(zip(*(store.table[name].tolist() for name in columns), strict=True))


def test_folders_are_classes(tmp_path: Path) -> None:
    save(tmp_path / "waving" / "one.npy", clip(0))
    save(tmp_path / "nodding" / "two.npy", clip(1))
    save(tmp_path / "sitting" / "three" / "pose_3d.npy", clip(2))
    save(tmp_path / ".trash" / "four.npy", clip(3))
    found = table(read(tmp_path), "clip", "label", "split")
    assert found == [("nodding/two", 0, "train"), ("sitting/three", 2, "train"), ("waving/one", 1, "train")]


def test_split_folders_hold_class_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for i, name in enumerate(CLASSES):
            save(tmp_path / split / name / "a.npy", clip(i))
    found = table(read(tmp_path), "clip", "split", "label")
    assert found[:2] == [("test/nodding/a", "test", 0), ("test/sitting/a", "test", 2)]
    assert {split for _, split, _ in found} == {"train", "test"}


def test_a_table_names_everything(tmp_path: Path) -> None:
    save(tmp_path / "clips" / "a.npy", clip(0))
    save(tmp_path / "b.npy", clip(1))
    save(tmp_path / "c.npy", clip(2))
    (tmp_path / "labels.csv").write_text(
        "clip, label, split, subject, trial, first, fps\n"
        "a,waving,train,P1,t1,5,30\nb.npy,0,test,P2,t2,0,\nc,,test,,,,\n"
    )
    store = read(tmp_path, fps=25)
    columns = ("clip", "label", "split", "subject", "trial", "first", "fps")
    assert table(store, *columns) == [
        ("a", 1, "train", "P1", "t1", 5, 30.0),
        ("b", 0, "test", "P2", "t2", 0, 25.0),
        ("c", -1, "test", "", "c", 0, 25.0),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_spreadsheets(tmp_path: Path, delimiter: str) -> None:
    save(tmp_path / "a.npy", clip(0))
    (tmp_path / "labels.csv").write_text(f"\ufeffclip{delimiter}label\na{delimiter}sitting\n", encoding="utf-8")
    assert table(read(tmp_path), "clip", "label") == [("a", 2)]


def test_lists_per_split(tmp_path: Path) -> None:
    for split, name in (("train", "waving"), ("test", "1")):
        save(tmp_path / split / "x.npy", clip(len(split)))
        (tmp_path / f"{split}_labels.txt").write_text(f"x {name}\n")
    assert table(read(tmp_path), "clip", "split", "label") == [("train/x", "train", 1), ("test/x", "test", 1)]


def test_a_list_may_have_any_name_and_names_with_spaces(tmp_path: Path) -> None:
    save(tmp_path / "a.npy", clip(0))
    (tmp_path / "mine.txt").write_text("a shaking head\n")
    store = read(tmp_path, labels="mine.txt", classes=("nodding", "shaking head"), num_classes=2)
    assert table(store, "clip", "action") == [("a", "shaking head")]
    assert clip_folder.files(tmp_path, **options(labels="mine.txt"))[0].name == "mine.txt"


def test_pixels_with_scores_from_an_npz(tmp_path: Path) -> None:
    pixels, score = 100 * clip(3, channels=2), np.full((9, 17), 0.5, np.float32)
    (tmp_path / "waving").mkdir()
    np.savez(tmp_path / "waving" / "a.npz", keypoints=pixels, score=score, size=(640, 480), fps=30)
    store = read(tmp_path, preprocess="pyskl_2d", has_3d=False)
    expected = clip_preprocess("pyskl_2d").apply(pixels[None], score[None], (640, 480), skeleton="h36m17")[0]
    np.testing.assert_array_equal(store.sequence(0)["pose2d"], expected)
    assert table(store, "width", "height", "fps") == [(640, 480, 30.0)]


def test_a_third_channel_is_the_score_of_two_dimensions(tmp_path: Path) -> None:
    pixels = np.concatenate([100 * clip(3, channels=2), np.full((9, 17, 1), 0.25, np.float32)], axis=-1)
    save(tmp_path / "waving" / "a.npy", pixels)
    store = read(tmp_path, preprocess="pyskl_2d", has_3d=False, size=(640, 480))
    assert (store.sequence(0)["pose2d"][..., 2] == 0.25).all()


def test_integers_are_numbers(tmp_path: Path) -> None:
    save(tmp_path / "waving" / "a.npy", (1000 * clip(4)).astype(np.int32))
    assert read(tmp_path).arrays["pose3d"].dtype == np.float32


def bad_npz(root: Path) -> None:
    np.savez(root / "waving" / "b.npz", pose=clip(0))


def torn(root: Path) -> None:
    (root / "waving" / "b.npz").write_bytes(b"PK\x03\x04 torn")


def wrong_scores(root: Path) -> None:
    np.savez(root / "waving" / "b.npz", keypoints=clip(0), score=np.ones((9, 16)))


def unknown_class(root: Path) -> None:
    save(root / "wavin" / "b.npy", clip(0))


def shapeless(root: Path) -> None:
    save(root / "waving" / "b.npy", np.zeros((3, 17), np.float32))


def three(root: Path) -> None:
    save(root / "waving" / "b.npy", clip(0, persons=3))


def loose(root: Path) -> None:
    save(root / "b.npy", clip(0))


def ghost(root: Path) -> None:
    (root / "labels.csv").write_text("clip,label\na,waving\nghost,waving\n")


def wrong_first(root: Path) -> None:
    (root / "labels.csv").write_text("clip,label,first\na,waving,soon\n")


FAULTS = {
    "npz without keypoints": (bad_npz, r"b\.npz has no entry keypoints, only pose"),
    "torn npz": (torn, r"b\.npz cannot be read"),
    "scores of other joints": (wrong_scores, r"b\.npz: score has shape \(9, 16\)"),
    "unknown class": (unknown_class, r"clip wavin/b: No class is called 'wavin'\. Did you mean 'waving'\?"),
    "no axis of joints": (shapeless, r"b\.npy has shape \(3, 17\)"),
    "three persons": (three, r"Clip waving/b has 3 persons, dataset\.persons=1"),
    "clip without class": (loose, r"Clip b has no label"),
    "label without clip": (ghost, r"labels\.csv gives ghost a label, but there is no such clip.*missing=drop"),
    "no number": (wrong_first, r"Clip a: width, height, fps or first is no number"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gets_its_sentence(tmp_path: Path, name: str) -> None:
    change, sentence = FAULTS[name]
    save(tmp_path / "waving" / "a.npy", clip(0))
    change(tmp_path)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)
    found: list[DataError] = []
    if name != "no number":
        assert len(clip_folder.read(tmp_path, report=found.append, **options())) == 1
        assert len(found) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,class\na,waving\n", r"its first line is 'name,class'; expected clip,label"),
        ("clip,label\na,waving\na,sitting\n", r"names a twice"),
        ("clip,label\nx,waving\n", r"names x, and there are one/x and two/x"),
    ],
)
def test_a_bad_table_gets_its_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    for name in ("a", "one/x", "two/x"):
        save(tmp_path / f"{name}.npy", clip(0))
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


def test_nothing_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No clips found in .*Expected <class>/<clip>\.npy"):
        clip_folder.files(tmp_path / "absent", **options())
    save(tmp_path / "a.npy", clip(0))
    with pytest.raises(DataError, match=r"mine\.csv not found"):
        read(tmp_path, labels="mine.csv")


def test_a_clip_in_another_class_or_a_renumbered_class_is_read_anew(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    for i, name in enumerate(CLASSES):
        save(root / name / f"{i}.npy", clip(i))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    words = [
        "dataset=clip_folder",
        f"dataset.root={root}",
        "dataset.num_classes=3",
        f"paths.cache_dir={tmp_path / 'c'}",
    ]

    def labels() -> list[int]:
        found: list[int] = make(compose(words).dataset, _recursive_=False).sequences.table["label"].tolist()
        return found

    assert labels() == [0, 2, 1]
    (root / "waving" / "1.npy").rename(root / "sitting" / "1.npy")
    assert labels() == [0, 2, 2]
    (root / "classes.txt").write_text("\n".join(reversed(CLASSES)))
    assert labels() == [2, 0, 0]


def test_the_data_set_opens(tmp_path: Path) -> None:
    for i, name in enumerate(CLASSES):
        save(tmp_path / name / "a.npy", clip(i))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    words = [f"dataset.root={tmp_path}", "dataset.num_classes=3", f"paths.cache_dir={tmp_path / 'cache'}"]
    data = make(compose(["dataset=clip_folder", *words]).dataset, _recursive_=False)
    assert data.sequences.table["label"].tolist() == [0, 2, 1]
    assert data.spec.classes == CLASSES
