"""mode=render for all kinds of data and networks: what published scripts break on is drawn, upright and in place."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kinema.composition import compose
from kinema.core.skeleton import skeleton
from kinema.core.spec import DataSpec
from kinema.data import transforms
from kinema.data.sequences import Sequences
from kinema.errors import KinemaError
from kinema.models.poseformer import PoseFormer
from kinema.models.poseformerv2 import PoseFormerV2
from kinema.models.videopose3d import VideoPose3D
from kinema.modes import render
from kinema.modes.render import Prediction, prepared
from kinema.tasks.lifting import LiftingTask
from kinema.viz import clip as clips
from kinema.viz.prepare import Clip
from kinema.viz.write import write
from tests.data import layouts, mpi_layout

H36M = skeleton("h36m17")
FRAMES = 12


def videopose3d(trajectory: bool = False, joints: int = 17) -> nn.Module:
    return VideoPose3D(
        num_joints=joints, num_joints_out=joints, in_channels=2, filter_widths=[3, 3], channels=8, dropout=0.0,
        causal=False, dense=False, trajectory=trajectory, root=0,
    )  # fmt: skip


def poseformer() -> nn.Module:
    return PoseFormer(
        num_frames=9, num_joints=17, in_channels=2, dim=8, depth=2, num_heads=8, mlp_ratio=2.0, qkv_bias=True,
        dropout=0.0, attn_dropout=0.0, drop_path=0.0,
    )  # fmt: skip


def poseformerv2() -> nn.Module:
    return PoseFormerV2(
        num_frames=9, num_joints=17, num_joints_out=17, in_channels=2, kept_frames=3, kept_coeffs=3, dim=8, depth=2,
        num_heads=8, mlp_ratio=2.0, qkv_bias=True, dropout=0.0, attn_dropout=0.0, drop_path=0.0,
    )  # fmt: skip


def stored(tmp_path: Path, model: nn.Module) -> str:
    """Override that loads a network from an official file."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    weights = model.state_dict()
    nested = {key.removeprefix("trajectory."): value for key, value in weights.items() if key.startswith("trajectory.")}
    plain = {key: value for key, value in weights.items() if not key.startswith("trajectory.")}
    path = tmp_path / "network.bin"
    torch.save({"epoch": 1, "model_pos": plain, "model_traj": nested or None}, path)
    return f"ckpt={path}"


def cmu(tmp_path: Path) -> list[str]:
    """Labelled, exact keypoints, a file without layout_name: what `-k gt` fails on."""
    made = layouts.layout({"test_C": ("walk 5",)}, FRAMES)
    made.metadata = {}
    made.save(tmp_path / "data", keypoints="gt")
    return ["dataset=cmu", "dataset.reader_options.keypoints=gt", "dataset.trials_val=[]"]


def custom(tmp_path: Path, size: tuple[int, int] = (640, 360), joints: int = 17) -> list[str]:
    """Unlabelled keypoints of a video whose speed is not known."""
    world = layouts.layout({"A": ("walk 1",)}, FRAMES)
    points = world.positions_2d["A"]["walk 1"][0][:, :joints] * np.float32(size[1] / 1002)
    made = {"clip.mp4": {"custom": [points]}}
    metadata = {
        "layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [[1], [2]],
        "video_metadata": {"clip.mp4": {"w": size[0], "h": size[1]}},
    }  # fmt: skip
    folder = tmp_path / "data"
    folder.mkdir()
    packed = {"positions_2d": np.array(made, dtype=object), "metadata": np.array(metadata, dtype=object)}
    np.savez(folder / "data_2d_custom_myvideos.npz", **packed)
    return ["dataset=custom"]


def humaneva(tmp_path: Path) -> list[str]:
    body = skeleton("humaneva15")
    rows = [H36M.joints.index(name) for name in body.joints]
    made = layouts.layout({"test_C": ("walk 5",)}, FRAMES)
    flat = made.positions_2d["test_C"]["walk 5"][:3]
    made.positions_3d = {"Validate/S1": {"Walking 1 chunk0": made.positions_3d["test_C"]["walk 5"][:, rows]}}
    made.positions_2d = {"Validate/S1": {"Walking 1 chunk0": [view[:, rows] for view in flat]}}
    made.metadata |= {"layout_name": "humaneva15", "num_joints": 15}
    made.save(tmp_path / "data", "humaneva15", "gt")
    return ["dataset=humaneva15", "dataset.actions=null", "dataset.subjects_test=[Validate/S1]"]


def mpi(tmp_path: Path) -> list[str]:
    mpi_layout.save(tmp_path / "data", mpi_layout.contents(FRAMES))
    return ["dataset=mpi_inf_3dhp", "dataset.preprocess=videopose3d", "render.subject=TS1"]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clip]:
    """Run the mode and return what it drew, after all files were written."""
    kept: list[Clip] = []
    write = render.write

    def keep(paths: Any, clip: Clip, *rest: Any) -> int:
        kept.append(clip)
        return write(paths, clip, *rest)

    monkeypatch.setattr(render, "write", keep)

    def run(*words: str) -> Clip:
        fixed = [
            "mode=render", f"paths.data_dir={tmp_path / 'data'}", "dataset.cache_dir=null", "render.size=1",
            f"paths.output_dir={tmp_path / 'run'}",
        ]  # fmt: skip
        fixed += [] if any("render.output=" in word for word in words) else [f"render.output={tmp_path / 'a.gif'}"]
        render.run(compose([*fixed, *words]))
        return kept[-1]

    return run


def upright_on_floor(pose: np.ndarray, low: str, high: str, joints: tuple[str, ...]) -> None:
    assert (pose[:, joints.index(high), 2] > pose[:, joints.index(low), 2] + 0.5).all()
    assert abs(pose[..., 2].min()) < 0.25


@pytest.mark.parametrize("network", [videopose3d, poseformer])
def test_labelled_data_of_every_lifter(drawn: Callable[..., Clip], tmp_path: Path, network: Any) -> None:
    clip = drawn(*cmu(tmp_path), stored(tmp_path, network()), "render.camera=1")
    truth, found = clip.poses["Ground truth"], clip.poses["Reconstruction"]
    assert found.shape == truth.shape == (FRAMES, 17, 3)
    upright_on_floor(truth, "left_ankle", "head", H36M.joints)
    assert clip.viewport == (1000, 1000)
    assert clip.fps == 50
    # The prediction stands where the truth stands: its root is the network's own, at most about a metre away.
    assert np.abs(found[:, 0] - truth[:, 0]).max() < 2


@pytest.mark.parametrize("network", [videopose3d, poseformer])
def test_unlabelled_data_without_a_video(drawn: Callable[..., Clip], tmp_path: Path, network: Any) -> None:
    clip = drawn(*custom(tmp_path), stored(tmp_path, network()))
    assert list(clip.poses) == ["Reconstruction"]
    assert clip.poses["Reconstruction"].shape == (FRAMES, 17, 3)
    assert clip.poses["Reconstruction"][..., 2].min() == pytest.approx(0, abs=1e-6)
    assert (clip.viewport, clip.azimuth, clip.fps) == ((640, 360), 70, 25)


def test_a_trajectory_moves_the_unlabelled_pose_and_its_export(drawn: Callable[..., Clip], tmp_path: Path) -> None:
    network = stored(tmp_path, videopose3d(trajectory=True))
    clip = drawn(*custom(tmp_path), network, f"render.export={tmp_path / 'a.npy'}")
    file = torch.load(tmp_path / "network.bin", weights_only=True)
    torch.save({**file, "model_traj": None}, tmp_path / "network.bin")
    still = drawn("dataset=custom", network, f"render.export={tmp_path / 'b.npy'}")
    apart = np.load(tmp_path / "a.npy") - np.load(tmp_path / "b.npy")
    assert np.abs(apart).max() > 1e-3
    np.testing.assert_allclose(apart, apart[:, :1].repeat(17, 1), atol=1e-5)  # one path for all joints
    roots = [made.poses["Reconstruction"][:, 0] - made.poses["Reconstruction"][:1, 0] for made in (clip, still)]
    assert np.abs(roots[0] - roots[1]).max() > 1e-4


def test_coco_keypoints_go_to_a_network_that_takes_them(drawn: Callable[..., Clip], tmp_path: Path) -> None:
    words = [*custom(tmp_path), "dataset.skeleton2d=coco17", stored(tmp_path, videopose3d())]
    clip = drawn(*words)
    given = np.load(tmp_path / "data" / "data_2d_custom_myvideos.npz", allow_pickle=True)["positions_2d"].item()
    np.testing.assert_allclose(clip.keypoints, given["clip.mp4"]["custom"][0], atol=1e-3)


def test_fifteen_joints_of_humaneva(drawn: Callable[..., Clip], tmp_path: Path) -> None:
    clip = drawn(*humaneva(tmp_path), stored(tmp_path, videopose3d(joints=15)), "render.camera=2")
    assert clip.poses["Reconstruction"].shape == (FRAMES, 15, 3)
    assert clip.keypoints.shape == (FRAMES, 15, 2)


def test_the_joint_order_of_mpi_inf_3dhp_in_image_units(drawn: Callable[..., Clip], tmp_path: Path) -> None:
    clip = drawn(*mpi(tmp_path), stored(tmp_path, videopose3d()))
    body = skeleton("mpi_inf_3dhp17")
    truth = clip.poses["Ground truth"]
    assert body.root == 14
    upright_on_floor(truth, "left_ankle", "head", body.joints)
    assert clip.azimuth == -70  # from the side of the camera


def test_poseformer_v2_draws_what_no_camera_is_known_of() -> None:
    task = LiftingTask(
        poseformerv2(), torch.optim.SGD, losses={"mpjpe": 1.0}, target="root_relative", flip_average=True,
        mask_invalid=False, chunk=4096, protocol="videopose3d", objective="val/mpjpe", objective_mode="min",
    )  # fmt: skip
    spec = DataSpec(
        skeleton=H36M, skeleton2d=H36M, in_channels=2, unit="m", space="camera", preprocess="videopose3d", fps=None,
        has_3d=False, tasks=frozenset(),
    )  # fmt: skip
    task.describe(spec=spec.to_dict(), config={})

    def transform(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return transforms.pose(batch, transforms.Draws(0, 0, *torch.zeros(2, 1)), channels=2, confidence=False)

    seen = np.random.default_rng(0).uniform(-1, 1, (FRAMES, 17, 2)).astype(np.float32)
    data = Sequences.from_arrays([{"pose2d": seen, "width": 640, "height": 360}], skeleton=H36M, skeleton2d=H36M)
    found = render.predict(task.eval(), SimpleNamespace(spec=spec, transform=transform), data, 0)
    clip = prepared(data, 0, found, "videopose3d", relative=True)
    assert clip.poses["Reconstruction"].shape == (FRAMES, 17, 3)
    assert clip.poses["Reconstruction"][..., 2].min() == pytest.approx(0, abs=1e-6)
    assert clip.fps is None


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
def test_seen_from_the_side_of_the_camera(cameras: bool, labelled: bool) -> None:
    """Whatever is known of the camera, the viewer sees left and right as the input shows them."""
    made = layouts.layout({"test_C": ("walk 5",)}, FRAMES)
    world = made.positions_3d["test_C"]["walk 5"]
    outer = made.cameras["extrinsics"]["test_C"][0]
    place = [np.asarray(outer[key], np.float32) for key in ("orientation", "translation")]
    seen = layouts.world_to_camera(world, *place)
    item = {"pose2d": seen[..., :2] / seen[..., 2:], "width": 1000, "height": 1000}
    if labelled:
        item["pose3d"] = seen
    if cameras:
        forward = world.mean((0, 1)) - place[1]
        azimuth = np.degrees(np.arctan2(-forward[1], -forward[0]))
        item |= {"orientation": place[0], "translation": place[1], "azimuth": np.float32(azimuth)}
    data = Sequences.from_arrays([item], skeleton=H36M, skeleton2d=H36M)
    clip = prepared(data, 0, Prediction(seen - seen[:, :1]), "videopose3d", relative=True)
    angle = np.radians(clip.azimuth)
    rightwards = np.array((-np.sin(angle), np.cos(angle), 0.0))  # of a viewer at this azimuth
    left, right = H36M.joints.index("left_shoulder"), H36M.joints.index("right_shoulder")
    in_image = (clip.keypoints[:, left] - clip.keypoints[:, right])[:, 0]
    for pose in clip.poses.values():
        in_view = (pose[:, left] - pose[:, right]) @ rightwards
        clear = np.abs(in_image) > 0.5 * np.abs(in_image).max()
        assert (np.sign(in_view[clear]) == np.sign(in_image[clear])).all()
        upright_on_floor(pose, "left_ankle", "head", H36M.joints)


def test_a_keypoint_file_is_drawn_without_a_data_set(drawn: Callable[..., Clip], tmp_path: Path) -> None:
    seen = layouts.layout({"A": ("walk 1",)}, FRAMES).positions_2d["A"]["walk 1"][0]
    np.save(tmp_path / "person.npy", seen)
    words = ["dataset=custom", f"input={tmp_path / 'person.npy'}", stored(tmp_path, poseformer())]
    clip = drawn(*words, "predict.layout=h36m17", "predict.width=1000", "predict.height=1002")
    np.testing.assert_allclose(clip.keypoints, seen, atol=1e-3)
    assert clip.viewport == (1000, 1002)
    assert clip.azimuth == -70


def test_predictions_of_other_networks_stand_beside(drawn: Callable[..., Clip], tmp_path: Path) -> None:
    words = [*cmu(tmp_path), stored(tmp_path, videopose3d()), "render.show_ground_truth=false"]
    own = tmp_path / "own.npy"
    alone = drawn(*words, f"render.export={own}")
    np.save(tmp_path / "other.npy", np.load(own) + np.float32(0.1))
    clip = drawn(*words, f"render.predictions={{mine: {own}, other: {tmp_path / 'other.npy'}}}")
    assert list(clip.poses) == ["Reconstruction", "mine", "other"]
    np.testing.assert_allclose(clip.poses["mine"], alone.poses["Reconstruction"], atol=1e-5)
    apart = np.linalg.norm(clip.poses["other"] - clip.poses["mine"], axis=-1)
    np.testing.assert_allclose(apart, 0.1 * np.sqrt(3), atol=1e-4)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (400, 100)
    np.save(tmp_path / "short.npy", np.load(own)[1:])
    for name, message in (("short.npy", r"shape \(11, 17, 3\), \(12, joints, 3\) expected"), ("none.npz", "no file")):
        with pytest.raises(KinemaError, match=message):
            drawn(*words, f"render.predictions={{other: {tmp_path / name}}}")


def peak(folder: Path, frames: int, files: tuple[str, ...], size: int = 1) -> int:
    """Bytes at most while a clip of so many frames over a video is drawn."""
    pose = np.random.default_rng(0).uniform(0, 1, (1, 17, 3)).astype(np.float32)
    still = np.broadcast_to(pose, (frames, 17, 3))
    clip = Clip(still[..., :2] * 400, {"Reconstruction": still}, (400, 400), fps=25.0)

    def video() -> Generator[np.ndarray, None, None]:
        for number in range(frames):
            yield np.full((400, 400, 3), number % 256, np.uint8)

    tracemalloc.start()
    try:
        paths = [folder / name for name in files]
        assert write(paths, clip, H36M, H36M, float(size), pictures=video()) == frames
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    files = ("a.gif", "a.png", "a.mp4") if clips.ffmpeg() else ("a.gif", "a.png")
    peak(tmp_path, 8, files)  # what is loaded once
    short, long = peak(tmp_path, 10, files), peak(tmp_path, 40, files)
    assert long - short < 400 * 400 * 3  # one picture of thirty


@pytest.mark.slow
def test_memory_of_a_whole_run_does_not_grow_with_the_frames(drawn: Callable[..., Clip], tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    network, peaks = stored(tmp_path, videopose3d()), []
    for frames in (100, 100, 400):
        seen = layouts.layout({"A": ("walk 1",)}, frames).positions_2d["A"]["walk 1"][0]
        np.save(tmp_path / "person.npy", seen)
        clips.write_clip(tmp_path / "v.mp4", (np.full((1002, 1000, 3), n % 250, np.uint8) for n in range(frames)), 25)
        tracemalloc.start()
        clip = drawn(
            "dataset=custom", f"input={tmp_path / 'person.npy'}", network, f"render.video={tmp_path / 'v.mp4'}",
            "predict.layout=h36m17", "predict.width=1000", "predict.height=1002", "predict.check=false",
        )  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(clip) == frames
    # 300 pictures more would be 900 MB; what is kept of a frame are its points.
    assert peaks[2] - peaks[1] < 3_000_000
