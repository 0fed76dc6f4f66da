"""Bad clips, lists, checkpoints and scores through the command line: the sentence, its remedy, and nothing lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import kinema
from kinema import cli
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import Body
from tests.e2e.running import in_process, metrics
from tests.e2e.test_action import BUILT_IN, CLASSES, GCN, best

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


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end with code 2 and one sentence; returns the sentence, nothing else was left behind."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["run.py", *words, "hydra.run.dir=out"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    told = capsys.readouterr().err
    assert stopped.value.code == 2, told
    assert "Traceback" not in told
    assert not list(Path("out").rglob("*.ckpt"))
    (sentence,) = (line for line in told.splitlines() if line.startswith("error: "))
    return sentence.removeprefix("error: ")


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


@pytest.mark.parametrize("mode", ["train", "test", "doctor"])
@pytest.mark.parametrize("fault", FAULTS)
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
    assert not list((root.parent / "cache").glob("*/*.npy"))  # the store was not kept


@pytest.mark.parametrize("fault", [name for name, (_, _, remedy) in FAULTS.items() if remedy])
def test_the_remedy_that_is_told_works(fault: str, root: Path, trained: Path) -> None:
    damage, _, remedy = FAULTS[fault]
    assert remedy is not None
    damage(root, "test")
    in_process(*modes(root, trained)["test"], remedy, "hydra.run.dir=out")
    assert 0 <= metrics(Path("out"))["test/top1"] <= 100
