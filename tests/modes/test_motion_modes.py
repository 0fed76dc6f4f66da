"""mode=switch, control, inbetween, zero_shot and predict of motion: what they hold, write and refuse."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import build_model, build_task, compose
from kinema.core.skeleton import skeleton
from kinema.errors import CheckpointError, ConfigError, DataError
from kinema.modes.train import build
from kinema.results import as_trained
from kinema.tasks.sampling import numbered
from tests.checkpoints import tiny
from tests.data.motion_layouts import walk
from tests.modes.action_networks import lifter
from tests.modes.motion_networks import HISTORY, HORIZON, trained

BODY = skeleton("h36m17")
FRAMES = HISTORY + HORIZON
FAST = ("motion.num_samples=3", "motion.columns=1", "motion.rows=2", "motion.formats=[png]")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("network") / "best.ckpt")


def run(folder: Path, mode: str, network: Path, *words: str) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of every file that a run wrote, by "picture/window"."""
    words = (f"mode={mode}", f"ckpt={network}", f"paths.output_dir={folder / 'run'}", *FAST, *words)
    importlib.import_module(f"kinema.modes.{mode}").run(compose([*words, *(["task=prediction"] * (mode == "predict"))]))
    return written(folder / "run" / ("predictions" if mode == "predict" else mode))


def written(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for path in sorted(folder.glob("*/*.npz")):
        with np.load(path) as file:
            found[path.relative_to(folder).with_suffix("").as_posix()] = {key: file[key] for key in file.files}
    return found


def facts(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return dict(json.loads(str(arrays["meta"])))


def test_predictions_begin_with_the_history_and_differ(tmp_path: Path, network: Path) -> None:
    found = run(tmp_path, "predict", network, "motion.action=walk")
    assert len(found) == 2 * 2  # two windows of the walks of both test subjects
    for arrays in found.values():
        assert arrays["samples"].shape == (3, FRAMES, 17, 3)
        assert arrays["samples"].dtype == np.float32
        for sample in arrays["samples"]:
            np.testing.assert_array_equal(sample[:HISTORY], arrays["history"])
        np.testing.assert_array_equal(arrays["truth"][:HISTORY], arrays["history"])
        assert np.ptp(arrays["samples"][:, HISTORY:, 1:], axis=0).max() > 1e-3
        assert not arrays["samples"][:, :, BODY.root].any()
        assert arrays["joints"].tolist() == list(BODY.joints) and arrays["fps"] == 50
        assert facts(arrays)["action"] == "walk" and facts(arrays)["horizon"] == HORIZON
    assert len(list((tmp_path / "run" / "predictions").glob("*.png"))) == 2


def test_samples_of_no_body_are_told(tmp_path: Path, network: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, "control", network, "motion.parts=[head]")
    assert "the network does not belong" not in caplog.text
    noise = trained(tmp_path / "noise.ckpt", "task.prediction=noise")
    run(tmp_path, "control", noise, "motion.parts=[head]")
    assert "Samples reach" in caplog.text and "the network does not belong to this data" in caplog.text


def test_samples_are_those_that_the_test_judges(tmp_path: Path, network: Path) -> None:
    found = run(tmp_path, "predict", network, "motion.windows=[1]")
    (arrays,) = found.values()
    words = ["mode=test", "task=prediction", f"ckpt={network}"]
    _, data, task = build(as_trained.for_prediction(compose(words)))
    windows = data.windows("test")
    batch = data.transform(windows[torch.tensor([[0, 1, 1]])])
    batch["index"] = numbered(windows)[1:2]  # what a test makes of it
    with torch.inference_mode():
        judged = task.eval().predict(batch, num_samples=3)[0].unflatten(-1, (-1, 3))
    np.testing.assert_allclose(arrays["samples"][:, HISTORY:, 1:], judged.numpy(), atol=1e-5)


def test_control_moves_the_given_joints_as_they_really_did(tmp_path: Path, network: Path) -> None:
    parts = "motion.parts=[right_leg,[left_wrist,head]]"
    found = run(tmp_path, "control", network, parts, "motion.num_samples=2")
    assert {name.partition("/")[0] for name in found} == {"right_leg", "left_wrist+head"}
    free = run(tmp_path / "free", "predict", network, "motion.action=walk", "motion.rows=1")
    spread = np.mean([np.ptp(one["samples"][:, HISTORY:], axis=0).mean() for one in free.values()])
    for arrays in found.values():
        given = [BODY.index(joint) for joint in arrays["given"].tolist()]
        apart = np.ptp(arrays["samples"][:, HISTORY:], axis=0)
        assert apart[:, given].mean() < 0.1 * spread  # the low frequencies of the truth, the same in every sample
        others = [joint for joint in range(1, 17) if joint not in given]
        assert apart[:, others].mean() > 0.1 * spread


def test_the_table_of_control_tells_the_pictures_apart(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("motion.parts=[right_leg,[left_wrist,head]]", "motion.windows=[S9/walk/0]", "motion.num_samples=1")
    run(tmp_path, "control", network, *words)
    lines = [line for line in capsys.readouterr().out.splitlines() if "S9/walk, frame 0" in line]
    assert [next(part for part in ("right_leg", "left_wrist+head") if part in line) for line in lines] == [
        "right_leg", "left_wrist+head",
    ]  # fmt: skip


def away(arrays: dict[str, np.ndarray], pose: np.ndarray) -> float:
    """Mean distance of a joint from given last frames, metres."""
    return float(np.linalg.norm(arrays["samples"][:, -len(pose) :] - pose, axis=-1).mean())


def test_a_switch_ends_like_its_target(tmp_path: Path, network: Path) -> None:
    windows = "motion.windows=[S9/walk/0,S9/kick/3]"
    found = run(tmp_path, "switch", network, windows, "motion.target=S11/wave/0", "motion.until=0")
    free = run(tmp_path / "free", "predict", network, windows)
    assert len(found) == 2
    for arrays, other in zip(found.values(), free.values(), strict=True):
        assert facts(arrays)["end_frames"] == 2 * HISTORY
        end = arrays["target"][-2 * HISTORY :]
        # Frames at the border are as smooth as six frequencies are.
        assert away(arrays, end[2:]) < 0.3 * away(other, end[2:])


def test_an_end_of_a_file_is_reached(tmp_path: Path, network: Path) -> None:
    pose = walk(7, 1)
    np.save(tmp_path / "end.npy", pose[0])  # one pose (17, 3)
    pose = np.repeat(pose - pose[:, :1], 6, 0)
    windows = "motion.windows=[S9/walk/0,S9/kick/3]"
    words = (f"motion.target={tmp_path / 'end.npy'}", "motion.end_frames=6", windows)
    found, free = run(tmp_path, "inbetween", network, *words), run(tmp_path / "free", "predict", network, windows)
    for arrays, other in zip(found.values(), free.values(), strict=True):
        np.testing.assert_allclose(arrays["target"][-6:], pose, atol=1e-6)
        assert away(arrays, pose[1:]) < 0.4 * away(other, pose[1:])


def test_between_takes_the_own_end_of_a_window(tmp_path: Path, network: Path) -> None:
    for arrays in run(tmp_path, "inbetween", network).values():
        np.testing.assert_array_equal(arrays["target"], arrays["truth"])
        assert facts(arrays)["end_frames"] == 10


def test_a_target_can_be_turned_to_the_heading_of_the_history(tmp_path: Path, network: Path) -> None:
    words = ("motion.target=S9/kick/3", "motion.windows=[S9/walk/2]")
    plain, turned = (run(tmp_path / str(i), "switch", network, *words, f"motion.align={i}") for i in (False, True))
    (one,), (other,) = plain.values(), turned.values()

    def hips(pose: np.ndarray) -> float:
        across = pose[BODY.index("left_hip")] - pose[BODY.index("right_hip")]
        return float(np.arctan2(across[1], across[0]))

    begin = FRAMES - 2 * HISTORY
    assert hips(other["target"][begin]) == pytest.approx(hips(one["history"][-1]), abs=1e-4)
    np.testing.assert_allclose(other["target"][..., 2], one["target"][..., 2], atol=1e-6)


def motion_file(folder: Path, frames: int = 60, name: str = "mine.npz", fps: float = 50.0) -> tuple[Path, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    pose = walk(3, frames)
    np.savez(folder / name, pose3d=pose, fps=fps)
    return folder / name, pose


def test_a_file_is_continued_from_its_last_frames(tmp_path: Path, network: Path) -> None:
    path, pose = motion_file(tmp_path)
    (arrays,) = run(tmp_path, "predict", network, f"input={path}").values()
    relative = pose - pose[:, :1]
    np.testing.assert_allclose(arrays["history"], relative[-HISTORY:], atol=1e-5)
    assert "truth" not in arrays
    (known,) = run(tmp_path / "b", "predict", network, f"input={path}", "motion.start=7").values()
    np.testing.assert_allclose(known["truth"], relative[7 : 7 + FRAMES], atol=1e-5)


def test_a_folder_gives_one_file_of_arrays_each_and_tells_what_is_left_out(tmp_path: Path, network: Path) -> None:
    for i in range(3):
        motion_file(tmp_path / "clips", frames=60 if i else 3, name=f"m{i}.npz")
    with pytest.raises(DataError, match=r"1 files were left out.*3 frames"):
        run(tmp_path, "predict", network, f"input={tmp_path / 'clips'}")
    found = written(tmp_path / "run" / "predictions")
    assert [name.partition("/")[0] for name in found] == ["m1", "m2"]
    assert not list((tmp_path / "run" / "predictions").glob("*.png"))  # of a folder, only arrays


def test_zero_shot_shows_files_with_what_really_followed(tmp_path: Path, network: Path) -> None:
    clips = np.stack([motion_file(tmp_path, name=f"{i}.npz")[1] for i in range(5)])
    np.save(tmp_path / "amass_retargeted.npy", clips[:, None])  # (M, 1, frames, 17, 3), squeezed as published
    found = run(tmp_path, "zero_shot", network, f"input={tmp_path / 'amass_retargeted.npy'}", "motion.count=2")
    assert len(found) == 2 * 2 and all("truth" in arrays for arrays in found.values())


def test_zero_shot_takes_another_data_set(tmp_path: Path, network: Path) -> None:
    words = ("dataset=synthetic_motion", "dataset.reader_options.frames=40", "dataset.reader_options.actions=[jump]")
    found = run(tmp_path, "zero_shot", network, *words, "dataset.cache_dir=null")
    assert {facts(arrays)["action"] for arrays in found.values()} == {"jump"}
    with pytest.raises(ConfigError, match=r"50 frames per second.*60"):
        run(tmp_path / "b", "zero_shot", network, *words, "dataset.fps=60")


def test_the_checkpoint_says_the_frames_and_the_noise(network: Path) -> None:
    config = as_trained.for_prediction(compose(["mode=switch", f"ckpt={network}"]))
    assert (config.task.history, config.task.ddim_timesteps, config.dataset.name) == (HISTORY, 10, "synthetic_motion")
    other = as_trained.for_prediction(compose(["mode=switch", f"ckpt={network}", "dataset=cmu_motion"]))
    assert (other.dataset.name, other.dataset.history) == ("cmu_motion", HISTORY)


def test_a_network_of_another_optimiser_is_read_like_any(tmp_path: Path) -> None:
    other = ("task/optimizer=adamw", "task/scheduler=warmup_cosine")
    path = trained(tmp_path / "other.ckpt", *other)
    config = as_trained.for_prediction(compose(["mode=predict", "task=prediction", f"ckpt={path}"]))
    assert config.task.scheduler["_target_"].endswith("warmup_cosine")
    build_task(config, build_model(config))


def test_what_does_not_fit_is_refused_with_a_remedy(tmp_path: Path, network: Path) -> None:
    for words, sentence in (
        (["motion.windows=[S9/wolk/0]"], "Did you mean 'S9/walk'"),
        (["motion.windows=[S9/walk/39]"], "Use 0 to 20"),
        (["motion.subject=S99"], "motion.subject=S99"),
        (["motion.end_frames=99"], "motion.end_frames=7"),
        (["motion.rows=0"], "motion.rows=1"),
        (["motion.formats=[svg]"], "png, gif, mp4"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            run(tmp_path, "switch", network, *words)
    with pytest.raises(ConfigError, match="right_leg"):
        run(tmp_path, "control", network, "motion.parts=[right_lag]")
    with pytest.raises(ConfigError, match="ckpt="):
        importlib.import_module("kinema.modes.switch").run(compose(["mode=switch", f"paths.output_dir={tmp_path}"]))


def test_networks_of_other_tasks_and_bare_files_are_refused(tmp_path: Path, network: Path) -> None:
    with pytest.raises(CheckpointError, match="trained for task=lifting"):
        run(tmp_path, "control", lifter(tmp_path / "lifter.ckpt"))
    state = torch.load(network, weights_only=True)["state_dict"]
    bare = tiny.save({name.removeprefix("model."): value for name, value in state.items()}, tmp_path / "ckpt_ema_10.pt")
    with pytest.raises(ConfigError, match="experiment=humanmac/h36m"):
        run(tmp_path, "control", bare)
