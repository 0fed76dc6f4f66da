"""Files of MotionAGFormer: the layout in and out, old numpy scalars, and nothing unsafe beside them."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kinema
from kinema.checkpoints.export import export
from kinema.checkpoints.load import arguments_of
from kinema.errors import CheckpointError
from kinema.models.motionagformer import MotionAGFormer
from tests.checkpoints import tiny
from tests.models import oracle
from tests.models.test_motionagformer import small

TOLD: dict[str, Any] = {"num_heads": 2, "neighbours": 2, "edges": [[0, 1], [1, 2], [1, 3]]}
VARIANTS: dict[str, dict[str, Any]] = {
    "similarity": {},
    "fixed": {"temporal_graph": "fixed", "connection_len": 2},
    "graph_only": {"graph_only": True, "adaptive_fusion": False},
    "tcn": {"use_tcn": True, "hierarchical": True, "layer_scale": None, "num_frames": 243},
}


def made(**changes: Any) -> MotionAGFormer:
    model = MotionAGFormer(**small(**{**TOLD, "layer_scale": 1e-5, **changes})).eval()
    oracle.scatter(model)
    return model


def official(model: MotionAGFormer, prefix: str = "module.") -> dict[str, Any]:
    """What train.py writes."""
    content = {"epoch": 7, "lr": 5e-4, "optimizer": {"state": {}, "param_groups": []}, "wandb_id": "x0"}
    state = tiny.prefixed(model.state_dict(), prefix)
    return {**content, "model": state, "min_mpjpe": np.float64(41.25)}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_file_tells_all_but_what_has_no_tensor(variant: str, prefix: str, tmp_path: Path) -> None:
    changes = VARIANTS[variant]
    model = made(**changes)
    content = official(model, prefix)
    told = {name: changes[name] for name in ("temporal_graph", "connection_len") if name in changes}
    found = kinema.load(tiny.save(content, tmp_path / "best_epoch.pth.tr"), **TOLD, **told)
    assert arguments_of(found) == arguments_of(model)
    assert tiny.same_output(found, model)
    assert (found.provenance.envelope, found.provenance.preprocess) == ("motionagformer", "motionbert")
    assert (found.provenance.facts["min_mpjpe"], found.provenance.facts["epoch"]) == (41.25, 7)


def test_published_constructor_names_are_translated(tmp_path: Path) -> None:
    path = tiny.save(official(made()), tmp_path / "best_epoch.pth.tr")
    with pytest.raises(CheckpointError, match="Did you mean neighbours"):
        kinema.load(path, neighbour_num=2)


def test_the_official_layout_goes_round_exactly(tmp_path: Path) -> None:
    model = made()
    written = official(model)
    loaded = kinema.load(tiny.save(written, tmp_path / "a.pth.tr"), **TOLD)
    back = export(loaded, tmp_path / "best_epoch.pth.tr", "official")
    content = torch.load(back.path, weights_only=True)
    assert list(content["model"]) == list(written["model"])
    assert all(torch.equal(content["model"][name], written["model"][name]) for name in written["model"])
    assert {key: content[key] for key in ("epoch", "lr", "optimizer", "min_mpjpe")} == {
        "epoch": 7, "lr": 5e-4, "optimizer": None, "min_mpjpe": 41.25,
    }  # fmt: skip
    assert tiny.same_output(kinema.load(back.path, **TOLD), model)


def test_a_model_that_was_never_measured_has_no_best_error(tmp_path: Path) -> None:
    content = torch.load(export(made(), tmp_path / "x.pth.tr", "official").path, weights_only=True)
    assert math.isinf(content["min_mpjpe"])
    assert kinema.load(tmp_path / "x.pth.tr", **TOLD).provenance.envelope == "motionagformer"


def with_globals(path: Path, renamed: dict[bytes, bytes]) -> Path:
    """Exchange the globals that the pickle of a checkpoint asks for."""
    other = path.with_name(f"renamed-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_STORED) as copy:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                for before, after in renamed.items():
                    data = data.replace(before, after)
            copy.writestr(item, data)
    return other


@pytest.mark.parametrize("core", [b"core", b"_core"], ids=["numpy 1", "numpy 2"])
def test_scalars_of_either_numpy_are_read(core: bytes, tmp_path: Path) -> None:
    path = tiny.save(official(made()), tmp_path / "x.pth.tr")
    wanted = b"cnumpy." + core + b".multiarray\nscalar\n"
    path = with_globals(
        path, {b"cnumpy._core.multiarray\nscalar\n": wanted, b"cnumpy.core.multiarray\nscalar\n": wanted}
    )
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    assert wanted in pickled
    found = kinema.load(path, **TOLD)
    assert found.provenance.facts["min_mpjpe"] == 41.25


@pytest.mark.parametrize("name", [b"cnumpy.core.multiarray\nfromstring\n", b"cposix\nsystem\n", b"cbuiltins\neval\n"])
def test_a_neighbour_of_the_scalar_is_refused(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(os, "system", called.append)
    path = tiny.save(official(made()), tmp_path / "x.pth.tr")
    path = with_globals(path, {b"cnumpy._core.multiarray\nscalar\n": name, b"cnumpy.core.multiarray\nscalar\n": name})
    with pytest.raises(CheckpointError, match="nothing was executed"):
        kinema.load(path, **TOLD)
    assert not called


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_graph_equals_the_eager_model(format: str, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript")
    written = export(made(depth=1), tmp_path / f"x.{format}", format)
    assert written.difference < 1e-4 * max(written.scale, 1.0)


def test_files_nearby_are_listed(tmp_path: Path) -> None:
    tiny.save(official(made()), tmp_path / "best_epoch.pth.tr")
    with pytest.raises(CheckpointError, match=r"Checkpoints nearby: .*best_epoch\.pth\.tr"):
        kinema.load(tmp_path / "best_epoch.pth")
