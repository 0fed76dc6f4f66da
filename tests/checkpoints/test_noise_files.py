"""Files of SMRNet and HumanMAC: bare dicts of tensors, told apart by their keys, and back again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kinema
from kinema.checkpoints.export import export, suffix_of
from kinema.checkpoints.load import arguments_of
from kinema.composition import build_model, compose
from kinema.errors import CheckpointError, ConfigError
from kinema.models.humanmac import HumanMAC
from kinema.models.smrnet import SMRNet
from kinema.modes import export as export_mode
from tests.checkpoints import tiny
from tests.models import oracle
from tests.models.test_humanmac import small as small_humanmac
from tests.models.test_smrnet import small as small_smrnet

FAMILIES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "smrnet": (SMRNet, small_smrnet()),
    "humanmac": (HumanMAC, small_humanmac()),
}


def made(family: str, **changes: Any) -> nn.Module:
    cls, arguments = FAMILIES[family]
    model = cls(**{**arguments, **changes}).eval()
    oracle.scatter(model)
    return model


def same(found: nn.Module, model: nn.Module) -> bool:
    inputs = model.signature.example(2)  # type: ignore[operator, union-attr]
    with torch.no_grad():
        return torch.equal(found(*inputs), model(*inputs))


@pytest.mark.parametrize("name", ["ckpt_10.pt", "ckpt_ema_10.pt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_file_tells_all_but_heads_and_dropout(family: str, name: str, tmp_path: Path) -> None:
    model = made(family)
    path = tmp_path / name
    torch.save(model.state_dict(), path)
    found = kinema.load(path, num_heads=4, dropout=0.0)
    assert arguments_of(found) == arguments_of(model)
    assert same(found, model)
    assert (found.provenance.family, found.provenance.envelope, found.provenance.kind) == (family, "bare", "only")
    assert kinema.load(path, num_heads=4).provenance.guessed == {"dropout": type(model).unknowable["dropout"]}
    assert kinema.load(path).provenance.guessed["num_heads"] == 8, "as published"


def test_heads_that_do_not_fit_are_asked_for(tmp_path: Path) -> None:
    path = tiny.save(dict(made("smrnet", dim=12).state_dict()), tmp_path / "ckpt_10.pt")
    with pytest.raises(CheckpointError, match=r"12 channels do not divide into 8 heads.*cannot tell num_heads=8"):
        kinema.load(path)
    assert kinema.load(path, num_heads=3).arguments["num_heads"] == 3  # type: ignore[index]


class _OnCuda:
    """Saves tensors as a GPU machine does: torch asks where a storage lies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_saved_on_a_gpu_come_to_the_cpu(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(family)
    path = tmp_path / "ckpt_ema_1000.pt"
    with monkeypatch.context() as patch:
        _OnCuda(patch)
        torch.save(model.state_dict(), path)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    found = kinema.load(path, num_heads=4)
    assert {str(tensor.device) for tensor in found.state_dict().values()} == {"cpu"}
    assert same(found, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_official_layout_goes_round_exactly(family: str, tmp_path: Path) -> None:
    model = made(family)
    torch.save(model.state_dict(), tmp_path / "ckpt_10.pt")
    loaded = kinema.load(tmp_path / "ckpt_10.pt", num_heads=4)
    written = export(loaded, tmp_path / f"again{suffix_of(loaded, 'official')}", "official")
    assert written.path.suffix == ".pt" and written.difference == 0
    content = torch.load(written.path, weights_only=True)
    assert list(content) == list(model.state_dict()), "names and nothing else"
    assert all(torch.equal(content[name], tensor) for name, tensor in model.state_dict().items())
    made(family).load_state_dict(content, strict=True)


def test_a_trained_network_leaves_as_a_bare_dict_too(tmp_path: Path) -> None:
    """The record says how data were prepared; a bare dict has no place for that."""
    model = made("humanmac")
    content = tiny.lightning(model)
    content["kinema"] |= {"task": "prediction", "preprocess": "root_relative"}
    path = tiny.save(content, tmp_path / "best.ckpt")
    export_mode.run(compose(["mode=export", f"ckpt={path}", f"paths.output_dir={tmp_path / 'run'}"]))
    written = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert set(written) == set(model.state_dict())
    assert all(isinstance(value, Tensor) for value in written.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_safetensors_need_no_overrides(family: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = made(family)
    written = export(model, tmp_path / "x.safetensors", "safetensors")
    assert arguments_of(kinema.load(written.path)) == arguments_of(model)


@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_take_any_batch_and_who_sees_the_condition(family: str, format: str, tmp_path: Path) -> None:
    if format == "onnx" and not all(map(importlib.util.find_spec, ("onnxscript", "onnxruntime"))):
        pytest.skip("needs the extra export")
    depth = 2 if family == "humanmac" else 1
    written = export(made(family, depth=depth), tmp_path / f"x.{'onnx' if format == 'onnx' else 'pt2'}", format)
    assert written.difference <= 1e-4 * max(written.scale, 1)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
        assert [given.name for given in session.get_inputs()] == ["x", "t", "condition", "present"]
        assert [given.name for given in session.get_outputs()] == ["noise"]


def test_what_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = tiny.save(dict(made("smrnet").state_dict()), tmp_path / "ckpt_10.pt")
    with pytest.raises(CheckpointError, match=r"16 channels do not divide into 5 heads"):
        kinema.load(path, num_heads=5)
    with pytest.raises(CheckpointError, match=r"no argument 'ff_dim'"):
        kinema.load(path, ff_dim=10)
    with pytest.raises(CheckpointError, match="Did you mean kept_coeffs"):
        kinema.load(path, n_pre=5)
    with pytest.raises(CheckpointError, match=r"depth=2 contradicts .*depth=3"):
        kinema.load(path, depth=2, num_heads=4)


def test_a_run_takes_the_network_of_the_file(tmp_path: Path) -> None:
    path = tiny.save(dict(made("smrnet", dim=16).state_dict()), tmp_path / "ckpt_ema_10.pt")
    config = compose(["mode=describe", "model=smrnet", f"ckpt='{path}'"])
    model = build_model(config)
    assert arguments_of(model) | {"dropout": 0} == {**small_smrnet(), "num_heads": 8, "dropout": 0}
    assert isinstance(model, SMRNet)


def test_a_file_with_a_missing_tensor_is_reported(tmp_path: Path) -> None:
    state = dict(made("humanmac").state_dict())
    del state["temporal_decoder_blocks.1.ffn.linear2.bias"]
    path = tiny.save(state, tmp_path / "ckpt_10.pt")
    with pytest.raises(CheckpointError, match=r"does not fit humanmac:\n1 missing in the file:\n  temporal_decoder"):
        kinema.load(path, num_heads=4)


def test_the_dead_layer_belongs_to_the_file(tmp_path: Path) -> None:
    model = made("smrnet")
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in model.unused_parameters}  # type: ignore[operator]
    path = tiny.save(state, tmp_path / "ckpt_10.pt")
    with pytest.raises(CheckpointError, match="2 missing in the file"):
        kinema.load(path, num_heads=4)


def test_files_of_an_odd_depth_say_what_is_wrong(tmp_path: Path) -> None:
    state = dict(made("humanmac").state_dict())
    state = {name: tensor for name, tensor in state.items() if "blocks.3." not in name}
    path = tiny.save(state, tmp_path / "ckpt_10.pt")
    with pytest.raises(CheckpointError, match=r"cannot be built: .*3 blocks have no halves"):
        kinema.load(path, num_heads=4)
    with pytest.raises(ConfigError, match=r"Use model\.depth=2"):
        build_model(compose(["model=humanmac_tiny", "model.depth=3"]))
