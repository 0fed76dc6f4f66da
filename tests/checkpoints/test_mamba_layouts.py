"""Files of DBMambaPose and PoseMamba: layouts in and out, and a scan backend that any file leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kinema
from kinema.checkpoints.export import export
from kinema.checkpoints.load import arguments_of
from kinema.errors import CheckpointError
from kinema.models.dbmambapose import DBMambaPose
from kinema.models.posemamba import PoseMamba
from tests.checkpoints import tiny
from tests.models import oracle, test_dbmambapose, test_posemamba


def made(family: str, **changes: Any) -> nn.Module:
    kinds: dict[str, Any] = {
        "dbmambapose": lambda: DBMambaPose(**test_dbmambapose.small(**{"depth": 1, **changes})),
        "posemamba": lambda: PoseMamba(**test_posemamba.small(**{"depth": 1, **changes})),
    }
    model = kinds[family]().eval()
    oracle.scatter(model)
    return model


def official(model: nn.Module, prefix: str = "module.") -> dict[str, Any]:
    """What the authors' train.py writes."""
    content = {"epoch": 3, "lr": 2e-4, "optimizer": {"state": {}, "param_groups": []}}
    state = tiny.prefixed(model.state_dict(), prefix)
    if isinstance(model, PoseMamba):
        return {**content, "model_pos": state, "min_loss": np.float64(40.5)}
    return {**content, "model": state, "min_mpjpe": 40.5}


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize(("family", "layout"), [("dbmambapose", "motionagformer"), ("posemamba", "motionbert")])
def test_a_file_goes_round_exactly(family: str, layout: str, prefix: str, tmp_path: Path) -> None:
    model = made(family)
    written = official(model, prefix)
    found = kinema.load(tiny.save(written, tmp_path / "best_epoch.bin"), **tiny.guesses(model))
    assert arguments_of(found) == arguments_of(model)
    assert tiny.same_output(found, model)
    assert (found.provenance.envelope, found.provenance.preprocess) == (layout, "motionbert")
    back = export(found, tmp_path / "back.bin", "official")
    again = torch.load(back.path, weights_only=True)
    key = "model_pos" if family == "posemamba" else "model"
    assert list(again[key]) == [f"module.{name}" for name in model.state_dict()]
    assert all(torch.equal(again[key][f"module.{name}"], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", ["dbmambapose", "posemamba"])
def test_another_backend_may_read_our_own_file(family: str, tmp_path: Path) -> None:
    model = made(family)
    path = tiny.save(tiny.lightning(model), tmp_path / "x.ckpt")
    found = kinema.load(path, scan_backend="reference")
    assert arguments_of(found) == {**arguments_of(model), "scan_backend": "reference"}
    backends = {module.scan_backend for module in found.modules() if hasattr(module, "scan_backend")}
    assert backends == {"reference"}
    torch.testing.assert_close(found(tiny.example(model)), model(tiny.example(model)), rtol=1e-5, atol=1e-5)
    with pytest.raises(CheckpointError, match="d_conv=1 contradicts"):
        kinema.load(path, d_conv=1)


@pytest.mark.parametrize("family", ["dbmambapose", pytest.param("posemamba", marks=pytest.mark.slow)])
def test_a_graph_equals_the_eager_model(family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    sizes = {"num_frames": 2, "num_joints": 3} if family == "dbmambapose" else {"num_frames": 1}
    written = export(made(family, **sizes), tmp_path / "x.onnx", "onnx")
    assert written.difference < 1e-4 * max(written.scale, 1.0)
