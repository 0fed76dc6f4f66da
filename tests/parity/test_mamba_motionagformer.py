"""MotionAGFormer against the published program: numbers, files of either kind, and files written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kinema
from kinema.checkpoints.envelopes import read_weights
from kinema.checkpoints.export import export
from kinema.checkpoints.files import read_content
from tests.parity.golden import FIXTURES, ROOT, Case, cases
from tests.parity.official import ours

pytestmark = pytest.mark.parity

TOPIC = "mamba/motionagformer"
# Read from a file: what its tensors tell. The first value of a layer scale and the frames of a TCN they do not.
SILENT = {"layer_scale", "num_frames"}


def told(config: dict[str, Any]) -> dict[str, Any]:
    """Official constructor values under our names."""
    values = dict(config)
    similar, scaled = values.pop("use_temporal_similarity"), values.pop("use_layer_scale")
    values = {**ours(values), "temporal_graph": "similarity" if similar else "fixed"}
    return values if scaled else {**values, "layer_scale": None}


def checkpoint(case: Case) -> Path:
    (path,) = case.path.glob("*.pth.tr")
    return case.file(path.name)


def check_outputs(case: Case, model: torch.nn.Module, how: str) -> None:
    arrays = case.arrays()
    pose = torch.from_numpy(arrays["x"])
    with torch.no_grad():
        case.close(f"y, {how}", model(pose), arrays["y"], atol=5e-5)
        case.close(f"rep, {how}", model.features(pose), arrays["rep"], atol=5e-5)
        double = model.double()
        case.close(f"y in float64, {how}", double(pose.double()), arrays["y"], atol=5e-5)
    model.float()


@cases(TOPIC, "")
def test_motionagformer(case: Case, tmp_path: Path) -> None:
    path, config = checkpoint(case), told(case.json())
    weights = read_weights(path)
    assert (weights.envelope, weights.preprocess) == ("motionagformer", "motionbert")
    model = kinema.load(path, **config)
    with case.check("what the file tells is what the program was built with"):
        recognised = type(model).recognise(weights.shapes)
        apart = {name: (value, config[name]) for name, value in recognised.items() if config[name] != value}
        assert set(apart) <= SILENT, apart
        if "layer_scale" in apart:
            assert None not in apart["layer_scale"], apart
        if "num_frames" in apart:
            assert config["use_tcn"], apart
    check_outputs(case, model, "official file")

    written = export(model, tmp_path / "best_epoch.pth.tr", "official")
    official = torch.load(path, weights_only=True)
    back = torch.load(written.path, weights_only=True)
    with case.check("names written back"):
        assert set(back["model"]) == set(official["model"])
    for name, tensor in official["model"].items():
        case.close(f"{name} written back", back["model"][name], tensor)
    for key in ("epoch", "lr", "min_mpjpe"):
        case.close(f"{key} written back", back[key], official[key])
    bare = {name.removeprefix("module."): tensor for name, tensor in official["model"].items()}
    torch.save({**official, "model": bare}, tmp_path / "bare.pth.tr")
    check_outputs(case, kinema.load(tmp_path / "bare.pth.tr", **config), "without DataParallel prefix")
    check_outputs(case, kinema.load(written.path, **config), "our file")
    case.finish()


def _single_files() -> list[Any]:
    """Checkpoints that lie beside the case folders."""
    found = []
    for mark, root in (("", ROOT), ("kept-", FIXTURES)):
        for path in sorted((root / TOPIC).glob("*.tr")):
            found.append(pytest.param(path, id=f"{mark}{TOPIC}/{path.name}"))
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("path", _single_files())
def test_a_file_with_old_numpy_scalars_opens_safely(path: Path) -> None:
    with pytest.raises(Exception, match="numpy"):
        torch.load(path, weights_only=True)
    before = set(torch.serialization.get_safe_globals())
    content = read_content(path)
    assert set(torch.serialization.get_safe_globals()) == before, "the allow-list ends with the reading"
    assert isinstance(content["min_mpjpe"], np.float64)
    weights = read_weights(path)
    assert weights.envelope == "motionagformer"
    # Its weights are those of one of the cases, whose numbers must come out of it.
    owners = [
        folder
        for folder in sorted(path.parent.iterdir())
        if folder.is_dir() and same(read_weights(next(folder.glob("*.pth.tr"))).state, weights.state)
    ]
    assert owners, "no case has these weights"
    case = Case(owners[0])
    model = kinema.load(path, **told(case.json()))
    assert model.provenance.facts["min_mpjpe"] == float(content["min_mpjpe"])
    checkpoint(case)
    check_outputs(case, model, path.name)
    case.finish()
