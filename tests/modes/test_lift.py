"""mode=lift: keypoint files become clips in the layout of MA-52, once, whole, and of one network."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.composition import compose
from kinema.errors import ConfigError, DataError
from kinema.modes import lift, predict, train
from tests.data.bodies import synthetic
from tests.data.keypoint_formats import FORMATS, SIZE
from tests.modes.action_networks import lifter

LENGTHS = {"train/a": 12, "train/b": 9, "val/c": 10}


def points(layout: str, frames: int = 12, action: str = "walk") -> np.ndarray:
    pixels = synthetic(layout, action, frames=frames)
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1).astype(np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lifter(tmp_path_factory.mktemp("network") / "lifter.ckpt")


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """Keypoints of three clips, with a list of labels."""
    root = tmp_path / "seen"
    for name, frames in LENGTHS.items():
        path = root / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, points("h36m17", frames))
    (root / "train_labels.txt").write_text("a 0\nb 1\n")
    return root


def run(tmp_path: Path, network: Path, source: Path, *words: str) -> Path:
    lift.run(
        compose(
            [
                "mode=lift", "dataset=custom", f"ckpt={network}", f"input={source}", f"lift.output={tmp_path / 'out'}",
                f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}", f"paths.output_dir={tmp_path / 'run'}",
                *([] if any(word.startswith("lift.workers") for word in words) else ["lift.workers=1"]), *words,
            ]
        )
    )  # fmt: skip
    return tmp_path / "out"


def test_every_file_becomes_what_predict_gives(tmp_path: Path, network: Path, seen: Path) -> None:
    out = run(tmp_path, network, seen)
    assert (out / "train_labels.txt").read_text() == "a 0\nb 1\n"
    for name, frames in LENGTHS.items():
        poses = np.load(out / name / "pose_3d.npy")
        assert poses.shape == (frames, 17, 3) and poses.dtype == np.float32
        words = [f"ckpt={network}", f"input={seen / name}.npy", f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}"]
        target = tmp_path / "one.npz"
        predict.run(compose(["mode=predict", "dataset=custom", *words, f"predict.output={target}",
                             f"paths.output_dir={tmp_path / 'predicted'}"]))  # fmt: skip
        with np.load(target) as file:
            (entry,) = [entry for entry in file.files if entry.startswith("pose3d/")]
            np.testing.assert_allclose(poses, file[entry], atol=1e-6)
    assert json.loads((out / "lifted.json").read_text())["axes"].startswith("camera: x right, y down")


def test_axes_up_turns_the_body_upright(tmp_path: Path, network: Path, seen: Path) -> None:
    camera = np.load(run(tmp_path, network, seen) / "train/a/pose_3d.npy")
    up = np.load(run(tmp_path, network, seen, "lift.axes=up", "lift.overwrite=true") / "train/a/pose_3d.npy")
    np.testing.assert_array_equal(up, np.stack([camera[..., 0], camera[..., 2], -camera[..., 1]], -1))


def test_a_stopped_run_goes_on_without_touching_what_is_done(tmp_path: Path, network: Path, seen: Path) -> None:
    out = run(tmp_path, network, seen)
    kept, lost = out / "train/a/pose_3d.npy", out / "val/c/pose_3d.npy"
    before, whole = kept.stat().st_mtime_ns, np.load(lost)
    lost.unlink()
    (seen / "train/a.npy").write_bytes(b"damaged since")  # never opened again
    run(tmp_path, network, seen)
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(np.load(lost), whole)
    assert not list(out.rglob(".*"))  # nothing half-written


def test_poses_of_another_network_are_not_mixed_in(tmp_path: Path, network: Path, seen: Path) -> None:
    run(tmp_path, network, seen)
    other = lifter(tmp_path / "other.ckpt", "dataset.fps=30")
    with pytest.raises(ConfigError, match="lifted with another network"):
        run(tmp_path, other, seen)
    with pytest.raises(ConfigError, match="another reading"):
        run(tmp_path, network, seen, "predict.max_gap=3")
    run(tmp_path, network, seen, "predict.max_gap=3", "lift.overwrite=true")


def test_files_that_cannot_be_lifted_are_listed_and_the_others_done(tmp_path: Path, network: Path, seen: Path) -> None:
    np.save(seen / "train" / "nobody.npy", np.zeros((9, 17, 3), np.float32))
    (seen / "train" / "text.json").write_text("not json")
    with pytest.raises(DataError, match="2 of 5 files could not be lifted"):
        run(tmp_path, network, seen)
    with (tmp_path / "run" / "failures.csv").open() as file:
        reasons = {Path(line["file"]).name: line["reason"] for line in csv.DictReader(file)}
    assert "no json file" in reasons["text.json"] and set(reasons) == {"text.json", "nobody.npy"}
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("pose_3d.npy")) == ["a", "b", "c"]


def test_folders_of_frames_and_files_of_videos_become_clips(tmp_path: Path, network: Path) -> None:
    root = tmp_path / "mixed"
    root.mkdir()
    FORMATS["openpose"][0](root, points)
    FORMATS["mmpose"][0](root, points)
    np.savez(root / "several.npz", first=points("h36m17"), second=points("h36m17", 9))
    out = run(tmp_path, network, root)
    found = {path.parent.relative_to(out).as_posix(): len(np.load(path)) for path in out.rglob("pose_3d.npy")}
    assert found.pop("openpose") == 12
    (several,) = [{k: v for k, v in found.items() if k.startswith("several/")}]
    assert sorted(several.values()) == [9, 12]
    assert len(found) == 3


@pytest.mark.slow
def test_processes_give_what_one_gives(tmp_path: Path, network: Path, seen: Path) -> None:
    alone = {name: np.load(run(tmp_path, network, seen) / name / "pose_3d.npy") for name in LENGTHS}
    out = run(tmp_path, network, seen, "lift.overwrite=true", "lift.workers=2")
    for name, poses in alone.items():
        np.testing.assert_allclose(np.load(out / name / "pose_3d.npy"), poses, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("ckpt=null",), "needs a lifting network"),
        (("input=null",), "needs a folder of keypoint files"),
        (("lift.output=null",), "needs a folder for the poses"),
        (("lift.axes=sideways",), "Use lift.axes=camera"),
        (("lift.workers=0",), "Use lift.workers=1"),
    ],
)
def test_options_that_cannot_be_are_refused(
    words: tuple[str, ...], sentence: str, tmp_path: Path, network: Path, seen: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(tmp_path, network, seen, *words)


def test_an_output_inside_the_input_is_refused(tmp_path: Path, network: Path, seen: Path) -> None:
    with pytest.raises(ConfigError, match="would be lifted itself"):
        run(tmp_path, network, seen, f"lift.output={seen / 'poses'}")


def test_keypoints_are_lifted_trained_on_and_recognised(tmp_path: Path, network: Path) -> None:
    """The whole way: a detector's files, 3D clips, a training step, class names."""
    root = tmp_path / "videos"
    labels: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(6):
        split, label = ("test" if number >= 4 else "train"), number % 2
        path = root / split / f"{number:04d}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, points("coco17", 10 + number, ("walk", "wave")[label]))
        labels[split].append(f"{path.stem} {label}")
    for split, lines in labels.items():
        (root / f"{split}_labels.txt").write_text("\n".join(lines) + "\n")
    poses = run(tmp_path, network, root, "predict.layout=coco17")
    small = [
        "model=stgcnpp", "model.dim=8", "model.depth=2", "model.inflate_stages=[2]", "model.down_stages=[2]",
        "model.num_frames=8", "dataset.frames=8",
    ]  # fmt: skip
    words = [
        "task=action", "dataset=ma52_fork", "dataset.preprocess=ma52", "dataset.persons=1", "dataset.transforms=[]",
        "dataset.classes=[walking,waving]", "dataset.num_classes=2", f"dataset.root={poses}", "dataset.batch_size=4",
        "dataset.reader_options.subject=null", "dataset.protocol=action", "dataset.cache_dir=null", *small,
        "trainer=cpu", "trainer.max_steps=1", "logger=none", f"paths.output_dir={tmp_path / 'trained'}",
    ]  # fmt: skip
    train.run(compose(words))
    (network_of_actions,) = (tmp_path / "trained" / "checkpoints").glob("last.ckpt")
    told = recognised(tmp_path, network_of_actions, root / "test" / "0004.npy", network)
    assert {entry["class"] for entry in told["clips"][0]["classes"]} == {"walking", "waving"}
    folder = recognised(tmp_path, network_of_actions, poses / "test", None)
    assert folder["clips"][0]["clip"] == "0004"
    for one, other in zip(folder["clips"][0]["classes"], told["clips"][0]["classes"], strict=True):
        assert one["class"] == other["class"] and abs(one["probability"] - other["probability"]) < 1e-5


def recognised(tmp_path: Path, network: Path, source: Path, lifting: Path | None) -> dict[str, Any]:
    words = ["mode=predict", "task=action", f"ckpt={network}", f"input={source}", "predict.draw=false"]
    if lifting is not None:
        words += [f"predict.lifter={lifting}", "predict.layout=coco17"]
        words += [f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}"]
    predict.run(compose([*words, f"paths.output_dir={tmp_path / 'recognised'}"]))
    return dict(json.loads((tmp_path / "recognised" / "predictions" / "actions.json").read_text()))
