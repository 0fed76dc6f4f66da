"""Files of PoseFormer V2: both official layouts in and out, and the length of the window, which no file tells."""

from __future__ import annotations

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
    path = tiny.save(official(made()), tmp_path / "27_243_45.2.bin")
    with pytest.raises(CheckpointError, match=r"cannot tell num_frames\. .*num_frames=\.\.\.\), or model\.num_frames"):
        kinema.load(path, num_heads=2)
    longer = kinema.load(path, num_heads=2, num_frames=27)
    assert longer.signature.frames == 27
    with pytest.raises(CheckpointError, match=r"3 kept frames|cannot give kept_frames=3"):
        kinema.load(path, num_heads=2, num_frames=1)
    with pytest.raises(CheckpointError, match="Did you mean num_frames"):
        kinema.load(path, num_frame=9)


def test_a_run_takes_the_window_from_the_size_that_fits_the_file(tmp_path: Path) -> None:
    with torch.device("meta"):
        published = PoseFormerV2(
            **small(
                num_frames=81, num_joints=17, num_joints_out=17, kept_frames=9, kept_coeffs=9, dim=32, depth=4,
                num_heads=8,
            )
        )  # fmt: skip
    state = {name: torch.zeros(tensor.shape) for name, tensor in published.state_dict().items()}
    path = tiny.save({"model_pos": tiny.prefixed(state, "module.")}, tmp_path / "9_81_46.0.bin")
    model = build_model(compose(["experiment=poseformerv2/h36m_81_9_9", f"ckpt='{path}'"]))
    assert model.signature.frames == 81  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match=r"cannot tell num_frames.*model\.num_frames=\.\.\. for run\.py"):
        build_model(compose(["model=poseformerv2_27_3_3", f"ckpt='{path}'"]))


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
