"""Files of the published programs: read, run, gone on from, and written back as they were."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from kinema.checkpoints.envelopes import read_weights
from kinema.checkpoints.export import export
from kinema.checkpoints.files import SUFFIXES
from kinema.checkpoints.load import difference, identify, load
from kinema.errors import CheckpointError
from kinema.models.registry import model_class, models
from tests.parity.golden import FIXTURES, ROOT, Case, cases
from tests.parity.official import ours

pytestmark = pytest.mark.parity

# Values that some files do not tell and that shape no tensor; these fit every file.
TOLD = {"num_heads": 1, "num_frames": 243}


@cases("poseformer", "ckpt_layout")
def test_checkpoint_layout(case: Case, tmp_path: Path) -> None:
    arrays, config = case.arrays(), case.json()
    paths = sorted(case.path.glob("*.bin"))
    files = {family: path for path in paths for family in sorted(config) if path.name.startswith(f"{family}_")}
    assert set(files) == set(config) and len(paths) == len(files), "one file for each network of config.json"
    draws = [name for name in arrays if name.startswith("random_state")]
    for family, options in config.items():
        path = case.file(files[family].name)
        weights = read_weights(path)
        numbers = re.findall(r"_epoch_(\d+)", path.name)  # best_epoch.bin has none
        case.close(f"{family}: epoch", weights.rest["epoch"], int(numbers[0]) if numbers else weights.rest["epoch"])
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


def _files() -> list[tuple[str, Path]]:
    """Every checkpoint under the golden roots, whatever its topic and its case test: its id, and the file."""
    return [
        (f"{mark}{path.relative_to(root)}", path)
        for mark, root in (("", ROOT), ("kept-", FIXTURES))
        for path in sorted(root.rglob("*"))
        if path.suffix in SUFFIXES and path.is_file()
    ]


def test_checkpoints_of_every_topic_are_walked() -> None:
    topics = {path.relative_to(FIXTURES).parts[0] for name, path in _files() if name.startswith("kept-")}
    assert {"poseformer", "mamba"} <= topics


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in _files()])
def test_every_published_layout_is_read(path: Path) -> None:
    weights = read_weights(path)
    prefixes = {name.split(".")[0] for name in weights.state}
    assert "module" not in prefixes, "the DataParallel prefix is stripped"
    # A folder below its topic may be called after a family.
    root = FIXTURES if path.is_relative_to(FIXTURES) else ROOT
    named = set(path.relative_to(root).parts[1:-1]) & set(models())
    try:
        family, stated = identify(weights)
    except CheckpointError as error:  # of another task, a layer alone, or a network that has no model file here yet
        assert "no checkpoint of a known family" in str(error)
        assert not named, f"it lies in {named}"
        if prefixes != {"backbone", "head"}:  # MotionBERT's networks for other tasks
            return
        weights = read_weights(path, part="backbone")
        family, stated = identify(weights)
        assert f"'backbone' is a {family}" in str(error)
    assert not named or family in named
    made = model_class(family)
    told = {name: value for name, value in TOLD.items() if name in made.unknowable}
    with torch.device("meta"):
        model = made(**{**made.unknowable, **told, **stated})
    assert not difference(model, weights.shapes)
