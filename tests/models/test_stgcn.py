"""ST-GCN and ST-GCN++: contract, published sizes, plain layers as oracle, persons, refused options."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import kinema
from kinema.errors import ConfigError, DataError
from kinema.inference.complexity import count_macs
from kinema.models.stgcn import STGCN
from kinema.testing import check_model
from tests.models import gcn_plain
from tests.models.configs import arguments

CHAIN = [[0, 1], [2, 1], [3, 2], [4, 3]]


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 8,
        "num_joints": 5,
        "in_channels": 3,
        "persons": 2,
        "num_classes": 4,
        "layout": None,
        "edges": CHAIN,
        "graph_mode": "spatial",
        "max_hop": 1,
        "dim": 24,
        "depth": 3,
        "inflate_stages": [2],
        "down_stages": [3],
        "width_ratio": 2,
        "data_norm": "VC",
        "gcn_adaptive": "init",
        "gcn_conv_pos": "pre",
        "gcn_with_res": True,
        "tcn_type": "mstcn",
        "tcn_kernel": 9,
        "tcn_branches": [3, 3, 3, 3, "max", "1x1"],
        "tcn_dilations": None,
        "tcn_mid_fraction": None,
        "tcn_dropout": 0.0,
        "dropout": 0.0,
        "mask_persons": True,
    }
    return {**values, **changes}


PLAIN = {
    "gcn_adaptive": "importance",
    "gcn_with_res": False,
    "tcn_type": "unit_tcn",
    "graph_mode": "stgcn_spatial",
}
CASES = (
    small(),
    small(num_frames=5, num_joints=17, layout="h36m17", edges=None, dim=25, persons=1, down_stages=None, dropout=0.1),
    small(**PLAIN, data_norm="MVC", dim=8, tcn_kernel=5, mask_persons=False),
    small(gcn_conv_pos="post", data_norm=None, width_ratio=1.5, inflate_stages=[2, 3], dim=20),
    small(**PLAIN, max_hop=2, persons=3, data_norm="MVC", in_channels=4, dim=4, inflate_stages=[3], depth=4),
    small(
        graph_mode="binary_adj",
        tcn_branches=["1x1", 5, "max", 3],
        tcn_dilations=[2, 1],
        tcn_mid_fraction=0.5,
        gcn_adaptive=None,
    ),
    small(in_channels=2, depth=1, inflate_stages=[], down_stages=None, tcn_dropout=0.2),
)


def scattered(**changes: Any) -> STGCN:
    """A small network with random values everywhere, running statistics included."""
    torch.manual_seed(3)
    model = STGCN(**small(**changes))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
        for tensor in model.buffers():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def clips(model: nn.Module, batch: int = 3, frames: int = 8) -> torch.Tensor:
    (pose,) = model.signature.example(batch, frames)
    return pose


def test_keeps_the_model_contract() -> None:
    check_model(STGCN, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(STGCN, small(), compile_backend="inductor")


@pytest.mark.parametrize(
    ("skeleton", "classes", "parameters"),
    [("ntu25", 60, 1_403_144), ("ntu25", 120, 1_418_564), ("coco17", 60, 1_393_016), ("h36m17", 52, 1_390_960)],
)
def test_yaml_size_is_the_published_one(skeleton: str, classes: int, parameters: int) -> None:
    joints = int(skeleton[-2:])
    with torch.device("meta"):
        model = STGCN(**{**arguments("stgcnpp", joints), "layout": skeleton, "num_classes": classes})
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 692


def test_joints_before_channels_cost_less_than_the_published_form() -> None:
    with torch.device("meta"):
        model = STGCN(**{**arguments("stgcnpp", 25), "layout": "ntu25"})
    published = 2.925e9  # two persons, 100 frames
    assert 0.97 * published < count_macs(model).total < published


def test_stages_have_the_published_parameters() -> None:
    with torch.device("meta"):
        model = STGCN(**{**arguments("stgcnpp", 25), "layout": "ntu25"})
    counts = [sum(p.numel() for p in stage.parameters()) for stage in model.backbone.gcn]
    assert counts == [13_371, *[24_699] * 3, 83_635, *[91_059] * 2, 323_963, *[355_195] * 2]


@pytest.mark.parametrize("changes", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("training", [False, True])
def test_equals_plain_layers(changes: dict[str, Any], training: bool) -> None:
    model = scattered(**{**changes, "tcn_dropout": 0.0, "dropout": 0.0}).train(training)
    plain = copy.deepcopy(model)
    for frames in (1, 6, 11):
        pose = clips(model, 3, frames)
        torch.testing.assert_close(model(pose), gcn_plain.logits(plain, pose), atol=1e-4, rtol=1e-4)
    # The statistics as well, after three batches: the norms that are computed together keep their own.
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], atol=1e-5, rtol=1e-5, msg=name)


def test_norms_of_another_class_are_asked_themselves() -> None:
    class Other(nn.BatchNorm2d):
        """Stands for SyncBatchNorm, which has no CPU form."""

        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Other.calls += 1
            return super().forward(x)

    model = scattered().train()
    other = copy.deepcopy(model)
    branches = other.backbone.gcn[0].tcn.branches
    for branch in branches:
        if isinstance(branch, nn.Sequential):
            norm = Other(branch[1].num_features)
            norm.load_state_dict(branch[1].state_dict())
            branch[1] = norm
    pose = clips(model)
    torch.testing.assert_close(other(pose), model(pose), atol=1e-5, rtol=1e-5)
    assert Other.calls == 5


def test_frozen_norms_keep_their_statistics() -> None:
    model = scattered().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(clips(model)).sum().backward()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_absent_persons_do_not_enter_norms() -> None:
    model = scattered().train()
    pose = clips(model)
    persons = torch.tensor([[True, True], [True, False], [False, True]])
    alone = copy.deepcopy(model)
    model(pose, persons)
    pose[~persons] = 100.0
    alone(pose, persons)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, alone.state_dict()[name]), name


def test_a_clip_without_persons_gives_the_bias() -> None:
    model = scattered().eval()
    persons = torch.tensor([[True, False], [False, False]])
    with torch.no_grad():
        out = model(clips(model, 2), persons)
    torch.testing.assert_close(out[1], model.cls_head.fc_cls.bias.detach())


def test_without_the_mask_absent_persons_count_as_published() -> None:
    model = scattered(mask_persons=False).eval()
    pose = clips(model)
    with torch.no_grad():
        assert torch.equal(model(pose, torch.zeros(3, 2, dtype=torch.bool)), model(pose))


def test_feature_maps_lead_to_the_logits() -> None:
    model = scattered().eval()
    pose = clips(model, 2, 7)
    with torch.no_grad():
        maps = model.feature_maps(pose)
        assert maps.shape == (2, 2, 48, 4, 5)  # 7 frames, halved once and rounded up
        torch.testing.assert_close(model.cls_head(maps.mean((3, 4)).mean(1)), model(pose), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(maps.mean((3, 4)).mean(1), model.pool(pose), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layout": "h36m18"}, "not both"),
        ({"layout": "h36m18", "edges": None}, "Did you mean 'h36m"),
        ({"layout": "ntu25", "edges": None}, "25 joints, the data 5"),
        ({"layout": None, "edges": None}, "no published graph of 5 joints"),
        ({"graph_mode": "spatail"}, "model.graph_mode='spatail'"),
        ({"data_norm": "MV"}, "model.data_norm='MV'"),
        ({"gcn_adaptive": "yes"}, "model.gcn_adaptive='yes'"),
        ({"gcn_conv_pos": "mid"}, "model.gcn_conv_pos='mid'"),
        ({"tcn_type": "tcn"}, "model.tcn_type='tcn'"),
        ({"inflate_stages": [1]}, r"stages 2 to 3 .* not \[1\]"),
        ({"down_stages": [4]}, r"not \[4\]"),
        ({"depth": 0, "inflate_stages": [], "down_stages": []}, "0 stages"),
        ({"in_channels": 24, "depth": 1, "inflate_stages": [], "down_stages": []}, "model.depth=2"),
        ({"tcn_branches": [3, "avg"]}, "avg"),
        ({"tcn_branches": [4, "max"]}, "odd number"),
        ({"tcn_dilations": [1, 2]}, "4 convolutions"),
        ({"dim": 4}, "model.dim"),
    ],
)
def test_refuses_with_a_remedy(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STGCN(**small(**changes))


@pytest.mark.parametrize("shape", [(2, 1, 8, 5, 3), (2, 2, 8, 6, 3), (2, 2, 8, 5, 2), (2, 8, 5, 3)])
def test_refuses_other_clips(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="pose has shape"):
        STGCN(**small())(torch.zeros(shape))


def test_a_bare_state_dict_tells_what_it_can(tmp_path: Any) -> None:
    model = scattered(gcn_adaptive="offset", num_joints=17, layout="coco", edges=None).eval()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    loaded = kinema.load(tmp_path / "bare.pth")
    assert loaded.arguments["gcn_adaptive"] == "offset"  # from the values: an importance would be near 1
    pose = clips(model)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pose), model(pose))
