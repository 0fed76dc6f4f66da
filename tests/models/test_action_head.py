"""ActionNet: contract, published sizes, a plain loop as oracle, persons, the frozen part of the backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kinema.composition import compose, make
from kinema.errors import CheckpointError, ConfigError, DataError
from kinema.models.action_head import ActionNet
from kinema.models.dstformer import DSTformer
from kinema.models.poseformer import PoseFormer
from kinema.models.registry import recognised
from kinema.tasks.optim import freeze_but
from kinema.testing import check_model

DSTFORMER: dict[str, Any] = {
    "num_frames": 5, "num_joints": 4, "in_channels": 3, "dim": 8, "dim_rep": 6, "depth": 2, "num_heads": 2,
    "mlp_ratio": 2, "qkv_bias": True, "att_fuse": True, "dropout": 0.0, "attn_dropout": 0.0, "drop_path": 0.0,
}  # fmt: skip


def small(**changes: Any) -> dict[str, Any]:
    backbone = {"model": "dstformer", "args": {**DSTFORMER, **changes.pop("inside", {})}}
    values = {
        "backbone": backbone, "head": "class", "hidden": 16, "num_classes": 7, "dropout": 0.3, "groups": None,
        "persons": 2, "mask_persons": True,
    }  # fmt: skip
    return {**values, **changes}


GROUPS = [0, 0, 1, 2, 1, 2, 2]
CASES = (
    small(),
    small(head="embed", num_classes=None, persons=3, mask_persons=False, dropout=0.0, inside={"num_joints": 9}),
    small(head="coarse_fine", groups=GROUPS, persons=1, inside={"num_frames": 9, "num_heads": 4, "drop_path": 0.1}),
)


def net(**changes: Any) -> ActionNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = ActionNet(**small(**changes)).eval()
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand_like(tensor) * 0.4 + 0.1)
    return model


def poses(model: ActionNet, batch: int = 3) -> torch.Tensor:
    return model.signature.example(batch)[0]


def test_keeps_the_model_contract() -> None:
    check_model(ActionNet, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(ActionNet, CASES[2], compile_backend="inductor")


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("action_dstformer", 60, 60_421_193),
        ("action_dstformer_lite", 60, 33_956_425),
        ("action_dstformer_embed", None, 60_294_157),
        ("action_ma52", 52, 5_902_651),
        ("action_ma52_narrow", 52, 2_555_643),
    ],
)
def test_yaml_sizes_are_the_published_ones(name: str, classes: int | None, parameters: int) -> None:
    with torch.device("meta"):
        model = make(compose([f"model={name}"]).model)
    assert model.signature.classes == classes
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_command_line_swaps_the_backbone() -> None:
    words = ["model=action_ma52", "model@model.backbone=motionagformer_xs", "model.backbone.depth=1"]
    model = make(compose(words).model)
    assert (model.arguments["backbone"]["model"], model.backbone.arguments["depth"]) == ("motionagformer", 1)
    assert model(*model.signature.example(2)).shape == (2, 52)


@pytest.mark.parametrize("mask", [True, False])
def test_equals_a_plain_loop_over_persons(mask: bool) -> None:
    model = net(mask_persons=mask)
    pose = poses(model)
    persons = torch.tensor([[True, True], [True, False], [False, True]])
    rows = []
    for clip, present in zip(pose, persons, strict=True):
        seen = [one for one, here in zip(clip, present, strict=True) if here or not mask]
        rows.append(sum(model.backbone.features(one[None])[0].mean(0).flatten() for one in seen) / len(seen))
    head = model.head
    x = (F.linear(torch.stack(rows), head.fc1.weight, head.fc1.bias) - head.bn.running_mean).div(
        (head.bn.running_var + 1e-5).sqrt()
    ) * head.bn.weight + head.bn.bias
    expected = F.linear(x.relu(), head.fc2.weight, head.fc2.bias)
    torch.testing.assert_close(model(pose, persons), expected, rtol=1e-4, atol=1e-4)


def test_a_clip_without_anybody_gives_finite_logits_in_any_company() -> None:
    model = net()
    pose = poses(model)
    nobody = torch.zeros(3, 2, dtype=torch.bool)
    some = nobody.clone()
    some[0, 1] = True
    alone, together = model(pose, nobody), model(pose, some)
    assert alone.isfinite().all()
    torch.testing.assert_close(alone[1:], together[1:])


def test_absent_persons_cost_no_forward_pass() -> None:
    model = net()
    seen: list[int] = []
    hook = model.backbone.joints_embed.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model(poses(model, 4), torch.tensor([[True, False]] * 4))
    hook.remove()
    assert seen == [4]


def test_gradients_of_skipped_persons_are_those_of_masked_ones() -> None:
    model = net(dropout=0.0)
    pose = poses(model)
    persons = torch.tensor([[True, True], [True, False], [True, False]])
    model(pose, persons).square().sum().backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    dense = model._describe(pose.flatten(0, 1)).unflatten(0, (3, 2))
    weights = persons.float() / persons.sum(1, keepdim=True)
    model.head((dense * weights[..., None]).sum(1)).square().sum().backward()
    for one, other in zip(found, [p.grad for p in model.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_lifters_own_head_is_kept_frozen() -> None:
    model = net()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.head.weight", "backbone.head.bias"]
    assert set(frozen) < set(model.state_dict())


def test_distributed_training_waits_for_no_unused_parameter(tmp_path: Path) -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = net().train()
        wrapped = nn.parallel.DistributedDataParallel(model)
        for persons in (torch.tensor([[True, True], [True, False]]), torch.tensor([[True, False]] * 2)):
            wrapped(poses(model, 2), persons).square().sum().backward()
        model.backbone.head.requires_grad_(True)
        naive = nn.parallel.DistributedDataParallel(model)
        with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
            for _ in range(2):
                naive(poses(model, 2)).square().sum().backward()
    finally:
        distributed.destroy_process_group()


class Across(nn.SyncBatchNorm):
    """Notes that a rank came to where the others wait for it; a real one needs GPUs."""

    met = 0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.met += 1
        return input


@pytest.mark.parametrize(("ranks", "met"), [(2, 1), (1, 0)])
def test_a_rank_with_one_clip_takes_part_in_statistics_of_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, met: int
) -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        monkeypatch.setattr(distributed, "get_world_size", lambda *_: ranks)
        model = net().train()
        model.head.bn = Across(model.head.bn.num_features)
        model(poses(model, 1))
        assert model.head.bn.met == met
    finally:
        distributed.destroy_process_group()


def test_partial_training_leaves_the_unused_head_frozen() -> None:
    model = net()
    freeze_but(model, ["head.*", "backbone.*blocks_st*", "backbone.head.*"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    wanted = {name for name in dict(model.named_parameters()) if name.startswith("head.") or "blocks_st" in name}
    assert trained == wanted


def test_coarse_and_fine_probabilities_belong_together() -> None:
    model = net(head="coarse_fine", groups=GROUPS).double()
    log_probs = model(poses(model).double())
    probs = log_probs.exp()
    torch.testing.assert_close(probs.sum(1), torch.ones(3, dtype=torch.float64))
    x = F.relu(model.head.bn(model.head.fc1(model.pool(poses(model).double()))))
    coarse = model.head.fc_group(x).softmax(-1)
    fine = model.head.fc2(x)
    for group in range(3):
        members = [k for k, g in enumerate(GROUPS) if g == group]
        torch.testing.assert_close(probs[:, members].sum(1), coarse[:, group])
        torch.testing.assert_close(probs[:, members], coarse[:, group, None] * fine[:, members].softmax(-1))
    # So cross-entropy of the output is that of the probabilities.
    torch.testing.assert_close(log_probs.log_softmax(-1), log_probs)


def test_embeddings_have_length_one_and_no_classes() -> None:
    model = net(head="embed", num_classes=60, hidden=11)
    assert model.arguments["num_classes"] is model.signature.classes is None
    torch.testing.assert_close(model(poses(model)).norm(dim=1), torch.ones(3))


def test_the_contract_sees_a_network_that_looks_at_absent_persons() -> None:
    class Careless(ActionNet):
        def forward(self, pose: torch.Tensor, persons: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(pose)

    with pytest.raises(AssertionError, match="a person who is absent: differs"):
        check_model(Careless, small())


@pytest.mark.parametrize("changes", [{"head": "embed"}, {"head": "coarse_fine", "groups": GROUPS}])
def test_lengths_and_sums_are_exact_under_autocast(changes: dict[str, Any]) -> None:
    model = net(**changes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(poses(model))
    assert out.dtype == torch.float32
    total = out.norm(dim=1) if changes["head"] == "embed" else out.exp().sum(1)
    torch.testing.assert_close(total, torch.ones(3), rtol=1e-5, atol=1e-5)


def test_a_backbone_may_be_handed_over_as_a_module() -> None:
    backbone = DSTformer(**DSTFORMER)
    model = ActionNet(**{**small(), "backbone": backbone})
    assert model.backbone is backbone
    assert model.arguments == small()


def test_is_recognised_with_its_backbone() -> None:
    answers = recognised({name: tuple(t.shape) for name, t in net().state_dict().items()})
    assert list(answers) == ["action"]
    assert answers["action"]["backbone"]["args"]["depth"] == 2
    assert "num_heads" not in answers["action"]["backbone"]["args"]


def test_other_heads_on_a_backbone_are_not_taken_for_it() -> None:
    shapes = {name: tuple(t.shape) for name, t in net().state_dict().items()}
    mesh = {**{k: v for k, v in shapes.items() if k.startswith("backbone.")}, "head.fc1.weight": (8, 24)}
    assert recognised(mesh) == {}
    foreign = {k: v for k, v in shapes.items() if k.startswith("head.")} | {"backbone.stem.weight": (3, 3)}
    assert recognised(foreign) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "clas"}, r"model\.head=clas is unknown\. Use model\.head=class"),
        ({"num_classes": None}, r"num_classes=None is no number of classes.*model\.head=embed"),
        ({"head": "coarse_fine"}, r"needs the group of each of its 7 classes.*groups=None"),
        ({"head": "coarse_fine", "groups": [0, 2, 0, 0, 0, 0, 0]}, "numbered from 0 without gaps"),
        ({"head": "coarse_fine", "groups": [0, 1]}, "each of its 7 classes"),
    ],
)
def test_refuses_what_makes_no_head(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ActionNet(**small(**changes))


def test_refuses_backbones_without_features() -> None:
    backbone = PoseFormer(
        num_frames=9, num_joints=4, in_channels=2, dim=4, depth=1, num_heads=2, mlp_ratio=2, qkv_bias=True,
        dropout=0.0, attn_dropout=0.0, drop_path=0.0,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"PoseFormer gives no features.*model@model\.backbone=dstformer_lite"):
        ActionNet(**{**small(), "backbone": backbone})
    unregistered = nn.Identity()
    unregistered.signature, unregistered.features = DSTformer(**DSTFORMER).signature, nn.Identity()
    with pytest.raises(ConfigError, match=r"Identity is no registered model.*@register\(name\)"):
        ActionNet(**{**small(), "backbone": unregistered})
    with pytest.raises(CheckpointError, match=r"registered as 'dstfromer'\. Did you mean 'dstformer'"):
        ActionNet(**{**small(), "backbone": {"model": "dstfromer", "args": {}}})


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((1, 3, 5, 4, 3), DataError, "M=2"),
        ((1, 5, 4, 3), DataError, "5 axes"),
        ((1, 2, 6, 4, 3), ConfigError, "at most 5 frames"),
        ((1, 2, 5, 9, 3), DataError, "J=4"),
    ],
)
def test_refuses_other_input(shape: tuple[int, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        net()(torch.zeros(shape))


def test_a_batch_of_one_clip_can_be_trained_on() -> None:
    model = net().train()
    before = model.head.bn.running_mean.clone()
    model(poses(model, 1)).sum().backward()
    assert model.head.fc1.weight.grad is not None
    assert torch.equal(model.head.bn.running_mean, before)
    model(poses(model, 2))
    assert not torch.equal(model.head.bn.running_mean, before)
