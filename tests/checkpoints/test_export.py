"""Weights out: readable by the authors' scripts and by ours; graphs equal the eager model; nothing half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kinema
from kinema.checkpoints import export as module
from kinema.checkpoints.export import FORMATS, export
from kinema.checkpoints.load import arguments_of
from kinema.errors import CheckpointError
from tests.checkpoints import tiny

MODELS = {
    "dstformer": ("dstformer", {}),
    "poseformer": ("poseformer", {}),
    "videopose3d": ("videopose3d", {}),
    "videopose3d with trajectory": ("videopose3d", {"trajectory": True}),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_official_layout_is_what_the_authors_write(name: str, tmp_path: Path) -> None:
    family, changes = MODELS[name]
    model = tiny.build(family, **changes)
    written = export(model, tmp_path / "x.bin", "official")
    content = torch.load(written.path, weights_only=True)  # plain: nothing but tensors and numbers
    expected = tiny.official(model)
    for key in ("model_pos", "model_traj"):
        wanted = expected.get(key)
        assert (key in content) == (wanted is not None), "the official scripts crash on model_traj: None"
        if wanted is not None:
            assert list(content[key]) == list(wanted)
            assert all(torch.equal(content[key][name], wanted[name]) for name in wanted)
    assert {"epoch", "lr", "optimizer"} <= set(content)
    assert content["optimizer"] is None
    assert written.difference == 0
    assert written.size == written.path.stat().st_size


def test_epoch_and_rate_of_the_source_are_kept(tmp_path: Path) -> None:
    model = kinema.load(tiny.save(tiny.official(tiny.build("poseformer")), tmp_path / "a.bin"), num_heads=2)
    export(model, tmp_path / "b.bin", "official")
    content = torch.load(tmp_path / "b.bin", weights_only=True)
    assert (content["epoch"], content["lr"]) == (4, 1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_safetensors_are_read_back_without_overrides(name: str, tmp_path: Path) -> None:
    family, changes = MODELS[name]
    source = tiny.save(tiny.official(tiny.build(family, **changes)), tmp_path / "a.bin")
    model = kinema.load(source, **tiny.guesses(tiny.build(family)))
    export(model, tmp_path / "b.safetensors", "safetensors")
    found = kinema.load(tmp_path / "b.safetensors")
    assert arguments_of(found) == arguments_of(model)
    assert tiny.same_output(found, model)
    assert found.provenance.preprocess == model.provenance.preprocess
    assert found.provenance.envelope == "kinema"


@pytest.mark.parametrize("format", ["onnx", "torch"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_graph_equals_the_eager_model_for_any_batch(family: str, format: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = tiny.build(family, **({} if family == "videopose3d" else {"depth": 1}))
    path = tmp_path / f"x{FORMATS[format].suffix}"
    written = export(model, path, format)
    assert written.difference < 1e-4 * written.scale
    pose = tiny.example(model, batch=5)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        (given,) = session.get_inputs()
        assert given.name == "pose"
        assert given.shape[1:] == list(pose.shape[1:])
        found = torch.from_numpy(session.run(None, {"pose": pose.numpy()})[0])
    else:
        found = torch.export.load(path).module()(pose)
    torch.testing.assert_close(found, model(pose), rtol=1e-4, atol=1e-4 * written.scale)
    assert str(path) in str(written)
    assert f"{written.difference:.2e}" in str(written)
    assert list(tmp_path.iterdir()) == [path]


def test_a_graph_may_have_another_length(tmp_path: Path) -> None:
    model = tiny.build("videopose3d")
    export(model, tmp_path / "x.pt2", "torch", frames=14)
    pose = model.signature.example(4, frames=14)[0]
    torch.testing.assert_close(torch.export.load(tmp_path / "x.pt2").module()(pose), model(pose))


def test_the_model_is_not_changed(tmp_path: Path) -> None:
    model = tiny.build("videopose3d").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, tmp_path / "x.bin", "official")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("format", FORMATS)
def test_an_existing_file_is_kept(format: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=r"exists and was kept\. Use export\.overwrite=true"):
        export(tiny.build("poseformer"), path, format)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_replaced_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    model = tiny.build("videopose3d")
    export(model, path, "official", overwrite=True)
    assert tiny.same_output(kinema.load(path), model)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fault", ["differs", "is not a number", "crashes"])
def test_a_file_that_differs_is_never_left(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def write(model: nn.Module, target: Path, example: tuple[Tensor, ...]) -> Any:
        target.write_bytes(b"half")
        if fault == "crashes":
            raise RuntimeError("no space left")
        return lambda pose: model(pose) + (1.0 if fault == "differs" else torch.nan)

    monkeypatch.setitem(module.FORMATS, "official", module._Format(".bin", write))
    expected = (RuntimeError, "no space") if fault == "crashes" else (CheckpointError, "differs from the eager one by")
    with pytest.raises(expected[0], match=expected[1]):
        export(tiny.build("poseformer"), path, "official", overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"export\.format=tflite is unknown\. Use .*official\|safetensors"):
        export(tiny.build("poseformer"), tmp_path / "x", "tflite")


def test_a_family_without_official_layout_is_told_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build("poseformer")
    monkeypatch.setattr(type(model), "registered_name", "linear")
    with pytest.raises(CheckpointError, match=r"linear has no official layout\. Use export\.format=safetensors"):
        export(model, tmp_path / "x.bin", "official")
    assert not list(tmp_path.iterdir())


def test_an_absent_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match=r"pip install 'kinema\[export\]'"):
        export(tiny.build("poseformer"), tmp_path / "x.safetensors", "safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["hmsft", "poseformerv2_27_3_3"])
def test_the_window_networks_become_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = kinema.create(name, num_frames=27, dim=8, depth=1, num_heads=4).eval()
    written = export(model, tmp_path / "x.onnx", "onnx")
    assert written.difference < 1e-4 * written.scale
