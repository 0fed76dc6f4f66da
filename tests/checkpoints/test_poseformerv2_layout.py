"""Files of PoseFormer V2: both official layouts in and out, and the length of the window, which no file tells."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kinema
from kinema.checkpoints.export import export
from kinema.checkpoints.load import arguments_of
from kinema.composition import build_model, compose
from kinema.errors import CheckpointError
from kinema.models.poseformerv2 import PoseFormerV2
from tests.checkpoints import tiny
from tests.models import oracle
from tests.models.test_poseformerv2 import small

TOLD: dict[str, Any] = {"num_frames": 9, "num_heads": 2}


def made(**changes: Any) -> PoseFormerV2:
    model = PoseFormerV2(**small(**changes)).eval()
    oracle.scatter(model)
    return model


def official(model: PoseFormerV2, prefix: str = "module.") -> dict[str, Any]:
    """What run_poseformer.py writes."""
    state = tiny.prefixed(model.state_dict(), prefix)
    random_state = np.random.RandomState(1234)
    return {"epoch": 4, "lr": 1e-4, "random_state": random_state, "optimizer": {"state": {}}, "model_pos": state}


def zeros(**sizes: int) -> dict[str, Any]:
    """A file with the shapes of a released size."""
    with torch.device("meta"):
        model = PoseFormerV2(**small(num_joints=17, num_joints_out=17, dim=32, depth=4, num_heads=8, **sizes))
    state = {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}
    return {"model_pos": tiny.prefixed(state, "module.")}


def built(*words: str) -> int | None:
    """The window of the network that a run makes."""
    return build_model(compose(words)).signature.frames  # type: ignore[union-attr]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("layout", ["poseformer", "model_pos", "bare"])
def test_a_file_tells_all_but_window_heads_and_rates(layout: str, prefix: str, tmp_path: Path) -> None:
    model = made(kept_frames=1)
    content = official(model, prefix)
    content = {"poseformer": content, "model_pos": {"model_pos": content["model_pos"]}, "bare": content["model_pos"]}[
        layout
    ]
    found = kinema.load(tiny.save(content, tmp_path / "no_refine_60_2780.pth"), **TOLD)
    assert arguments_of(found) == arguments_of(model)
    assert tiny.same_output(found, model)
    assert (found.provenance.family, found.provenance.envelope) == ("poseformerv2", layout)
    # The same file serves Human3.6M and MPI-INF-3DHP only where it does not say which it is.
    assert found.provenance.preprocess == ("videopose3d" if layout == "poseformer" else None)
    assert set(found.provenance.guessed) == {"dropout", "attn_dropout", "drop_path"}


def test_the_window_has_to_be_said(tmp_path: Path) -> None:
    path = tiny.save(official(made()), tmp_path / "best_epoch.bin")
    with pytest.raises(CheckpointError, match=r"cannot tell num_frames\. .*num_frames=\.\.\.\), or model\.num_frames"):
        kinema.load(path, num_heads=2)
    longer = kinema.load(path, num_heads=2, num_frames=27)
    assert longer.signature.frames == 27
    with pytest.raises(CheckpointError, match=r"3 kept frames|cannot give kept_frames=3"):
        kinema.load(path, num_heads=2, num_frames=1)
    with pytest.raises(CheckpointError, match="Did you mean num_frames"):
        kinema.load(path, num_frame=9)


def test_a_run_takes_the_window_from_the_size_that_fits_the_file(tmp_path: Path) -> None:
    path = tiny.save(zeros(num_frames=81, kept_frames=9, kept_coeffs=9), tmp_path / "9_81_46.0.bin")
    assert built("experiment=poseformerv2/h36m_81_9_9", f"ckpt='{path}'") == 81
    assert built("model=poseformerv2_27_3_3", f"ckpt='{path}'") == 81, "a size of other tensors says nothing"
    other = path.rename(tmp_path / "best_epoch.bin")
    with pytest.raises(CheckpointError, match=r"cannot tell num_frames.*model\.num_frames=\.\.\. for run\.py"):
        built("model=poseformerv2_27_3_3", f"ckpt='{other}'")


@pytest.mark.parametrize("words", [["model=poseformerv2_81_1_3"], ["experiment=poseformerv2/h36m_81_1_3"]])
def test_a_run_with_the_window_of_another_file_is_warned(
    words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny.save(zeros(num_frames=27, kept_frames=1, kept_coeffs=3), tmp_path / "1_27_48.7.bin")
    assert built("mode=test", *words, f"ckpt='{path}'") == 81
    (warning,) = warnings(caplog)
    assert "1_27_48.7.bin: num_frames=81 is used, but the name of the file says 27" in warning
    assert "use num_frames=27" in warning
    caplog.clear()
    assert built("mode=test", "model=poseformerv2_27_1_3", f"ckpt='{path}'") == 27 and not warnings(caplog)


def test_a_released_name_tells_the_window(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tiny.save(official(made()), tmp_path / "3_9_46.0.bin")
    with caplog.at_level(logging.INFO, logger="kinema"):
        found = kinema.load(path, num_heads=2)
    assert found.provenance.arguments["num_frames"] == found.provenance.guessed["num_frames"] == 9
    assert "3_9_46.0.bin: its weights cannot tell num_frames; num_frames=9 is what its name says." in caplog.text
    assert not warnings(caplog)
    said = kinema.load(path, **TOLD)
    assert "num_frames" not in said.provenance.guessed and not warnings(caplog)
    assert kinema.load(path, num_heads=2, num_frames=27).signature.frames == 27
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("name", ["27_243_45.2.bin", "3_9.bin", "3_9_46.0.pth", "my_3_9_46.0.bin", "x_9_46.0.bin"])
def test_other_names_tell_nothing(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first belongs to weights that keep 27 frames; these keep 3."""
    path = tiny.save(official(made()), tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot tell num_frames"):
        kinema.load(path, num_heads=2)
    assert kinema.load(path, num_heads=2, num_frames=81).signature.frames == 81 and not warnings(caplog)


def test_the_record_of_an_own_file_is_above_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = kinema.load(tiny.save(tiny.lightning(made()), tmp_path / "3_81_46.0.bin"))
    assert found.signature.frames == 9 and not warnings(caplog)


def test_the_official_layout_goes_round_exactly(tmp_path: Path) -> None:
    model = made()
    written = official(model)
    loaded = kinema.load(tiny.save(written, tmp_path / "a.bin"), **TOLD)
    back = export(loaded, tmp_path / "best_epoch.bin", "official")
    content = torch.load(back.path, weights_only=True)
    assert list(content["model_pos"]) == list(written["model_pos"])
    assert all(torch.equal(content["model_pos"][name], tensor) for name, tensor in written["model_pos"].items())
    assert {key: content[key] for key in ("epoch", "lr", "optimizer")} == {"epoch": 4, "lr": 1e-4, "optimizer": None}
    assert tiny.same_output(kinema.load(back.path, **TOLD), model)


def test_an_own_file_tells_the_window(tmp_path: Path) -> None:
    model = made()
    found = kinema.load(tiny.save(tiny.lightning(model), tmp_path / "x.ckpt"))
    assert arguments_of(found) == arguments_of(model)
    assert tiny.same_output(found, model)
