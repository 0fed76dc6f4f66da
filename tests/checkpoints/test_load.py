"""`kinema.load`: any file in, the same network out; what does not fit is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kinema
from kinema.checkpoints.envelopes import read_weights
from kinema.checkpoints.load import arguments_of, identify
from kinema.core.skeleton import skeleton
from kinema.core.spec import DataSpec
from kinema.errors import CheckpointError
from kinema.models import registry
from tests.checkpoints import tiny

SPEC = DataSpec(
    skeleton=skeleton("h36m17"),
    skeleton2d=skeleton("h36m17"),
    in_channels=3,
    unit="m",
    space="camera",
    preprocess="videopose3d",
    fps=50.0,
    has_3d=True,
    tasks=frozenset({"lifting"}),
)


@pytest.mark.parametrize("layout", ["official", "old official", "model_pos", "bare", "state_dict", "safetensors"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_file_gives_the_same_network(family: str, layout: str, tmp_path: Path) -> None:
    model = tiny.build(family)
    path = tmp_path / "best_epoch.bin"
    if layout == "safetensors":
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    else:
        content = {"model_pos": tiny.official(model)["model_pos"], "bare": model.state_dict()}
        content["state_dict"] = {"state_dict": model.state_dict()}
        tiny.save(content.get(layout, tiny.official(model)), path, old=layout.startswith("old"))
    drawn = torch.random.get_rng_state()
    found = kinema.load(path, **tiny.guesses(model))
    assert type(found) is type(model)
    assert arguments_of(found) == arguments_of(model)
    assert not found.training
    assert tiny.same_output(found, model)
    assert torch.equal(torch.random.get_rng_state(), drawn), "loading drew from the caller's generator"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_provenance_says_where_everything_came_from(family: str, tmp_path: Path) -> None:
    model = tiny.build(family)
    path = tiny.save(tiny.official(model), tmp_path / "latest.bin")
    heads = {"num_heads": 2} if "num_heads" in model.arguments else {}
    provenance = kinema.load(path, **heads).provenance
    assert provenance.family == family
    assert provenance.path == path
    assert provenance.envelope == ("motionbert" if family == "dstformer" else family)
    assert provenance.preprocess == ("motionbert" if family == "dstformer" else "videopose3d")
    assert set(provenance.guessed) == set(type(model).unknowable) - set(heads)
    assert provenance.arguments == arguments_of(model)
    assert provenance.facts["epoch"] == 4
    assert provenance.facts.get("min_loss", 41.5) == 41.5
    assert "optimizer" not in provenance.facts
    assert (provenance.spec, provenance.task, provenance.config) == (None, None, None)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_ckpt_of_ours_needs_no_overrides(family: str, tmp_path: Path) -> None:
    model = tiny.build(family)
    config = {"dataset": {"name": "cmu"}, "seed": 1}
    content = tiny.lightning(model, task="lifting", spec=SPEC, config=config)
    found = kinema.load(tiny.save(content, tmp_path / "best.ckpt"))
    assert tiny.same_output(found, model)
    assert arguments_of(found) == arguments_of(model)
    provenance = found.provenance
    assert (provenance.task, provenance.config, provenance.spec) == ("lifting", config, SPEC)
    assert (provenance.preprocess, provenance.guessed, provenance.kind) == ("videopose3d", {}, "only")
    assert provenance.facts["global_step"] == 12


def test_averaged_weights_are_taken_unless_live_ones_are_asked_for(tmp_path: Path) -> None:
    averaged, live = tiny.build("poseformer"), tiny.build("poseformer")
    with torch.no_grad():
        live.head[1].bias += 1
    path = tiny.save(tiny.lightning(averaged, live=live.state_dict()), tmp_path / "last.ckpt")
    found = kinema.load(path)
    assert tiny.same_output(found, averaged)
    assert found.provenance.kind == "averaged"
    found = kinema.load(path, weights="live")
    assert tiny.same_output(found, live)
    assert found.provenance.kind == "live"


def test_a_record_names_a_registered_model_only(tmp_path: Path) -> None:
    content = tiny.lightning(tiny.build("poseformer"))
    content["kinema"]["model"] = "poseformr"
    with pytest.raises(CheckpointError, match=r"registered as 'poseformr'\. Did you mean 'poseformer'"):
        kinema.load(tiny.save(content, tmp_path / "x.ckpt"))


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    model = tiny.build("videopose3d")
    state = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    found = kinema.load(tiny.save(state, tmp_path / "half.pt"))
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    torch.testing.assert_close(found(tiny.example(model)), model(tiny.example(model)), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("name", ["poseformer.bin", "dstformer.bin", "checkpoint"])
def test_a_file_is_what_its_tensors_say_not_its_name(family: str, name: str, tmp_path: Path) -> None:
    path = tiny.save(tiny.official(tiny.build(family)), tmp_path / name)
    assert identify(read_weights(path))[0] == family


# --- several networks in one file


def test_the_trajectory_twin_is_nested(tmp_path: Path) -> None:
    model = tiny.build("videopose3d", trajectory=True)
    path = tiny.save(tiny.official(model), tmp_path / "detectron.bin")
    found = kinema.load(path)
    assert found.signature.trajectory
    assert tiny.same_output(found, model)
    alone = kinema.load(path, part="model_pos")
    assert not alone.signature.trajectory
    pose = tiny.example(model)
    assert torch.equal(alone(pose)[:, :, 1:], model(pose)[:, :, 1:])
    twin = kinema.load(path, part="model_traj", in_channels=2, num_joints=5)
    assert torch.equal(twin(pose)[:, :, 0], model(pose)[:, :, 0])


def test_a_backbone_is_taken_out_of_an_action_checkpoint(tmp_path: Path) -> None:
    backbone = tiny.build("dstformer")
    state = tiny.prefixed(backbone.state_dict(), "module.backbone.")
    state |= {"module.head.fc1.weight": torch.rand(4, 42), "module.head.bn.running_mean": torch.rand(4)}
    path = tiny.save(
        {"epoch": 3, "lr": [1e-4, 1e-3], "model": state, "best_acc": torch.tensor(41.5)}, tmp_path / "a.bin"
    )
    with pytest.raises(CheckpointError, match=r"first 'backbone\..*part 'backbone' is a dstformer.*part='backbone'\)"):
        kinema.load(path)
    found = kinema.load(path, part="backbone", num_heads=2)
    assert tiny.same_output(found, backbone)
    assert (found.provenance.part, found.provenance.facts["best_acc"]) == ("backbone", 41.5)


# --- overrides


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("num_head", r"no argument 'num_head'\. Did you mean num_heads\?"),
        ("dim_feat", r"no argument 'dim_feat'\. Did you mean dim\?"),
        ("maxlen", r"no argument 'maxlen'\. Did you mean num_frames\?"),
        ("qqq", r"no argument 'qqq'\. It has: num_frames, "),
    ],
)
def test_an_unknown_override_gets_the_nearest_name(name: str, sentence: str, tmp_path: Path) -> None:
    path = tiny.save(tiny.build("dstformer").state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=sentence):
        kinema.load(path, num_heads=2, **{name: 1})


def test_an_override_that_the_tensors_contradict_is_refused(tmp_path: Path) -> None:
    path = tiny.save(tiny.build("dstformer").state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"dim=16 contradicts .*x\.pt, whose tensors give dim=8\. Drop"):
        kinema.load(path, num_heads=2, dim=16)
    assert kinema.load(path, num_heads=2, dim=8).arguments["dim"] == 8


def test_an_override_that_the_record_contradicts_is_refused(tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(tiny.build("dstformer")), tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"num_heads=4 contradicts .*x\.ckpt, .*trained with num_heads=2\. Drop"):
        kinema.load(path, num_heads=4)
    assert kinema.load(path, drop_path=0.2, num_heads=2).arguments["drop_path"] == 0.2


def test_a_published_value_that_cannot_be_is_named_as_a_guess(tmp_path: Path) -> None:
    path = tiny.save(tiny.build("dstformer", dim=6).state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"8 heads.*cannot tell num_heads=8, .*say others"):
        kinema.load(path)


def test_identify_tells_what_the_file_states(tmp_path: Path) -> None:
    model = tiny.build("videopose3d")
    family, stated = identify(read_weights(tiny.save(tiny.official(model), tmp_path / "x.bin")))
    assert family == "videopose3d"
    assert stated == {key: value for key, value in arguments_of(model).items() if key not in type(model).unknowable}
    assert identify(read_weights(tiny.save(tiny.lightning(model), tmp_path / "x.ckpt"))) == (
        "videopose3d",
        arguments_of(model),
    )


# --- what does not fit


def test_a_foreign_checkpoint_is_named(tmp_path: Path) -> None:
    state = {"stem.conv1.weight": torch.ones(2, 2), **{f"layer{i}.weight": torch.ones(1) for i in range(211)}}
    path = tiny.save({"model": state}, tmp_path / "best_epoch.bin")
    known = ", ".join(sorted(registry.models()))
    with pytest.raises(CheckpointError) as caught:
        kinema.load(path)
    assert str(caught.value) == (
        f"{path} is no checkpoint of a known family: 212 tensors, first 'stem.conv1.weight'. "
        f"Known: {known} (kinema models)."
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_known_names_of_unknown_shapes_are_foreign(family: str, tmp_path: Path) -> None:
    state = {name: torch.ones(()) for name in tiny.build(family).state_dict()}
    with pytest.raises(CheckpointError, match="no checkpoint of a known family"):
        kinema.load(tiny.save(state, tmp_path / "x.pt"))


def test_two_families_that_answer_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Twin(nn.Module):
        @classmethod
        def recognise(cls, shapes: Any) -> dict[str, Any]:
            return {}

    registry.models()
    monkeypatch.setitem(registry._MODELS, "twin", Twin)
    path = tiny.save(tiny.build("poseformer").state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"fits 2 families \(poseformer, twin\)"):
        kinema.load(path)


def test_the_report_has_three_lists_with_counts(tmp_path: Path) -> None:
    model = tiny.build("dstformer", depth=3)
    state = model.state_dict()
    for name in list(state):
        if name.startswith("blocks_ts.2."):
            del state[name]
    state["head.bias"] = torch.ones(4)
    state.update({f"extra.{i}": torch.ones(1) for i in range(3)})
    with pytest.raises(CheckpointError) as caught:
        kinema.load(tiny.save(state, tmp_path / "x.pt"), num_heads=2)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path / 'x.pt'} does not fit dstformer:"
    assert lines[1] == "24 missing in the file:"
    assert lines[2] == "  blocks_ts.2.norm1_s.weight"
    assert lines[11] == "  ... and 15 more"
    assert lines[12:16] == ["3 unexpected in the file:", "  extra.0", "  extra.1", "  extra.2"]
    assert lines[16:] == ["1 of another shape:", "  head.bias (4,) in the file, (3,) in the model"]


def test_arguments_of_a_module_that_keeps_none() -> None:
    with pytest.raises(CheckpointError, match=r"Linear is no registered model.*self\.arguments"):
        arguments_of(nn.Linear(2, 2))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_arguments_are_plain_and_a_copy(family: str) -> None:
    model = tiny.build(family)
    arguments = arguments_of(model)
    # PoseFormer was not told its joints out: as many as in.
    expected = tiny.FAMILIES[family] | ({"num_joints_out": 6} if family == "poseformer" else {})
    assert json.loads(json.dumps(arguments)) == arguments == expected
    arguments.clear()
    assert model.arguments
