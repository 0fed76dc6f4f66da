"""ActionConv: contract, a plain form as oracle, absent persons, refused options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kinema.errors import ConfigError
from kinema.models.action_conv import ActionConv
from kinema.testing import check_model


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 12, "num_joints": 5, "in_channels": 3, "persons": 2, "num_classes": 4, "channels": [8, 6],
        "kernel_size": 3, "stride": 2, "dropout": 0.0, "mask_persons": True,
    }  # fmt: skip
    return {**values, **changes}


CASES = (
    small(),
    small(persons=1, in_channels=6, channels=[7], kernel_size=5, stride=1, num_frames=9),
    small(num_joints=17, persons=3, mask_persons=False, dropout=0.2, channels=[4, 4, 4]),
)


def scattered(**changes: Any) -> ActionConv:
    """A network with random statistics too."""
    torch.manual_seed(0)
    model = ActionConv(**small(**changes))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor))
    return model.eval()


def test_keeps_the_model_contract() -> None:
    check_model(ActionConv, *CASES)


def test_equals_convolutions_over_flattened_poses() -> None:
    model = scattered(persons=1)
    pose = model.signature.example(3)[0]
    x = pose[:, 0].permute(0, 3, 2, 1).flatten(1, 2)  # (B, C * J, T)
    for stage in model.backbone.stages:
        weight = stage.conv.weight  # (out, C, k, J)
        x = F.conv1d(x, weight.permute(0, 1, 3, 2).flatten(1, 2), stage.conv.bias, stride=2, padding=1)
        norm = stage.norm
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
    assert torch.allclose(model(pose), model.head(x.mean(-1)), atol=1e-5)


def test_absent_persons_do_not_count() -> None:
    model = scattered()
    pose = model.signature.example(2)[0]
    there = torch.tensor([[True, True], [True, False]])
    alone = scattered(persons=1)
    alone.load_state_dict(model.state_dict())
    out = model(pose, there)
    assert torch.allclose(out[1:], alone(pose[1:, :1]), atol=1e-6)
    assert not torch.allclose(out[1], model(pose)[1])


@pytest.mark.parametrize("changes", [{"channels": []}, {"kernel_size": 4}, {"stride": 0}])
def test_impossible_convolutions_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no convolutions in"):
        ActionConv(**small(**changes))
