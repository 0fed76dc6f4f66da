"""Bad clips, lists, checkpoints and scores through the command line: the sentence, its remedy, and nothing lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.composition import compose, make
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import Body
from tests.e2e.running import in_process, metrics, refused
from tests.e2e.test_action import CLASSES, DST, GCN, best

TRAIN = ["task=action", "trainer=cpu", "trainer.max_epochs=1", "dataset.batch_size=6", "logger=none"]
SPLITS = {"train": 4, "test": 2}  # clips of each class


def motion(seed: int, frames: int = 24) -> np.ndarray:
    random = np.random.default_rng(seed)
    return perform(CLASSES[seed % 3], Body.draw(random), random, frames, 50.0).astype(np.float32)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three classes in the layout of MA-52."""
    root = tmp_path_factory.mktemp("clean")
    seed = 0
    for split, count in SPLITS.items():
        lines = []
        for label in range(3):
            for number in range(count):
                name = f"{split}_{label}_{number}"
                (root / split / name).mkdir(parents=True)
                np.save(root / split / name / "pose_3d.npy", motion(3 * seed + label))
                lines.append(f"{name} {label}")
                seed += 1
        (root / f"{split}_labels.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def trained(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on the clean clips."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        in_process(*TRAIN, *GCN, *data(clean), f"hydra.run.dir={folder}/run")
    return folder / "run"


@pytest.fixture
def root(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the clean clips, to be damaged."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(clean, tmp_path / "clips"))


def data(root: Path, dataset: str = "cmu_actions") -> list[str]:
    return [
        f"dataset={dataset}", f"dataset.root={root}", f"dataset.classes=[{','.join(CLASSES)}]",
        "dataset.num_classes=3", "dataset.validation.by=clip", "dataset.validation.share=0.25",
        "dataset.split_val=null", "dataset.split_test=test", f"paths.cache_dir={root.parent}/cache",
    ]  # fmt: skip


def modes(root: Path, trained: Path) -> dict[str, list[str]]:
    """What stands on the command line in each mode."""
    return {
        "train": [*TRAIN, *GCN, *data(root)],
        "test": ["mode=test", *TRAIN, *GCN, *data(root), f"ckpt={best(trained)}"],
        "doctor": ["mode=doctor", *data(root)],
    }


def array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, str], None]:
    """Damage the array of one clip."""

    def damage(root: Path, split: str) -> None:
        path = root / split / f"{split}_1_0" / "pose_3d.npy"
        np.save(path, change(np.load(path)))

    return damage


def lines(change: Callable[[str], str]) -> Callable[[Path, str], None]:
    """Damage the label list of a split."""

    def damage(root: Path, split: str) -> None:
        path = root / f"{split}_labels.txt"
        path.write_text(change(path.read_text()))

    return damage


def torn(root: Path, split: str) -> None:
    path = root / split / f"{split}_1_0" / "pose_3d.npy"
    path.write_bytes(path.read_bytes()[:-500])


def without_array(root: Path, split: str) -> None:
    (root / split / f"{split}_1_0" / "pose_3d.npy").unlink()


def without_list(root: Path, split: str) -> None:
    (root / f"{split}_labels.txt").unlink()


def with_hole(pose: np.ndarray) -> np.ndarray:
    pose[5, 3] = np.nan
    return pose


# Fault: damage, what is said, the remedy in the same sentence that lets the run go on (None = mend the data).
FAULTS: dict[str, tuple[Callable[[Path, str], None], str, str | None]] = {
    "id too large": (
        lines(lambda text: text.replace("_1_0 1", "_1_0 3")),
        "_1_0 has label 3, but 3 classes have the ids 0 to 2. Correct the label list", None,
    ),
    "id negative": (
        lines(lambda text: text.replace("_1_0 1", "_1_0 -2")),
        "_1_0 has label -2; ids count from 0. Correct the label list", None,
    ),
    "id no number": (
        lines(lambda text: text.replace("_1_0 1", "_1_0 wave")),
        "_labels.txt, line 5: 'wave' is no class id. Every line is `name id`", None,
    ),
    "label without clip": (
        lines(lambda text: text + "ghost 1\n"), "_labels.txt gives ghost a label, but there is no such clip.",
        "dataset.reader_options.missing=drop",
    ),
    "folder without array": (
        without_array, "_1_0 holds no pose_3d.npy. Put it there", "dataset.reader_options.missing=drop",
    ),
    "clip without label": (
        lines(lambda text: "".join(line for line in text.splitlines(True) if "_1_0" not in line)),
        "_1_0 has no label. Write it into the label list", "dataset.unlabeled=drop",
    ),
    "planar": (
        array(lambda pose: pose * np.float32([1, 1, 0])), "_1_0 is flat: its joints extend in two directions only",
        "dataset.reader_options.flat=keep",
    ),
    "no frame": (array(lambda pose: pose[:0]), "_1_0 is empty: no frame. Make it again, or remove it", None),
    "only zeros": (array(np.zeros_like), "_1_0 is empty: only zeros. Make it again, or remove it", None),
    "one frame": (array(lambda pose: pose[:1]), "_1_0 has 1 frame, dataset.min_frames=2.", "dataset.min_frames=1"),
    "joints": (
        array(lambda pose: pose[:, :16]),
        "_1_0 has shape (1, 24, 16, 3) (persons, frames, joints, coordinates), but h36m17", None,
    ),
    "coordinates": (array(lambda pose: pose[..., :2]), "_1_0 has shape (1, 24, 17, 2)", None),
    "NaN": (array(with_hole), "_1_0: 1 of 24 frames hold NaN (first 5). Repair the file", "dataset.on_nan=mask"),
    "three persons": (
        array(lambda pose: np.stack([pose, pose + 1, pose + 2])), "_1_0 has 3 persons, dataset.persons=1.",
        "dataset.surplus=drop",
    ),
    "torn file": (torn, "pose_3d.npy cannot be read", None),
    "no numbers": (array(lambda pose: np.array(["wave"])), "pose_3d.npy holds no numbers. It must be", None),
}  # fmt: skip


def two_ids(root: Path, split: str) -> None:
    lines(lambda text: text + f"{split}_1_0 2\n")(root, split)


FAULTS["two ids"] = (two_ids, "_1_0 two different ids. Give every clip one", "dataset.reader_options.disputed=last")
# Every mode opens the same store; these stand for the rest in mode=test.
IN_TEST = ("label without clip", "NaN", "torn file")


@pytest.mark.parametrize(
    ("mode", "fault"),
    [(mode, fault) for mode in ("train", "doctor") for fault in FAULTS] + [("test", fault) for fault in IN_TEST],
)
def test_a_fault_is_told_with_its_remedy(
    fault: str, mode: str, root: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, sentence, remedy = FAULTS[fault]
    damage(root, "test" if mode == "test" else "train")
    said = refused(capsys, *modes(root, trained)[mode])
    assert sentence in said
    assert remedy is None or remedy in said
    if mode == "doctor":
        assert said.startswith("doctor found 1 fault in dataset=cmu_actions. First: ")
    assert not list((root.parent / "cache").glob("*/*.npy"))  # a store with faults is not kept


@pytest.mark.parametrize("fault", [name for name, (_, _, remedy) in FAULTS.items() if remedy])
def test_the_remedy_that_is_told_works(fault: str, root: Path, trained: Path) -> None:
    damage, _, remedy = FAULTS[fault]
    assert remedy is not None
    damage(root, "test")
    in_process(*modes(root, trained)["test"], remedy, "callbacks.figures=null", "hydra.run.dir=out")
    assert 0 <= metrics(Path("out"))["test/top1"] <= 100


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that ends well; returns what it told on the way."""
    capsys.readouterr()
    in_process(*words, "callbacks.figures=null", "hydra.run.dir=well")
    return capsys.readouterr().err


def test_a_class_without_clips_is_told_and_is_a_fault_to_the_doctor(
    root: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in SPLITS:
        lines(lambda text: text.replace(" 2", " 1"))(root, split)
    said = told(capsys, *modes(root, trained)["train"])
    assert "No training clip shows wave. They cannot be learnt: add clips, or take them out of dataset.classes" in said
    assert "No test clip shows wave. They are in no score but the strict ones." in said
    said = refused(capsys, *modes(root, trained)["doctor"])
    assert "1 fault" in said
    assert "classes: train: 1 of 3 classes have no clip: wave. Add clips, or take these classes out of" in said


def test_a_clip_in_both_splits_is_a_fault_to_the_doctor(
    root: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "train" / "train_1_0", root / "test" / "train_1_0")
    lines(lambda text: text + "train_1_0 1\n")(root, "test")
    said = refused(capsys, *modes(root, trained)["doctor"])
    assert "overlap: 1 clip in train and in test: train_1_0. Remove them from one of the lists." in said


def test_one_name_for_two_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "clips"
    for i, folder in enumerate(("a", "b")):
        (root / folder).mkdir(parents=True)
        np.save(root / folder / "one.npy", motion(i))
    words = [*TRAIN, *GCN, *data(root, "clip_folder")]
    (root / "labels.csv").write_text("clip,label\none,walk\n")
    assert "names one, and there are a/one and b/one. Write the name with its folder." in refused(capsys, *words)
    (root / "labels.csv").write_text("clip,label\na/one,walk\na/one,jump\nb/one,jump\n")
    assert "labels.csv names a/one twice. Give every clip one label." in refused(capsys, *words)
    (root / "labels.csv").write_text("clip,label\na/one,walk\nb/one,jmp\n")
    assert "labels.csv, clip b/one: " in (said := refused(capsys, *words))
    assert "The classes are those of dataset.classes." in said


def test_splits_that_are_not_there(root: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = modes(root, trained)
    here = "holds the splits test, train."
    assert f"{here} Use dataset.split_train=NAME." in refused(capsys, *words["train"], "dataset.split_train=trian")
    said = refused(capsys, *words["train"], "dataset.split_val=vall")
    assert f"{here} Cut clips from training: dataset.split_val=null dataset.validation.by=clip" in said
    assert f"{here} Use dataset.split_test=NAME." in refused(capsys, *words["test"], "dataset.split_test=tset")
    said = told(capsys, *words["train"], "dataset.split_test=tset")
    assert "Nothing is tested: no clip is of dataset.split_test=tset; the splits here are test, train." in said


@pytest.fixture
def withheld(root: Path) -> Path:
    """The same clips with test clips as MA-52 publishes them."""
    shutil.rmtree(root / "test")
    for number in range(4):
        (root / "test" / f"test{number:04d}").mkdir(parents=True)
        np.save(root / "test" / f"test{number:04d}" / "pose_3d.npy", motion(90 + number))
    (root / "test_labels.txt").write_text("".join(f"test{number:04d}.mp4 0\n" for number in range(4)))
    return root


def test_withheld_labels_leave_scores_and_no_numbers(
    withheld: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = modes(withheld, trained)
    assert "labels of the test split are withheld: mode=submit writes predictions" in told(capsys, *words["train"])
    assert "test/top1" not in metrics(Path("well"))
    said = told(capsys, *words["test"])
    assert "The labels of these clips are withheld, so nothing is scored. Use mode=submit input=" in said
    assert len(np.load("well/predictions/report.npz")["names"]) == 4


def test_withheld_labels_are_no_validation_and_no_training(
    withheld: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = modes(withheld, trained)["train"]
    for choice in ("dataset.selection=test", "dataset.split_val=test"):
        said = refused(capsys, *words, choice)
        assert "has withheld labels for all clips to validate on. Cut clips from training instead" in said
    said = refused(capsys, *words, "dataset.split_train=[train,test]")
    assert "Clip test0000 has no label, and training needs one." in said
    assert "dataset.unlabeled=drop" in said
    told(capsys, *words, "dataset.split_train=[train,test]", "dataset.unlabeled=drop")
    said = refused(capsys, *words, "dataset.split_train=test", "dataset.unlabeled=drop")
    assert "No training clip of dataset=cmu_actions has a label." in said


def published(path: Path, *, fork: bool) -> Path:
    """A file as the MA-52 fork writes it, or as MotionBERT does, which keeps no scheduler."""
    model = make(compose(["task=action", *DST, "model.num_classes=3", "model.persons=2"]).model)
    content = {
        "epoch": 1, "lr": [1e-5, 8e-5], "optimizer": {"state": {}, "param_groups": []}, "best_acc": 0,
        "model": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
    }  # fmt: skip
    torch.save(content | ({"scheduler": {"last_epoch": 1}} if fork else {}), path)
    return path


def test_published_checkpoints_on_corrected_data_and_the_other_way_round(
    root: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ["mode=test", *TRAIN]
    fork, upstream = published(Path("fork.bin"), fork=True), published(Path("upstream.bin"), fork=False)
    said = refused(capsys, *test, *data(root), f"ckpt={fork}")
    assert "fork.bin was trained with the preprocessing 'ma52_fork', dataset=cmu_actions uses 'heading'." in said
    assert "Use dataset=ma52_fork with your dataset.root=" in said
    assert (
        0
        <= run_test(*test, *data(root, "ma52_fork"), f"ckpt={fork}", "dataset.frames=16", "task.protocol=action")
        <= 100
    )

    said = refused(capsys, *test, *data(root), f"ckpt={upstream}")
    assert "was trained with the preprocessing 'ntu_compat'" in said
    assert "That takes points of 2 coordinates, which this data has not. Use dataset=ntu60_compat." in said

    said = refused(capsys, *test, *data(root, "ma52_fork"), f"ckpt={best(trained)}")
    assert "was trained with the preprocessing 'heading', dataset=ma52_fork uses 'ma52_fork'." in said
    assert "Use dataset.preprocess=heading." in said


def run_test(*words: str) -> float:
    in_process(*words, "callbacks.figures=null", "hydra.run.dir=tested")
    return float(metrics(Path("tested"))["test/top1"])


def test_a_checkpoint_is_tested_and_resumed_on_data_of_its_kind_only(
    root: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = trained / "checkpoints" / "last.ckpt"
    resume = [*TRAIN, *GCN, *data(root), "trainer.max_epochs=2", f"resume={last}"]
    for words in (modes(root, trained)["test"], resume):
        said = refused(capsys, *words, "dataset.preprocess=heading_path")
        assert "was trained with the preprocessing 'heading'" in said
        assert "Use dataset.preprocess=heading." in said
        assert "Use dataset.stream=joint." in refused(capsys, *words, "dataset.stream=bone")
        said = refused(capsys, *words, "dataset.classes=[walk,wave,jump]")
        assert "was trained on another class list: 1 is 'jump' there and 'wave' in dataset.classes." in said
        assert "Use 'dataset.classes=[walk,jump,wave]'" in said
    in_process(*resume, "callbacks.figures=null", "hydra.run.dir=resumed")
    assert "test/top1" in metrics(Path("resumed"))


def test_scores_of_another_class_list_are_not_fused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with np.load(trained / "predictions" / "report.npz") as file:
        scores = {name: file[name] for name in file.files}
    np.savez("foreign.npz", **{**scores, "classes": np.array(["walk", "jump", "swim"])})
    words = ["mode=fuse", f"fuse.inputs={{ours:{trained},theirs:foreign.npz}}"]
    said = refused(capsys, *words)
    assert "The class list of theirs (foreign.npz) is another one than that of ours: 1 (wave) not in it." in said
    assert "Only streams with the same class list can be fused." in said
    np.savez("fewer.npz", **{**scores, "names": scores["names"][:5], "labels": scores["labels"][:5],
                             "scores": scores["scores"][:5]})  # fmt: skip
    said = refused(capsys, "mode=fuse", f"fuse.inputs={{ours:{trained},theirs:fewer.npz}}")
    assert "were tested on different clips" in said


def test_another_number_of_classes_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *TRAIN, *GCN, *data(root), "dataset.num_classes=2")
    assert "dataset.num_classes=2, but dataset.classes names 3. Use dataset.num_classes=3." in said
    (root / "class_names.json").write_text('{"0": "walk", "1": "wave", "2": "jump"}')
    said = refused(capsys, *TRAIN, *GCN, *data(root))
    assert "class_names.json is another class list than dataset.classes: 1 is 'wave' there and 'jump' here." in said
