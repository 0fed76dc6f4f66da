"""Files of PYSKL: what their configuration says, prefixes, stripped ones, and the way back."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kinema
from kinema.checkpoints.export import export
from kinema.checkpoints.mmcv_config import model_config, read_assignments
from kinema.errors import CheckpointError
from kinema.models.ctrgcn import CTRGCN
from kinema.models.stgcn import STGCN
from tests.models import test_ctrgcn as ctr
from tests.models import test_stgcn as st

CTRGCN_TEXT = (
    "graph = 'coco'\n"
    "model = dict(type='RecognizerGCN', backbone=dict(type='CTRGCN', graph_cfg=dict(layout=graph, mode='spatial'), "
    "base_channels=8, num_stages=3, inflate_stages=[2, 3], down_stages=[3], num_person=1, kernel_size=[3, 5, 3], "
    "dilations=[1, 3, 2]), cls_head=dict(type='GCNHead', num_classes=4, in_channels=32, dropout=0.5))\n"
)
STGCN_TEXT = (
    "model = dict(backbone=dict(type='STGCN', graph_cfg=dict(layout='coco', mode='spatial'), base_channels=24, "
    "num_stages=3, inflate_stages=[2], down_stages=[3], gcn_adaptive='init', gcn_with_res=True, tcn_type='mstcn', "
    "tcn_ms_cfg=[(3, 1), (5, 4), ('max', 3), '1x1']), cls_head=dict(num_classes=4, in_channels=48))\n"
)


def a_ctrgcn() -> CTRGCN:
    changes = {"layout": "coco", "edges": None, "num_joints": 17, "persons": 1, "inflate_stages": [2, 3]}
    return ctr.scattered(**changes, kernel_size=[3, 5, 3], dilations=[1, 3, 2]).eval()


def a_stgcn() -> STGCN:
    branches = {"tcn_branches": [3, 5, "max", "1x1"], "tcn_dilations": [1, 4]}
    return st.scattered(layout="coco", edges=None, num_joints=17, **branches).eval()


def written(path: Path, model: nn.Module, text: str | None, prefix: str = "", **torch_options: Any) -> Path:
    state = OrderedDict((prefix + name, tensor) for name, tensor in model.state_dict().items())
    meta = {"epoch": 16, "iter": 192, "mmcv_version": "1.5.0", **({"config": text} if text else {})}
    torch.save({"meta": meta, "state_dict": state}, path, **torch_options)
    return path


def same(found: nn.Module, expected: nn.Module) -> None:
    (pose,) = expected.signature.example(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(found(pose), expected(pose))


@pytest.mark.parametrize(("model", "text"), [(a_ctrgcn(), CTRGCN_TEXT), (a_stgcn(), STGCN_TEXT)], ids=["ctr", "st"])
def test_the_configuration_tells_what_shapes_cannot(tmp_path: Path, model: nn.Module, text: str) -> None:
    loaded = kinema.load(written(tmp_path / "epoch_16.pth", model, text))
    same(loaded, model)
    guessed: Any = loaded.provenance.guessed
    assert not {"down_stages", "dilations", "tcn_dilations", "layout"} & set(guessed)
    # Without it, dilations are those of the published networks.
    alone = kinema.load(written(tmp_path / "stripped.pth", model, None))
    (pose,) = model.signature.example(2, 6)
    with torch.no_grad():
        assert (alone(pose) - model(pose)).abs().max() > 1e-4
    given = {"dilations": [1, 3, 2], "down_stages": [3]} if isinstance(model, CTRGCN) else {"tcn_dilations": [1, 4]}
    same(kinema.load(tmp_path / "stripped.pth", **given), model)


def test_an_override_comes_before_the_configuration(tmp_path: Path) -> None:
    path = written(tmp_path / "epoch_16.pth", a_ctrgcn(), CTRGCN_TEXT)
    assert kinema.load(path, dropout=0.2).arguments["dropout"] == 0.2
    assert kinema.load(path).arguments["dropout"] == 0.5


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod.", "_orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_prefixes_and_both_formats_of_torch(tmp_path: Path, prefix: str, zipped: bool) -> None:
    model = a_stgcn()
    same(
        kinema.load(written(tmp_path / "j.pth", model, STGCN_TEXT, prefix, _use_new_zipfile_serialization=zipped)),
        model,
    )


def test_a_file_of_other_stages_is_refused_with_names(tmp_path: Path) -> None:
    path = written(tmp_path / "j.pth", a_stgcn(), STGCN_TEXT)
    with pytest.raises(CheckpointError, match=r"of another shape|contradicts"):
        kinema.load(path, tcn_branches=[3, 3, "max", "1x1"])


@pytest.mark.parametrize("model", [a_ctrgcn(), a_stgcn()], ids=["ctrgcn", "stgcn"])
def test_official_export_keeps_what_the_file_said(tmp_path: Path, model: nn.Module) -> None:
    text = CTRGCN_TEXT if isinstance(model, CTRGCN) else STGCN_TEXT
    loaded = kinema.load(written(tmp_path / "epoch_16.pth", model, text))
    export(loaded, tmp_path / "again.pth", "official")
    content = torch.load(tmp_path / "again.pth", weights_only=True)
    assert list(content["state_dict"]) == list(model.state_dict())
    assert content["meta"]["config"] == text
    same(kinema.load(tmp_path / "again.pth"), model)


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("safetensors", "safetensors"),
        pytest.param("torch", "pt2", marks=pytest.mark.slow),
        pytest.param("onnx", "onnx", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("model", [a_ctrgcn(), a_stgcn()], ids=["ctrgcn", "stgcn"])
def test_other_exports(tmp_path: Path, model: nn.Module, form: str, suffix: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    written = export(model, tmp_path / f"gcn.{suffix}", form)
    assert written.difference <= 1e-4 * max(written.scale, 1.0)


def test_assignments_are_read_and_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    text = (
        f"a = dict(b=[1, -2.5], c=(None, True), d={{'e': 'f'}})\n"
        f"x = open({str(mark)!r}, 'w')\n"
        f"y = dict(z=__import__('pathlib').Path({str(mark)!r}).touch())\n"
        "import os\n"
        "again = a\n"
        "lost = 1\n"
        "lost = 1 + 1\n"
        "def f(): pass\n"
    )
    values = {"b": [1, -2.5], "c": (None, True), "d": {"e": "f"}}
    assert read_assignments(text) == {"a": values, "again": values}
    assert not mark.exists()


@pytest.mark.parametrize("text", ["model = dict(", "model = " + "(" * 300 + ")" * 300, "\0", "model = 3", ""])
def test_text_that_is_no_configuration_says_nothing(text: str) -> None:
    assert model_config({"meta": {"config": text}}) is None


@pytest.mark.parametrize("rest", [{}, {"meta": None}, {"meta": {}}, {"meta": {"config": 3}}])
def test_files_without_configuration(rest: dict[str, Any]) -> None:
    assert model_config(rest) is None
