"""Files of the published programs: read, run, gone on from, and written back as they were."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from kinema.checkpoints.envelopes import read_weights
from kinema.checkpoints.export import export
from kinema.checkpoints.load import difference, identify, load
from kinema.errors import CheckpointError
from kinema.models.registry import model_class
from tests.parity.golden import FIXTURES, ROOT, Case, cases
from tests.parity.official import ours

pytestmark = pytest.mark.parity


@cases("poseformer", "ckpt_layout")
def test_checkpoint_layout(case: Case, tmp_path: Path) -> None:
    arrays, config = case.arrays(), case.json()
    files = {path.name.split("_epoch_")[0]: path for path in sorted(case.path.glob("*_epoch_*.bin"))}
    assert set(files) == set(config), "one file for each network of config.json"
    draws = [name for name in arrays if name.startswith("random_state")]
    for family, options in config.items():
        path = case.file(files[family].name)
        weights = read_weights(path)
        case.close(f"{family}: epoch", weights.rest["epoch"], int(re.findall(r"_epoch_(\d+)", path.name)[0]))
        assert weights.preprocess == "videopose3d"
        # Going on from the file draws what the published script would have drawn.
        for name in draws:
            count = int(re.findall(r"permutation_(\d+)$", name)[0])
            drawn = read_weights(path).rest["random_state"].permutation(count)
            case.close(f"{family}: {name}", drawn, arrays[name])
        # A trajectory network would stand in the root's slot: the pose network alone is what was run.
        model = load(path, part="model_pos", **ours(options))
        with torch.no_grad():
            found = model(torch.from_numpy(arrays[f"{family}_input"]))
        case.close(f"{family}: output", found, arrays[f"{family}_output"], atol=1e-5)
        # Written back: the same names, the same bits.
        official = torch.load(path, map_location="cpu", weights_only=False)["model_pos"]
        written = export(model, tmp_path / f"{family}.bin", "official")
        back = torch.load(written.path, weights_only=True)["model_pos"]
        with case.check(f"{family}: names written back"):
            assert set(back) == set(official)
        for name, tensor in official.items():
            case.close(f"{family}: {name}", back[name], tensor)
    case.finish()


def _files() -> list[Any]:
    """Every checkpoint of the golden root that a lifter may lie in, whatever its case tests."""
    found = []
    for mark, root in (("", ROOT), ("kept-", FIXTURES)):
        for topic in ("motionbert", "poseformer"):
            for path in sorted((root / topic).rglob("*.bin")):
                found.append(pytest.param(path, id=f"{mark}{topic}/{path.parent.name}/{path.name}"))
    return found


@pytest.mark.parametrize("path", _files())
def test_every_published_layout_is_read(path: Path) -> None:
    weights = read_weights(path)
    prefixes = {name.split(".")[0] for name in weights.state}
    assert "module" not in prefixes, "the DataParallel prefix is stripped"
    try:
        family, stated = identify(weights)
    except CheckpointError as error:  # a head of another task, or a network that has no model file here yet
        assert "no checkpoint of a known family" in str(error)
        if "backbone" not in prefixes:
            return
        weights = read_weights(path, part="backbone")
        family, stated = identify(weights)
        assert f"'backbone' is a {family}" in str(error)
    made = model_class(family)
    heads = {"num_heads": 1} if "num_heads" in made.unknowable else {}
    with torch.device("meta"):
        model = made(**{**made.unknowable, **heads, **stated})
    assert not difference(model, weights.shapes)
