"""mode=predict and mode=doctor on the field's keypoint files: one person, one pose; one fault, one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.composition import compose
from kinema.errors import DataError
from kinema.models.registry import model_class
from kinema.modes import doctor, predict
from tests.checkpoints import tiny
from tests.data.bodies import synthetic
from tests.data.keypoint_formats import FORMATS, SIZE


def points(layout: str) -> np.ndarray:
    pixels = synthetic(layout, frames=10)
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class("videopose3d")(**tiny.VIDEOPOSE3D | {"num_joints": 17, "num_joints_out": 17}).eval()
    return tiny.save(tiny.lightning(model), tmp_path_factory.mktemp("checkpoint") / "small.ckpt")


def words(tmp_path: Path, source: Path, *overrides: str) -> list[str]:
    return [
        "dataset=custom", f"input={source}", f"predict.width={SIZE[0]}", f"predict.height={SIZE[1]}",
        f"paths.output_dir={tmp_path / 'run'}", *overrides,
    ]  # fmt: skip


def test_predict_gives_one_pose_for_one_person_whatever_the_format(tmp_path: Path, checkpoint: Path) -> None:
    poses = {}
    for name in ("openpose", "mediapipe", "alphapose halpe", "custom npz", "array coco17"):
        write, layout, says = FORMATS[name]
        output = tmp_path / f"{layout}-{len(poses)}.npz"
        more = [] if says else [f"predict.layout={layout}"]
        options = ["mode=predict", f"ckpt={checkpoint}", f"predict.output={output}", "predict.conversion=demo", *more]
        predict.run(compose(words(tmp_path, write(tmp_path, points), *options)))
        with np.load(output) as file:
            (entry,) = [entry for entry in file.files if entry.startswith("pose3d/")]
            poses[name] = file[entry]
    first = poses["custom npz"]
    assert first.shape == (10, 17, 3) and first.std() > 1e-3
    for name, pose in poses.items():
        np.testing.assert_allclose(pose, first, atol=1e-5, err_msg=name)


def test_the_doctor_looks_at_a_keypoint_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = FORMATS["array coco17"][0](tmp_path, points)
    doctor.run(compose(words(tmp_path, path, "mode=doctor", "predict.layout=coco17")))
    assert "10 frames of coco17" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(DataError, match=r"1 fault in input=.*not in the order of h36m17.*predict\.layout=coco17"):
        doctor.run(compose(words(tmp_path, path, "mode=doctor")))
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(DataError, match="none of the known keypoint files"):
        doctor.run(compose(words(tmp_path, tmp_path / "none.json", "mode=doctor")))
