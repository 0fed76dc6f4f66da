"""CTR-GCN: contract, published sizes and initialisation, plain layers as oracle, refused options."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from kinema.errors import ConfigError
from kinema.models.ctrgcn import CTRGCN
from kinema.testing import check_model
from tests.models import gcn_plain
from tests.models.configs import arguments
from tests.models.test_stgcn import CHAIN, clips


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 8,
        "num_joints": 5,
        "in_channels": 3,
        "persons": 2,
        "num_classes": 4,
        "layout": None,
        "edges": CHAIN,
        "dim": 8,
        "depth": 3,
        "inflate_stages": [2],
        "down_stages": [3],
        "kernel_size": [5, 5],
        "dilations": [1, 2],
        "tcn_dropout": 0.0,
        "dropout": 0.0,
        "mask_persons": True,
    }
    return {**values, **changes}


CASES = (
    small(),
    small(num_frames=5, num_joints=17, layout="h36m17", edges=None, persons=1, kernel_size=[3, 5, 3], dilations=None),
    small(dim=20, in_channels=20, inflate_stages=[2, 3], down_stages=[2, 3], mask_persons=False, persons=3),
    small(depth=1, inflate_stages=[], down_stages=None, dim=10, dropout=0.1, tcn_dropout=0.1),
)


def scattered(**changes: Any) -> CTRGCN:
    """A small network with random values everywhere, running statistics included."""
    torch.manual_seed(3)
    model = CTRGCN(**small(**changes))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
        for tensor in model.buffers():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def test_keeps_the_model_contract() -> None:
    check_model(CTRGCN, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(CTRGCN, small(), compile_backend="inductor")


@pytest.mark.parametrize(
    ("skeleton", "classes", "parameters"),
    [("ntu25", 60, 1_446_672), ("ntu25", 120, 1_462_092), ("coco17", 60, 1_436_496), ("h36m17", 52, 1_434_440)],
)
def test_yaml_size_is_the_published_one(skeleton: str, classes: int, parameters: int) -> None:
    joints = int(skeleton[-2:])
    with torch.device("meta"):
        model = CTRGCN(**{**arguments("ctrgcn", joints), "layout": skeleton, "num_classes": classes, "persons": 2})
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 823


def test_stages_have_the_published_parameters() -> None:
    with torch.device("meta"):
        model = CTRGCN(**{**arguments("ctrgcn", 25), "layout": "ntu25"})
    counts = [sum(p.numel() for p in stage.parameters()) for stage in model.backbone.net]
    assert counts == [12_052, *[26_308] * 3, 78_084, *[97_844] * 2, 301_748, *[382_228] * 2]


@pytest.mark.parametrize("changes", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("training", [False, True])
def test_equals_plain_layers(changes: dict[str, Any], training: bool) -> None:
    model = scattered(**{**changes, "tcn_dropout": 0.0, "dropout": 0.0}).train(training)
    plain = copy.deepcopy(model)
    for frames in (1, 6, 11):
        pose = clips(model, 3, frames)
        torch.testing.assert_close(model(pose), gcn_plain.logits(plain, pose), atol=1e-4, rtol=1e-4)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], atol=1e-5, rtol=1e-5, msg=name)


def test_links_are_not_refined_at_first() -> None:
    model = CTRGCN(**small())
    model(clips(model)).sum().backward()
    assert not model.backbone.net[1].gcn1.alpha.item()
    for stage in model.backbone.net:
        assert torch.equal(stage.gcn1.bn.weight, torch.full_like(stage.gcn1.bn.weight, 1e-6))
        for part in stage.gcn1.convs:
            assert not part.conv4.weight.grad.any()  # published: alpha is 0
            assert not part.conv3.bias.any()
    assert model.backbone.net[1].residual.conv.bias.any()  # not among those that start anew


def test_links_differ_from_sample_to_sample() -> None:
    model = scattered()
    x = torch.randn(2, 8, 6, 5)
    links = model.backbone.net[1].gcn1.refined(x)
    assert links.shape == (2, 16, 3, 5, 5)
    assert (links[0] - links[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dilations": [1]}, "2 values"),
        ({"kernel_size": [4, 5]}, "odd number"),
        ({"dim": 3}, "model.dim"),
        ({"layout": "coco", "edges": None}, "17 joints, the data 5"),
        ({"down_stages": [9]}, r"not \[9\]"),
    ],
)
def test_refuses_with_a_remedy(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CTRGCN(**small(**changes))
