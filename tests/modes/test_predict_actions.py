"""mode=predict of task=action: what a test says of a clip, from files of any kind, with the checkpoint's own ways."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema import composition
from kinema.composition import compose
from kinema.errors import CheckpointError, ConfigError, DataError
from kinema.modes import lift, predict
from tests.checkpoints import tiny
from tests.checkpoints.test_action_layouts import SCHEDULER, net, saved
from tests.data.bodies import synthetic
from tests.data.clip_layouts import clip, save
from tests.data.keypoint_formats import FORMATS, SIZE
from tests.e2e.running import run as command
from tests.modes.action_networks import CLASSES, SMALL, lifter, trained


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("network") / "best.ckpt")


def run(folder: Path, network: Path, source: Path, *words: str) -> dict[str, Any]:
    """What the json file of a run says."""
    output = folder / "run"
    predict.run(
        compose(
            [
                "mode=predict", "task=action", f"ckpt={network}", f"input={source}", f"paths.output_dir={output}",
                *([] if any(word.startswith("predict.draw") for word in words) else ["predict.draw=false"]), *words,
            ]
        )
    )  # fmt: skip
    return dict(json.loads((output / "predictions" / "actions.json").read_text()))


def scores(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "run" / "predictions" / "report.npz") as file:
        return dict(zip(file["names"].tolist(), np.exp(file["scores"].astype(np.float64)), strict=True))


def points(layout: str) -> np.ndarray:
    pixels = synthetic(layout, frames=12)
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)


def test_a_folder_gets_the_probabilities_that_a_test_gives(tmp_path: Path, network: Path) -> None:
    root = tmp_path / "clips"
    for split, seeds in (("train", (1, 2, 3)), ("test", (4, 5))):
        for label, seed in enumerate(seeds):
            save(root / split / CLASSES[label] / f"{seed}.npy", clip(seed, frames=7 + 3 * seed))
    told = run(tmp_path, network, root / "test")
    found = scores(tmp_path)

    words = [f"ckpt={network}", f"dataset.root={root}", "dataset.cache_dir=null", "dataset.validation.by=null"]
    config = compose(["mode=test", "task=action", *SMALL, *words])
    model = composition.build_model(config)
    data = composition.build_data(config, model.signature)
    task = composition.build_task(config, model)
    windows = data.windows("test")
    with torch.inference_mode():
        wanted = {}
        for batch in data.test_dataloader():
            probabilities = task.predict(data.transform(batch)).exp()
            for row, one in zip(batch["index"].tolist(), probabilities, strict=True):
                clip_name = str(windows.sequences.table["clip"][max(row, 0)])
                wanted[clip_name.removeprefix("test/")] = one.numpy()
    assert len(wanted) == 2 and set(found) == set(wanted)
    for name, one in wanted.items():
        np.testing.assert_allclose(found[name], one, atol=1e-6)
    assert [entry["clip"] for entry in told["clips"]] == list(found)
    first = told["clips"][0]["classes"]
    assert first[0]["class"] == CLASSES[int(np.argmax(found[told["clips"][0]["clip"]]))]
    assert [entry["probability"] for entry in first] == sorted((entry["probability"] for entry in first), reverse=True)


def test_windows_of_a_long_clip_are_recognised_like_clips_of_their_own(tmp_path: Path, network: Path) -> None:
    long = np.concatenate([clip(1, frames=10), clip(2, frames=10), clip(3, frames=7)])
    np.save(tmp_path / "long.npy", long)
    words = ("predict.window=10", "predict.stride=10", "predict.fps=5", "predict.top=3")
    (told,) = run(tmp_path, network, tmp_path / "long.npy", *words)["clips"]
    assert [(one["first"], one["last"], one["start"], one["end"]) for one in told["windows"]] == [
        (0, 9, 0.0, 2.0), (10, 19, 2.0, 4.0), (17, 26, 3.4, 5.4),
    ]  # fmt: skip
    for one in told["windows"]:
        np.save(tmp_path / "part.npy", long[one["first"] : one["last"] + 1])
        (alone,) = run(tmp_path / "alone", network, tmp_path / "part.npy", "predict.top=3")["clips"]
        for first, second in zip(alone["classes"], one["classes"], strict=True):
            assert first["class"] == second["class"]
            assert first["probability"] == pytest.approx(second["probability"], abs=1e-5)  # other batch, other rounding
    with (tmp_path / "run" / "predictions" / "actions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["class_1"] for line in lines] == [one["classes"][0]["class"] for one in told["windows"]]
    assert [line["start"] for line in lines] == ["0.0", "2.0", "3.4"]


def test_a_file_of_two_persons_is_one_clip(tmp_path: Path) -> None:
    network = trained(tmp_path / "two.ckpt", "dataset.persons=2", "model.mask_persons=true")
    np.save(tmp_path / "one.npy", clip(1))
    np.save(tmp_path / "two.npy", np.stack([clip(1), clip(2)]))
    np.save(tmp_path / "same.npy", np.stack([clip(1), np.zeros_like(clip(1))]))
    one, two, same = (run(tmp_path, network, tmp_path / f"{name}.npy")["clips"][0] for name in ("one", "two", "same"))
    assert one["classes"] == same["classes"]
    assert one["classes"] != two["classes"]


def test_a_network_of_keypoints_reads_every_detector(tmp_path: Path) -> None:
    words = (
        "dataset.preprocess=pyskl_2d", "dataset.skeleton=coco17", "dataset.has_3d=false", "model.layout=coco",
        "dataset.transforms=[]",
    )  # fmt: skip
    network = trained(tmp_path / "flat.ckpt", *words)
    size = (f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}")
    found = []
    for name in ("openpose", "alphapose coco", "mmpose", "array coco17"):
        path = FORMATS[name][0](tmp_path, points)
        found.append(run(tmp_path, network, path, *size, "predict.layout=null")["clips"][0]["classes"])
    for one in found[1:]:
        assert [entry["class"] for entry in one] == [entry["class"] for entry in found[0]]
        gaps = [abs(a["probability"] - b["probability"]) for a, b in zip(one, found[0], strict=True)]
        assert max(gaps) < 0.02  # BODY_25 has its own middle of the hips
    with pytest.raises(DataError, match="size of the image"):
        run(tmp_path, network, tmp_path / "coco17.npy")


def test_keypoints_of_two_tracks_are_two_persons(tmp_path: Path) -> None:
    words = (
        "dataset.preprocess=pyskl_2d", "dataset.skeleton=coco17", "dataset.has_3d=false", "model.layout=coco",
        "dataset.transforms=[]", "dataset.persons=2",
    )  # fmt: skip
    network = trained(tmp_path / "flat.ckpt", *words)
    both = np.stack([points("coco17"), points("coco17") * (0.5, 0.5, 1)])
    people = [
        {
            "image_id": f"{frame}.jpg", "category_id": 1, "score": 2.0, "idx": person, "box": [0, 0, 9, 9],
            "keypoints": both[person, frame].reshape(-1).tolist(),
        }
        for frame in range(both.shape[1]) for person in range(2)
    ]  # fmt: skip
    (tmp_path / "people.json").write_text(json.dumps(people))
    np.save(tmp_path / "people.npy", both)
    size = (f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}")
    told = run(tmp_path, network, tmp_path / "people.json", *size, "predict.track=[0,1]")
    stacked = run(tmp_path, network, tmp_path / "people.npy", *size)
    assert told["clips"][0]["classes"] == stacked["clips"][0]["classes"]


def test_a_lifter_turns_keypoints_into_what_a_network_of_poses_takes(tmp_path: Path, network: Path) -> None:
    lifting = lifter(tmp_path / "lifter.ckpt")
    np.save(tmp_path / "seen.npy", points("h36m17"))
    size = (f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}")
    told = run(tmp_path, network, tmp_path / "seen.npy", f"predict.lifter={lifting}", *size)
    words = ["mode=predict", "dataset=custom", f"ckpt={lifting}", f"input={tmp_path / 'seen.npy'}", *size]
    predict.run(compose([*words, f"paths.output_dir={tmp_path / 'lifted'}"]))
    poses = tmp_path / "lifted" / "predictions" / "predictions.npz"
    again = run(tmp_path, network, poses)
    assert told["clips"][0]["classes"] == again["clips"][0]["classes"]
    assert told["clips"][0]["frames"] == 12


def test_the_command_line_lifts_names_and_says_what_was_left_out(tmp_path: Path, network: Path) -> None:
    """As a user types it: the run's folder comes from Hydra, and the lifter is composed beside it."""
    lifting = lifter(tmp_path / "lifter.ckpt")
    save(tmp_path / "seen" / "good.npy", points("h36m17"))
    save(tmp_path / "seen" / "nobody.npy", np.zeros((9, 17, 3), np.float32))
    words = [
        "mode=predict", "task=action", f"ckpt={network}", f"input={tmp_path / 'seen'}", f"predict.lifter={lifting}",
        f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}", f"hydra.run.dir={tmp_path}/run",
    ]  # fmt: skip
    ended = command(*words, cwd=tmp_path, check=False)
    assert ended.returncode == 2, ended.stderr[-3000:]
    assert "error: 1 of 2 clips were left out" in ended.stderr and "actions.json" in ended.stderr
    told = json.loads((tmp_path / "run" / "predictions" / "actions.json").read_text())
    assert [one["clip"] for one in told["clips"]] == ["good"]
    assert [one["clip"] for one in told["left_out"]] == ["nobody"]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "failed"


def test_lifted_poses_are_set_upright_for_networks_of_a_room(tmp_path: Path) -> None:
    network = trained(tmp_path / "room.ckpt", "dataset.preprocess=heading")
    lifting = lifter(tmp_path / "lifter.ckpt")
    np.save(tmp_path / "seen.npy", points("h36m17"))
    size = (f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}")
    told = run(tmp_path, network, tmp_path / "seen.npy", f"predict.lifter={lifting}", *size)
    words = ["mode=predict", "dataset=custom", f"ckpt={lifting}", f"input={tmp_path / 'seen.npy'}", *size]
    predict.run(compose([*words, f"paths.output_dir={tmp_path / 'lifted'}"]))
    with np.load(tmp_path / "lifted" / "predictions" / "predictions.npz") as file:
        (pose,) = [file[name] for name in file.files if name.startswith("pose3d/")]
    np.save(tmp_path / "up.npy", np.stack([pose[..., 0], pose[..., 2], -pose[..., 1]], -1))
    assert run(tmp_path, network, tmp_path / "up.npy")["clips"][0]["classes"] == told["clips"][0]["classes"]


def test_clips_of_mode_lift_are_set_upright_as_their_record_says(tmp_path: Path) -> None:
    network = trained(tmp_path / "room.ckpt", "dataset.preprocess=heading")
    lifting = lifter(tmp_path / "lifter.ckpt")
    save(tmp_path / "seen" / "test" / "a.npy", points("h36m17"))
    size = (f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}")
    told = []
    for axes in ("camera", "up"):
        out = tmp_path / axes
        words = [f"ckpt={lifting}", f"input={tmp_path / 'seen'}", f"lift.output={out}", f"lift.axes={axes}", *size]
        paths = f"paths.output_dir={tmp_path / 'lift'}"
        lift.run(compose(["mode=lift", "dataset=custom", "lift.workers=1", paths, *words]))
        told += [run(tmp_path, network, out)["clips"], run(tmp_path, network, out / "test/a/pose_3d.npy")["clips"]]
    for (one,) in told:
        assert one["classes"] == told[0][0]["classes"]


def test_other_units_than_metres_are_told_where_metres_matter(
    tmp_path: Path, network: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = trained(tmp_path / "room.ckpt", "dataset.preprocess=heading")
    for name, scale in (("metres", 1.0), ("millimetres", 1000.0), ("twice", 0.001)):
        save(tmp_path / "clips" / f"{name}.npy", (scale * clip(1)).astype(np.float32))
    run(tmp_path, network, tmp_path / "clips")  # takes any unit
    assert "no metres" not in caplog.text
    run(tmp_path, room, tmp_path / "clips")
    said = [line for line in caplog.messages if "these are no metres" in line]
    assert [line.split()[0] for line in said] == ["millimetres", "twice"]
    meta = np.asarray(json.dumps({"fps": 50, "unit": "half image widths"}))
    np.savez(tmp_path / "image.npz", **{"pose3d/a": clip(1)}, meta=meta)
    run(tmp_path, room, tmp_path / "image.npz")
    assert "image is in half image widths: these are no metres" in caplog.text


def test_class_names_come_from_the_checkpoint(tmp_path: Path, network: Path) -> None:
    np.save(tmp_path / "one.npy", clip(1))
    told = run(tmp_path, network, tmp_path / "one.npy")
    assert tuple(told["classes"]) == CLASSES
    shared = trained(tmp_path / "ma52.ckpt", "dataset=ma52", "dataset.classes=ma52", "dataset.num_classes=52")
    best = run(tmp_path, shared, tmp_path / "one.npy")["clips"][0]["classes"][0]
    assert best["group"] in ("body", "head", "upper limb", "lower limb", "body-hand", "head-hand", "leg-hand")


def test_a_single_clip_is_drawn(tmp_path: Path, network: Path) -> None:
    np.save(tmp_path / "one.npy", clip(1))
    run(tmp_path, network, tmp_path / "one.npy", "predict.draw=null", "render.size=2.0")
    folder = tmp_path / "run" / "predictions"
    assert (folder / "one.png").stat().st_size > 5000
    assert (folder / "one.gif").read_bytes()[:6] == b"GIF89a"


FAULTS: dict[str, tuple[np.ndarray, str]] = {
    "joints": (clip(1, joints=16), "has 17 joints"),
    "nan": (np.where(np.arange(9)[:, None, None] == 4, np.nan, clip(1)), "1 of 9 frames hold NaN"),
    "one frame": (clip(1)[:1], "has 1 frame,"),
    "planar": (clip(1) * (1, 1, 0), "is flat"),
    "empty": (np.zeros((9, 17, 3)), "is empty: only zeros"),
    "no frame": (np.zeros((0, 17, 3)), "is empty"),
    "keypoints": (points("h36m17"), "predict.lifter="),
    "persons": (np.stack([clip(1), clip(2)]), "dataset.persons=1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_clip_that_cannot_be_gets_its_sentence(fault: str, tmp_path: Path, network: Path) -> None:
    array, sentence = FAULTS[fault]
    np.save(tmp_path / "clip.npy", array.astype(np.float32))
    with pytest.raises(DataError, match=sentence):
        run(tmp_path, network, tmp_path / "clip.npy")


def test_faulty_clips_of_a_folder_are_left_out_and_named(tmp_path: Path, network: Path) -> None:
    for name, array in (("good", clip(1)), ("flat", clip(1) * (1, 1, 0))):
        save(tmp_path / "clips" / name / "pose_3d.npy", array.astype(np.float32))
    with pytest.raises(DataError, match=r"1 of 2 clips were left out, all others are recognised"):
        run(tmp_path, network, tmp_path / "clips")
    told = json.loads((tmp_path / "run" / "predictions" / "actions.json").read_text())
    assert [one["clip"] for one in told["clips"]] == ["good"]
    assert [one["clip"] for one in told["left_out"]] == ["flat"] and "is flat" in told["left_out"][0]["reason"]
    (tmp_path / "clips" / "good" / "pose_3d.npy").unlink()
    with pytest.raises(DataError, match="is flat"):
        run(tmp_path, network, tmp_path / "clips")


def test_checkpoints_of_other_tasks_are_named_as_such(tmp_path: Path, network: Path) -> None:
    np.save(tmp_path / "one.npy", clip(1))
    lifting = lifter(tmp_path / "lifter.ckpt")
    with pytest.raises(CheckpointError, match="Use task=lifting"):
        run(tmp_path, lifting, tmp_path / "one.npy")
    with pytest.raises(ConfigError, match="Use task=action"):
        predict.run(compose(["mode=predict", "dataset=custom", f"ckpt={network}", f"input={tmp_path / 'one.npy'}",
                             f"paths.output_dir={tmp_path / 'run'}"]))  # fmt: skip
    with pytest.raises(CheckpointError, match=r"predict.lifter=.* was trained for task=action"):
        run(tmp_path, network, tmp_path / "one.npy", f"predict.lifter={network}")


def test_an_official_file_needs_the_name_of_its_data(tmp_path: Path, network: Path) -> None:
    np.save(tmp_path / "one.npy", clip(1))
    state = torch.load(network, weights_only=True)["state_dict"]
    bare = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    official = tmp_path / "epoch_16.pth"
    torch.save({"meta": {"epoch": 16}, "state_dict": bare}, official)
    with pytest.raises(ConfigError, match="does not say what it was trained on"):
        run(tmp_path, official, tmp_path / "one.npy")


def test_a_forks_checkpoint_gets_its_published_input(tmp_path: Path) -> None:
    """Prepared here step by step: one scale per axis, even frames, an empty second person, the crop of all persons."""
    network = net(
        backbone={"model": "dstformer", "args": tiny.DSTFORMER | {"num_joints": 17, "num_frames": 12, "num_heads": 4}},
        num_classes=52,
    )
    path = saved(tmp_path, network, scheduler=SCHEDULER)
    raw = clip(1, frames=20)
    np.save(tmp_path / "one.npy", raw)
    words = ("dataset=ma52_fork", "dataset.frames=12", "paths.data_dir=/nowhere")
    run(tmp_path, path, tmp_path / "one.npy", *words)

    centred = raw - raw[:, :1]
    pose = (centred / centred.std((0, 1)))[np.arange(12) * 20 // 12]
    both = np.stack([pose, np.zeros_like(pose)])
    seen = both[both[..., 2] != 0][:, :2]
    low, high = seen.min(0), seen.max(0)
    both[..., :2] = (both[..., :2] - (low + high) / 2) / (high - low).max()
    with torch.no_grad():
        wanted = network(torch.from_numpy(np.clip(both, -1, 1)).float()[None]).softmax(-1)[0]
    (found,) = scores(tmp_path).values()
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
    with pytest.raises(ConfigError, match="trained with the preprocessing 'ma52_fork'"):
        run(tmp_path, path, tmp_path / "one.npy", "dataset=ma52", *words[1:], "dataset.persons=2")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("predict.window=1",), "predict.window=1 is too short"),
        (("predict.stride=4",), "Use predict.window=4"),
        (("predict.window=4", "predict.stride=5"), "frames would be left out"),
        (("predict.top=0",), "Use predict.top=5"),
        (("predict.output=a.npz",), "must end in .json"),
    ],
)
def test_options_that_cannot_be_are_refused(
    words: tuple[str, ...], sentence: str, tmp_path: Path, network: Path
) -> None:
    np.save(tmp_path / "one.npy", clip(1))
    with pytest.raises(ConfigError, match=sentence):
        run(tmp_path, network, tmp_path / "one.npy", *words)


def test_another_stream_than_the_network_was_trained_on_is_refused(tmp_path: Path, network: Path) -> None:
    np.save(tmp_path / "one.npy", clip(1))
    with pytest.raises(ConfigError, match=r"Use dataset.stream=joint"):
        run(tmp_path, network, tmp_path / "one.npy", *SMALL[7:], "dataset.stream=bone")
