"""mode=render writes what it promises of the sequence that was asked for, and refuses the rest before computing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kinema.composition import compose
from kinema.data.readers import synthetic
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError
from kinema.models.videopose3d import VideoPose3D
from kinema.modes.render import Prediction, choose, exported, prepared, run, separated
from kinema.viz import clip as clips

FRAMES = 24


def network(trajectory: bool = False) -> VideoPose3D:
    torch.manual_seed(0)
    return VideoPose3D(
        num_joints=17, num_joints_out=17, in_channels=2, filter_widths=[3, 3], channels=8, dropout=0.0, causal=False,
        dense=False, trajectory=trajectory, root=0,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_1.bin"
    torch.save({"epoch": 1, "lr": 0.1, "model_pos": network().state_dict(), "model_traj": None}, path)
    return path


@pytest.fixture(scope="module")
def data() -> Sequences:
    return synthetic.read(Path(), frames=FRAMES, actions=("walk", "wave"), takes=2)


def render(tmp_path: Path, checkpoint: Path | None, *overrides: str) -> Path:
    """Run the mode and return its folder."""
    words = [
        "mode=render", "dataset=synthetic", f"dataset.reader_options.frames={FRAMES}", "dataset.cache_dir=null",
        "dataset.reader_options.actions=[walk,wave]", "render.size=1.5", f"paths.output_dir={tmp_path / 'run'}",
        *([f"ckpt={checkpoint}"] if checkpoint else []), *overrides,
    ]  # fmt: skip
    run(compose(words))
    return tmp_path / "run"


def test_everything_that_can_be_written_is_written(tmp_path: Path, checkpoint: Path) -> None:
    folder = render(tmp_path, checkpoint, "render.action=wave", "render.camera=2")
    endings = {".gif", ".mp4", ".png"} if clips.ffmpeg() else {".gif", ".png"}
    found = {path.name for path in folder.iterdir() if path.suffix in (".gif", ".mp4", ".png")}
    assert found == {f"S9_wave_2{ending}" for ending in endings}
    with Image.open(folder / "S9_wave_2.gif") as image:
        assert image.size == (450, 150)
        # 50 frames per second become 25 in a GIF.
        assert image.n_frames == FRAMES // 2  # type: ignore[attr-defined]
        assert image.info["duration"] == 40
    with Image.open(folder / "S9_wave_2.png") as image:
        assert np.asarray(image.convert("L")).std() > 5


def test_the_exported_array_is_the_prediction_of_the_whole_sequence(
    tmp_path: Path, checkpoint: Path, data: Sequences
) -> None:
    path = tmp_path / "made" / "prediction.npy"
    render(tmp_path, checkpoint, f"render.output={tmp_path / 'a.png'}", f"render.export={path}", "render.limit=5")
    array = np.load(path)
    assert array.shape == (FRAMES, 17, 3)
    assert array.dtype == np.float32
    # The slow form: every frame from its own window, straight and mirrored.
    row = int(np.flatnonzero((data.table["subject"] == "S9") & (data.table["trial"] == "walk"))[0])
    pose = torch.from_numpy(data.sequence(row)["pose2d"][..., :2].copy())
    order = list(data.skeleton.flip_index)  # type: ignore[union-attr]
    sign2d, sign3d = torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0, 1.0])
    model = network()
    for frame in (0, 11, FRAMES - 1):
        window = pose[torch.arange(frame - 4, frame + 5).clamp(0, FRAMES - 1)][None]
        with torch.no_grad():
            straight, mirrored = model(window)[0, 0], model(window[..., order, :] * sign2d)[0, 0]
        expected = (straight + mirrored[order] * sign3d) / 2
        np.testing.assert_allclose(array[frame], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "frames", "duration"),
    [
        (["render.limit=8"], 4, 40),
        (["render.skip=4", "render.downsample=5"], 4, 100),
        (["render.fps=10", "render.limit=6"], 6, 100),
    ],
)
def test_a_clip_is_cut_and_slowed_as_asked(
    tmp_path: Path, checkpoint: Path, overrides: list[str], frames: int, duration: int
) -> None:
    path = tmp_path / "a.gif"
    render(tmp_path, checkpoint, f"render.output={path}", *overrides)
    with Image.open(path) as image:
        assert image.n_frames == frames  # type: ignore[attr-defined]
        assert image.info["duration"] == duration


def test_the_truth_can_be_left_out(tmp_path: Path, checkpoint: Path) -> None:
    path = tmp_path / "a.gif"
    render(tmp_path, checkpoint, f"render.output={path}", "render.show_ground_truth=false", "render.limit=2")
    with Image.open(path) as image:
        assert image.size == (300, 150)


@pytest.mark.skipif(clips.ffmpeg() is None, reason="no ffmpeg on this machine")
def test_a_video_of_any_size_lies_under_the_keypoints(tmp_path: Path, checkpoint: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    video, path = tmp_path / "video.mp4", tmp_path / "a.gif"
    pictures = (np.full((48, 64, 3), 255 if number >= 4 else 0, np.uint8) for number in range(10))
    clips.write_clip(video, pictures, 50)
    overrides = [f"render.output={path}", f"render.video={video}", "render.limit=8"]
    corners = []
    for skip in (0, 4):
        render(tmp_path, checkpoint, *overrides, f"render.skip={skip}")
        with Image.open(path) as image:
            corners.append(np.asarray(image.convert("RGB"))[60, 15].max())
    assert corners[0] < 40  # the first frames of the video are black
    assert corners[1] > 220  # they are skipped together with the keypoints


@pytest.mark.skipif(clips.ffmpeg() is None, reason="no ffmpeg on this machine")
def test_a_video_that_does_not_fit_is_told(tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("imageio_ffmpeg")
    video, path = tmp_path / "video.mp4", tmp_path / "a.gif"
    clips.write_clip(video, (np.full((48, 64, 3), 90, np.uint8) for _ in range(10)), 30)
    render(tmp_path, checkpoint, f"render.output={path}", f"render.video={video}", "render.skip=4")
    with Image.open(path) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]  # six of fifty a second
    told = caplog.text
    assert "is 64 x 48 pixels, the keypoints belong to 1000 x 100" in told
    assert "has about 10 frames, the sequence 24" in told
    assert "the video has 30 frames per second, the sequence 50" in told
    assert "ends, or cannot be decoded, after 6 of 20 frames" in told
    with pytest.raises(Exception, match="The video ends before the first frame"):
        render(tmp_path, checkpoint, f"render.output={path}", f"render.video={video}", "render.skip=12")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["render.subject=S99"], r"there is no subject 'S99' here\. Did you mean 'S9'\? There is: S1, S5"),
        (["render.action=wlak"], "there is no action 'wlak' here. Did you mean 'walk'"),
        (["render.camera=7"], "there is no camera '7' here. There is: 0, 1, 2, 3"),
        (["render.output=clip.avi"], r"clip\.avi ends in \.avi"),
        (["render.skip=100"], "leave nothing of 24 frames"),
        (["render.video=none.mp4"], "There is no video"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, checkpoint: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        render(tmp_path, checkpoint, *overrides)
    assert caught.type.__module__ == "kinema.errors"
    assert not list((tmp_path / "run").glob("*.gif"))


def test_random_weights_are_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Use ckpt="):
        render(tmp_path, None)


# The parts.


def label(data: Sequences, **asked: Any) -> str:
    options = {"subject": None, "action": None, "camera": 0, **asked}
    test = np.flatnonzero(np.isin(data.table["subject"], ("S9", "S11")))
    return data.label(choose(data, test, **options))


def test_a_sequence_is_found_by_full_name_base_name_or_taken_first(data: Sequences) -> None:
    assert label(data) == "S9/walk/0"
    assert label(data, subject="S5", camera="3") == "S5/walk/3"
    assert label(data, action="wave") == "S9/wave/0"
    assert label(data, action="wave 1", camera=1) == "S9/wave 1/1"
    others = data.select(data.table["trial"] != "wave")
    assert others.label(choose(others, np.arange(0), "S6", "wave", 0)) == "S6/wave 1/0"


def test_a_nested_trajectory_is_run_apart_and_the_model_stays_whole() -> None:
    model = network(trajectory=True)
    pose = torch.randn(1, 20, 17, 2)
    with torch.no_grad():
        whole = model(pose)
        alone, twin = separated(model)
        assert twin is model.trajectory
        apart, path = alone(pose), twin(pose)  # type: ignore[misc]
        torch.testing.assert_close(model(pose), whole)
    torch.testing.assert_close(apart[:, :, 1:], whole[:, :, 1:])
    torch.testing.assert_close(path, whole[:, :, :1])
    assert not torch.allclose(apart[:, :, :1], path)
    assert separated(nn.Linear(2, 2))[1] is None


def test_a_trajectory_is_added_only_where_there_is_no_truth(data: Sequences) -> None:
    pose, path = np.zeros((FRAMES, 17, 3), np.float32), np.ones((FRAMES, 1, 3), np.float32)
    assert (exported(data, 0, Prediction(pose, path)) == 0).all()
    bare = Sequences.from_arrays([{"pose2d": np.zeros((FRAMES, 17, 2), np.float32)}])
    assert (exported(bare, 0, Prediction(pose, path)) == 1).all()
    assert (exported(bare, 0, Prediction(pose)) == 0).all()


def test_the_truth_as_prediction_lies_on_the_truth(data: Sequences) -> None:
    truth = data.sequence(5)["pose3d"]
    relative = prepared(data, 5, Prediction(truth - truth[:, :1]), "videopose3d", relative=True)
    absolute = prepared(data, 5, Prediction(truth), "videopose3d", relative=False)
    for drawn in (relative, absolute):
        np.testing.assert_allclose(drawn.poses["Reconstruction"], drawn.poses["Ground truth"], atol=1e-5)
        assert 0.02 < drawn.poses["Ground truth"][..., 2].min() < 0.2  # feet on the floor of the world
    assert relative.azimuth == pytest.approx(float(data.cameras["azimuth"][5]))
    assert relative.fps == 50


@pytest.mark.parametrize("with_truth", [True, False])
def test_image_space_is_drawn_upright(data: Sequences, with_truth: bool) -> None:
    views = data.sequence(0)
    image = np.concatenate((views["pose2d"][..., :2], views["pose3d"][..., 2:] * 0.2), -1)
    item = {"pose2d": views["pose2d"], "width": 1000, "height": 1000, "fps": 50.0}
    made = Sequences.from_arrays(
        [item | ({"pose3d": image} if with_truth else {})],
        skeleton=data.skeleton, skeleton2d=data.skeleton, space="image",
    )  # fmt: skip
    clip = prepared(made, 0, Prediction(image - image[:, :1]), "motionbert", relative=True)
    assert list(clip.poses) == ["Reconstruction", "Ground truth"][: 1 + with_truth]
    drawn = clip.poses["Reconstruction"]
    head, ankle = made.skeleton.index("head"), made.skeleton.index("left_ankle")  # type: ignore[union-attr]
    assert (drawn[:, head, 2] > drawn[:, ankle, 2] + 1).all()
    if with_truth:
        np.testing.assert_allclose(drawn, clip.poses["Ground truth"], atol=1e-5)


def test_an_action_network_is_shown_the_way_to_the_mode_that_draws_clips(tmp_path: Path) -> None:
    words = ["mode=render", "task=action", "model=stgcnpp", "dataset=synthetic_actions", "ckpt=best.ckpt"]
    with pytest.raises(
        ConfigError, match=r"Use mode=predict task=action ckpt=best\.ckpt input=CLIP predict\.draw=true"
    ):
        run(compose([*words, f"paths.output_dir={tmp_path}"]))
