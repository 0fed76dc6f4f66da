"""Action networks in files: the fork's, MotionBERT's and PYSKL's layouts, a network inside another one, ways out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kinema
from kinema.checkpoints.envelopes import ENVELOPES, read_weights
from kinema.checkpoints.export import FORMATS, export
from kinema.checkpoints.load import arguments_of
from kinema.checkpoints.transfer import check_fits, transfer
from kinema.composition import build_model, compose
from kinema.core.skeleton import skeleton
from kinema.core.spec import DataSpec
from kinema.errors import CheckpointError
from kinema.models.action_head import ActionNet
from tests.checkpoints import tiny

GROUPS = [0, 0, 1, 2, 1, 2, 2]
SCHEDULER = {"step_size": 1, "gamma": 0.98, "base_lrs": [1e-5, 8e-5], "last_epoch": 3}
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-5}]}


def net(**changes: Any) -> nn.Module:
    values = {
        "backbone": {"model": "dstformer", "args": tiny.DSTFORMER}, "head": "class", "hidden": 16, "num_classes": 7,
        "dropout": 0.3, "groups": None, "persons": 2, "mask_persons": False,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = ActionNet(**{**values, **changes})
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand_like(tensor) + 0.1)
    return model.eval()


def official(model: nn.Module, **extra: Any) -> dict[str, Any]:
    """What train_action.py writes; with a scheduler what the fork's script writes."""
    state = tiny.prefixed(model.state_dict(), "module.")
    content = {"epoch": 4, "lr": [1e-5, 8e-5], "optimizer": OPTIMIZER, "model": state, "best_acc": torch.tensor(42.5)}
    return content | extra


def saved(folder: Path, model: nn.Module, **extra: Any) -> Path:
    return tiny.save(official(model, **extra), folder / "best_epoch.bin")


# --- layouts


@pytest.mark.parametrize(
    ("content", "envelope", "preprocess"),
    [
        (official(net(), scheduler=SCHEDULER), "ma52_fork", "ma52_fork"),
        (official(net()), "motionbert_action", "ntu_compat"),
        ({"model": net().state_dict()}, "motionbert_action", "ntu_compat"),
        (official(net(head="embed")), "motionbert_action", "ntu_compat"),
        (official(net(), preprocess="ma52"), "motionbert_action", "ma52"),
        ({"model": {"module.backbone.norm.weight": torch.ones(2), "module.head.fc1.weight": torch.ones(2, 2),
                    "module.head.bn1.weight": torch.ones(2)}}, "model", None),
        ({"model": {"backbone.norm.weight": torch.ones(2)}, "scheduler": {}}, "model", None),
    ],
    ids=["fork", "motionbert", "stripped", "embedding", "told", "mesh", "another program with a scheduler"],
)  # fmt: skip
def test_the_layout_decides_the_preprocessing(
    content: dict[str, Any], envelope: str, preprocess: str | None, tmp_path: Path
) -> None:
    found = read_weights(tiny.save(content, tmp_path / "x.bin"))
    assert (found.envelope, found.preprocess) == (envelope, preprocess)
    assert [one.name for one in ENVELOPES if one.matches(content)] == [envelope]


@pytest.mark.parametrize(("joints", "preprocess"), [(17, "pyskl_2d"), (25, "pyskl_3d"), (9, None)])
@pytest.mark.parametrize("meta", [{"meta": {"epoch": 3}}, {"meta": None}, {}], ids=["meta", "none", "stripped"])
def test_pyskl_files_are_known_by_their_names(
    meta: dict[str, Any], joints: int, preprocess: str | None, tmp_path: Path
) -> None:
    state = {"backbone.gcn.0.gcn.A": torch.ones(3, joints, joints), "cls_head.fc_cls.weight": torch.ones(2, 2)}
    content = {"state_dict": tiny.prefixed(state, "module."), **meta}
    found = read_weights(tiny.save(content, tmp_path / "j.pth"))
    assert (found.envelope, found.preprocess) == ("mmcv", preprocess)
    assert set(found.state) == set(state)
    assert [one.name for one in ENVELOPES if one.matches(content)] == ["mmcv"]


def test_the_best_score_of_mmcv_becomes_a_number(tmp_path: Path) -> None:
    from kinema.checkpoints.load import _facts

    hooks = {"best_score": np.float64(0.8125), "best_ckpt": "epoch_3.pth"}
    state = {"cls_head.fc_cls.weight": torch.ones(2, 2)}
    content = {"state_dict": state, "meta": {"epoch": 3, "hook_msgs": hooks, "seed": 1}, "optimizer": OPTIMIZER}
    facts = _facts(read_weights(tiny.save(content, tmp_path / "x.pth")).rest)
    assert facts == {"best_score": 0.8125, "best_ckpt": "epoch_3.pth", "epoch": 3, "seed": 1}
    assert type(facts["best_score"]) is float


# --- a network inside another one


def test_everything_but_the_guessed_values_is_read_from_the_weights(tmp_path: Path) -> None:
    model = net()
    found = kinema.load(saved(tmp_path, model), num_heads=2)
    assert tiny.same_output(found, model)
    assert arguments_of(found) == {**arguments_of(model), "dropout": 0.0}
    assert found.provenance.arguments == arguments_of(found)
    guessed = {"dropout", "groups", "persons", "mask_persons", "backbone.dropout", "backbone.attn_dropout"}
    assert set(found.provenance.guessed) == {*guessed, "backbone.drop_path"}
    assert found.provenance.facts == {"epoch": 4, "lr": [1e-5, 8e-5], "best_acc": 42.5}
    assert found.provenance.family == "action"


@pytest.mark.parametrize(
    "said",
    [{"num_heads": 2}, {"backbone.num_heads": 2}, {"backbone": {"num_heads": 2}}],
    ids=["alone", "dotted", "in a dict"],
)
def test_a_value_of_the_backbone_is_said_in_three_ways(said: dict[str, Any], tmp_path: Path) -> None:
    model = net()
    assert tiny.same_output(kinema.load(saved(tmp_path, model), **said), model)


def test_a_name_that_both_have_goes_to_the_outer_network(tmp_path: Path) -> None:
    path = saved(tmp_path, net())
    found = kinema.load(path, dropout=0.7, backbone={"dropout": 0.1})
    assert (found.arguments["dropout"], found.backbone.arguments["dropout"]) == (0.7, 0.1)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"num_head": 2}, r"action has no argument 'num_head'\. Did you mean backbone\.num_heads"),
        ({"maxlen": 5}, r"'maxlen'\. Did you mean backbone\.num_frames"),
        ({"backbone": {"n_layers": 5}}, r"'backbone\.n_layers'\. Did you mean backbone\.depth"),
        ({"depth": 3}, r"backbone\.depth=3 contradicts .*whose tensors give backbone\.depth=2"),
        ({"num_classes": 8}, r"num_classes=8 contradicts .*num_classes=7"),
        ({"backbone": "posemamba"}, r"backbone=posemamba contradicts the file, whose backbone is a dstformer"),
    ],
)
def test_overrides_that_cannot_be_right_are_refused(said: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        kinema.load(saved(tmp_path, net()), **said)


def test_the_backbone_alone_is_a_lifter(tmp_path: Path) -> None:
    model = net()
    found = kinema.load(saved(tmp_path, model), part="backbone", num_heads=2)
    assert tiny.same_output(found, model.backbone)
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_kinemas_own_file_tells_everything_of_both_networks(tmp_path: Path) -> None:
    model = net(head="coarse_fine", groups=GROUPS, mask_persons=True, persons=3)
    path = tiny.save(tiny.lightning(model, task="action"), tmp_path / "x.ckpt")
    found = kinema.load(path)
    assert arguments_of(found) == arguments_of(model)
    assert tiny.same_output(found, model)
    assert found.provenance.guessed == {}
    backbone = kinema.load(path, part="backbone")
    assert arguments_of(backbone) == tiny.DSTFORMER
    assert (backbone.provenance.family, backbone.provenance.guessed) == ("dstformer", {})
    with pytest.raises(
        CheckpointError, match=r"backbone\.num_heads=4 contradicts .*trained with backbone\.num_heads=2"
    ):
        kinema.load(path, num_heads=4)
    assert kinema.load(path, backbone={"drop_path": 0.3}).backbone.arguments["drop_path"] == 0.3


def test_resuming_into_other_sizes_says_the_override_that_fits(tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(net()), tmp_path / "x.ckpt")
    check_fits(net(), path)
    inside = {"model": "dstformer", "args": {**tiny.DSTFORMER, "num_heads": 4}}
    with pytest.raises(CheckpointError, match=r"Use model\.backbone\.num_heads=2\.$"):
        check_fits(net(backbone=inside), path)
    with pytest.raises(CheckpointError, match=r"Use model\.num_classes=7\.$"):
        check_fits(net(num_classes=9), path)
    inside["args"]["num_joints"] = 9
    with pytest.raises(CheckpointError, match="was trained for 7 joints but dataset=here has 9"):
        check_fits(net(backbone=inside), path, dataset="here")
    other = kinema.create("motionagformer_xs")
    with pytest.raises(CheckpointError, match=r"backbone=dstformer .*Use model@model\.backbone=<a size of dstformer>"):
        check_fits(net(backbone=other), path)


# --- a lifter's weights into the backbone


def test_a_lifter_starts_an_action_network(tmp_path: Path) -> None:
    lifter, model = tiny.build("dstformer"), net()
    head = {name: tensor.clone() for name, tensor in model.head.state_dict().items()}
    report = transfer(model, tiny.save(tiny.official(lifter), tmp_path / "l.bin"))
    assert tiny.same_output(model.backbone, lifter)
    assert (report.target, report.mismatched, report.missing, report.unused) == ("backbone.", (), (), ())
    assert all(torch.equal(tensor, head[name]) for name, tensor in model.head.state_dict().items())


def test_a_lifter_of_other_widths_is_refused(tmp_path: Path) -> None:
    state = {name: torch.zeros(7, *tensor.shape) for name, tensor in tiny.build("dstformer").state_dict().items()}
    path = tiny.save({"model_pos": state}, tmp_path / "l.bin")
    with pytest.raises(CheckpointError, match=r"Nothing of .* fits the model"):
        transfer(net(), path)


# --- out


def test_a_forks_file_is_written_back_with_its_scheduler(tmp_path: Path) -> None:
    model = kinema.load(saved(tmp_path, net(), scheduler=SCHEDULER), num_heads=2)
    export(model, tmp_path / "out.bin", "official")
    content = torch.load(tmp_path / "out.bin", weights_only=True)
    assert set(content) == {"epoch", "lr", "optimizer", "scheduler", "model", "best_acc"}
    assert (content["epoch"], content["lr"], content["best_acc"]) == (4, [1e-5, 8e-5], 42.5)
    assert content["scheduler"] == SCHEDULER
    assert content["optimizer"]["param_groups"] == OPTIMIZER["param_groups"]
    assert all(name.startswith("module.") for name in content["model"])


def test_states_of_other_weights_are_not_carried_along(tmp_path: Path) -> None:
    model = kinema.load(saved(tmp_path, net(), scheduler=SCHEDULER), num_heads=2)
    with torch.no_grad():
        model.head.fc2.bias.add_(1)
    export(model, tmp_path / "out.bin", "official")
    content = torch.load(tmp_path / "out.bin", weights_only=True)
    assert (content["optimizer"], content["scheduler"]) == (None, None)


def test_motionberts_file_has_no_scheduler_and_a_fresh_network_follows_it(tmp_path: Path) -> None:
    for model in (kinema.load(saved(tmp_path, net()), num_heads=2), net()):
        export(model, tmp_path / "out.bin", "official", overwrite=True)
        content = torch.load(tmp_path / "out.bin", weights_only=True)
        assert set(content) == {"epoch", "lr", "optimizer", "model", "best_acc"}
        assert kinema.load(tmp_path / "out.bin").provenance.preprocess == "ntu_compat"


@pytest.mark.parametrize(
    ("preprocess", "envelope"),
    [("ma52", "motionbert_action"), ("ma52_fork", "ma52_fork"), ("heading", "motionbert_action")],
)
def test_the_preprocessing_survives_an_official_layout(preprocess: str, envelope: str, tmp_path: Path) -> None:
    spec = DataSpec(
        skeleton=skeleton("h36m17"), skeleton2d=None, in_channels=3, unit="m", space="world", preprocess=preprocess,
        fps=None, has_3d=True, tasks=frozenset({"action"}), persons=2,
    )  # fmt: skip
    model = kinema.load(tiny.save(tiny.lightning(net(), spec=spec), tmp_path / "x.ckpt"))
    export(model, tmp_path / "out.bin", "official")
    found = kinema.load(tmp_path / "out.bin", num_heads=2)
    assert (found.provenance.envelope, found.provenance.preprocess) == (envelope, preprocess)


def test_coarse_and_fine_heads_have_no_official_layout(tmp_path: Path) -> None:
    model = net(head="coarse_fine", groups=GROUPS)
    with pytest.raises(CheckpointError, match=r"head=coarse_fine has no official layout.*format=safetensors"):
        export(model, tmp_path / "x.bin", "official")
    export(model, tmp_path / "x.safetensors", "safetensors")
    assert arguments_of(kinema.load(tmp_path / "x.safetensors")) == arguments_of(model)


def present(batch: int) -> Tensor:
    return torch.arange(batch * 2).view(batch, 2) % 3 != 1


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_graph_is_told_who_is_present(format: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = net(mask_persons=True)
    path = tmp_path / f"x{FORMATS[format].suffix}"
    export(model, path, format)
    pose, persons = tiny.example(model, batch=5), present(5)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        assert [given.name for given in session.get_inputs()] == ["pose", "persons"]
        (out,) = session.run(None, {"pose": pose.numpy(), "persons": persons.numpy()})
        found = torch.from_numpy(out)
    else:
        found = torch.export.load(path).module()(pose, persons)
    torch.testing.assert_close(found, model(pose, persons), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, model(pose), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{"mask_persons": False}, {"mask_persons": True, "persons": 1}])
def test_a_graph_that_looks_at_everybody_takes_the_poses_alone(changes: dict[str, Any], tmp_path: Path) -> None:
    model = net(**changes)
    export(model, tmp_path / "x.pt2", "torch")
    pose = tiny.example(model, batch=3)
    torch.testing.assert_close(torch.export.load(tmp_path / "x.pt2").module()(pose), model(pose))


def test_the_forks_layout_goes_with_four_heads(tmp_path: Path) -> None:
    inside = {"model": "dstformer", "args": {**tiny.DSTFORMER, "num_heads": 4}}
    model = net(backbone=inside)
    fork, upstream = saved(tmp_path, model, scheduler=SCHEDULER), tmp_path / "upstream.bin"
    tiny.save(official(model), upstream)
    found = kinema.load(fork)
    assert found.provenance.guessed["backbone.num_heads"] == 4
    assert tiny.same_output(found, model)
    assert kinema.load(fork, part="backbone").arguments["num_heads"] == 4
    assert kinema.load(upstream).backbone.arguments["num_heads"] == 8


# --- with a configuration


def composed(path: Path, *words: str) -> nn.Module:
    inside = ["num_frames=5", "num_joints=7", "dim=8", "dim_rep=6", "depth=2", "num_heads=2"]
    sizes = [f"model.backbone.{word}" for word in inside] + ["model.hidden=16", "model.num_classes=7"]
    return build_model(compose(["model=action_dstformer", *sizes, f"ckpt={path}", *words]))


def test_the_yaml_of_the_files_size_tells_its_heads_but_not_whom_it_looks_at(tmp_path: Path) -> None:
    model = composed(saved(tmp_path, net()))
    assert (model.backbone.arguments["num_heads"], model.arguments["dropout"]) == (2, 0.5)
    assert model.arguments["mask_persons"] is False  # as published, though the yaml has true


def test_a_yaml_of_other_sizes_says_nothing(tmp_path: Path) -> None:
    model = composed(saved(tmp_path, net()), "model.backbone.depth=3")
    assert model.backbone.arguments["num_heads"] == 8
