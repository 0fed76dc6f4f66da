"""mode=predict with a network that has a trajectory: poses in camera space, offline, in blocks and as a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import compose
from kinema.core.skeleton import Skeleton, skeleton
from kinema.errors import ConfigError
from kinema.inference.flip import flip_average
from kinema.inference.slide import pad_edges
from kinema.inference.trajectory import Placed, separated
from kinema.modes import predict, render
from kinema.modes.train import build
from tests.checkpoints import tiny
from tests.modes.test_predict import keypoints, words

BODY, ROOT = skeleton("h36m17"), Skeleton("root", ("root",), (-1,), (), ())


def network(**changes: Any) -> Any:
    return tiny.build("videopose3d", num_joints=17, num_joints_out=17, **changes)


def run(tmp_path: Path, model: Any, *overrides: str, length: int = 50) -> tuple[np.ndarray, dict[str, Any]]:
    """Predicted poses, and what the file says that they mean."""
    path = tiny.save(tiny.lightning(model), tmp_path / "model.ckpt")
    np.save(tmp_path / "walk.npy", keypoints(length))
    output = tmp_path / "out.npz"
    predict.run(
        compose(
            words(
                tmp_path, path, tmp_path / "walk.npy", f"predict.output={output}", "predict.layout=h36m17", *overrides
            )
        )
    )
    with np.load(output) as file:
        (name,) = [name for name in file.files if name.startswith("pose3d/")]
        return np.asarray(file[name]), json.loads(str(file["meta"]))


def by_hand(model: Any, length: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """The pose and the path (T, 1, 3), each from its own network with its own flip averaging."""
    model.eval()
    pixels = torch.from_numpy(keypoints(length))[None]
    pose = pad_edges(pixels / 1000 * 2 - 1, model.signature.context)
    alone, twin = separated(model)
    with torch.inference_mode():
        return tuple(
            flip_average(net.slide, pose, BODY, body)[0].numpy() for net, body in ((alone, BODY), (twin, ROOT))
        )


@pytest.mark.parametrize("causal", [False, True])
def test_a_trajectory_is_added_and_the_file_says_so(tmp_path: Path, causal: bool) -> None:
    model = network(trajectory=True, causal=causal)
    pose, path = by_hand(model)
    found, meaning = run(tmp_path, model)
    np.testing.assert_allclose(found, pose + path, rtol=1e-4, atol=1e-3)
    assert meaning["origin"] == "camera"
    relative, meaning = run(tmp_path, model, "predict.trajectory=false")
    np.testing.assert_allclose(relative, pose, rtol=1e-4, atol=1e-3)
    assert meaning["origin"] == "root joint of each frame"
    streamed, _ = run(tmp_path, model, "predict.stream=true")
    np.testing.assert_allclose(streamed, found, rtol=1e-4, atol=1e-3)


def test_blocks_give_what_the_whole_gives(tmp_path: Path) -> None:
    model = network(trajectory=True)
    np.testing.assert_allclose(run(tmp_path, model, length=211)[0], sum(by_hand(model, 211)), rtol=1e-4, atol=1e-3)


def test_a_network_without_a_trajectory_stays_relative_and_says_why_it_cannot(tmp_path: Path) -> None:
    model = network()
    pose, meaning = run(tmp_path, model)
    assert meaning["origin"] == "root joint of each frame"
    with pytest.raises(ConfigError, match=r"no trajectory network.*predict\.trajectory=false"):
        run(tmp_path, model, "predict.trajectory=true")
    np.testing.assert_array_equal(run(tmp_path, model, "predict.trajectory=false")[0], pose)


def test_a_file_whose_trajectory_is_none_is_a_pose_network(tmp_path: Path) -> None:
    """VideoPose3D's own script cannot read back what it wrote without semi-supervision."""
    model = network()
    content = {"epoch": 1, "lr": 0.1, "random_state": None, "optimizer": None, "model_pos": model.state_dict(),
               "model_traj": None, "random_state_semi": None}  # fmt: skip
    path = tiny.save(content, tmp_path / "official.bin")
    np.save(tmp_path / "walk.npy", keypoints(20))
    output = tmp_path / "out.npz"
    predict.run(
        compose(words(tmp_path, path, tmp_path / "walk.npy", f"predict.output={output}", "predict.layout=h36m17"))
    )
    with np.load(output) as file:
        assert json.loads(str(file["meta"]))["origin"] == "root joint of each frame"


def test_coco_keypoints_are_lifted_by_the_official_layout_with_a_trajectory(tmp_path: Path) -> None:
    """pretrained_h36m_detectron_coco.bin: 17 COCO points in, 17 Human3.6M joints and a path out."""
    model = network(trajectory=True).eval()
    states = {"": {}, "trajectory.": {}}
    for name, tensor in model.state_dict().items():
        prefix = "trajectory." if name.startswith("trajectory.") else ""
        states[prefix][name.removeprefix(prefix)] = tensor
    content = {"epoch": 1, "lr": 0.1, "random_state": None, "optimizer": None, "model_pos": states[""],
               "model_traj": states["trajectory."], "random_state_semi": None}  # fmt: skip
    path = tiny.save(content, tmp_path / "pretrained_h36m_detectron_coco.bin")
    np.save(tmp_path / "walk.npy", keypoints(30))
    coco = ["dataset.skeleton2d=coco17", "predict.layout=coco17", f"predict.output={tmp_path / 'out.npz'}"]
    predict.run(compose(words(tmp_path, path, tmp_path / "walk.npy", *coco)))
    pixels = torch.from_numpy(keypoints(30))[None]
    pose = pad_edges(pixels / 1000 * 2 - 1, model.signature.context)
    with torch.inference_mode():
        wanted = flip_average(Placed(model).slide, pose, skeleton("coco17"), BODY)[0]
    with np.load(tmp_path / "out.npz") as file:
        (name,) = [name for name in file.files if name.startswith("pose3d/")]
        np.testing.assert_allclose(file[name], wanted.numpy(), rtol=1e-4, atol=1e-3)
        meaning = json.loads(str(file["meta"]))
    assert meaning["origin"] == "camera" and meaning["joints"] == list(BODY.joints)


def test_one_network_of_two_shares_weights_and_mode() -> None:
    model = network(trajectory=True).eval()
    placed = Placed(model)
    assert not placed.training and not placed.signature.trajectory
    assert {id(p) for p in placed.parameters()} == {id(p) for p in model.parameters()}
    pose = torch.rand(2, model.signature.frames, 17, 2)
    alone, twin = separated(model)
    torch.testing.assert_close(placed(pose), alone(pose) + twin(pose))


def test_a_drawing_of_absolute_poses_has_the_path_in_it() -> None:
    config = compose(
        ["dataset=synthetic", "dataset.reader_options.frames=30", "dataset.reader_options.actions=[walk]",
         "dataset.cache_dir=null", "model.channels=8", "model.trajectory=true", "task.target=absolute"]
    )  # fmt: skip
    _, data, task = build(config)
    with torch.no_grad():
        task.model.trajectory.shrink.bias[2] = 7.0
    drawn = render.predict(task, data, data.sequences, 0)
    assert drawn.path is None and drawn.pose[..., 2].mean() == pytest.approx(7, abs=1.5)
