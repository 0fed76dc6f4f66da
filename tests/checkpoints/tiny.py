"""Tiny networks of every family, with random values everywhere, and their official files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinema.checkpoints.load import record_of
from kinema.models.registry import model_class

DSTFORMER: dict[str, Any] = {
    "num_frames": 5, "num_joints": 7, "in_channels": 3, "dim": 8, "dim_rep": 6, "depth": 2, "num_heads": 2,
    "mlp_ratio": 2, "qkv_bias": True, "att_fuse": True, "dropout": 0.0, "attn_dropout": 0.0, "drop_path": 0.0,
}  # fmt: skip
POSEFORMER: dict[str, Any] = {
    "num_frames": 5, "num_joints": 6, "in_channels": 2, "dim": 4, "depth": 2, "num_heads": 2, "mlp_ratio": 2,
    "qkv_bias": True, "dropout": 0.0, "attn_dropout": 0.0, "drop_path": 0.0,
}  # fmt: skip
VIDEOPOSE3D: dict[str, Any] = {
    "num_joints": 5, "num_joints_out": 5, "in_channels": 2, "filter_widths": [3, 3], "channels": 8, "dropout": 0.25,
    "causal": False, "dense": False, "trajectory": False, "root": 0,
}  # fmt: skip
FAMILIES = {"dstformer": DSTFORMER, "poseformer": POSEFORMER, "videopose3d": VIDEOPOSE3D}


def build(family: str, **changes: Any) -> nn.Module:
    """A model in eval mode whose every parameter and running statistic is random."""
    with torch.random.fork_rng():
        torch.manual_seed(len(family))
        model = model_class(family)(**{**FAMILIES[family], **changes})
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand_like(tensor) + 0.1)
    return model.eval()


def guesses(model: nn.Module) -> dict[str, Any]:
    """The constructor values that an official file of this model cannot tell."""
    return {name: model.arguments[name] for name in type(model).unknowable}


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def official(model: nn.Module) -> dict[str, Any]:
    """What the authors' training scripts write."""
    family, state = type(model).registered_name, model.state_dict()
    content: dict[str, Any] = {"epoch": 4, "lr": 1e-3, "optimizer": {"state": {}, "param_groups": []}}
    if family == "dstformer":
        return content | {"model_pos": prefixed(state, "module."), "min_loss": np.float64(41.5)}
    content["random_state"] = np.random.RandomState(1234)
    if family == "poseformer":
        return content | {"model_pos": prefixed(state, "module.")}
    twin = {name.removeprefix("trajectory."): t for name, t in state.items() if name.startswith("trajectory.")}
    own = {name: t for name, t in state.items() if not name.startswith("trajectory.")}
    return content | {"model_pos": own, "model_traj": twin or None, "random_state_semi": None}


def lightning(model: nn.Module, live: Mapping[str, Tensor] | None = None, **record: Any) -> dict[str, Any]:
    """A .ckpt as the trainer writes it; `live` = the weights that are not averaged."""
    content = {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": prefixed(model.state_dict(), "model.") | {"loss.scale": torch.ones(1)},
        "kinema": record_of(model, **record),
    }
    if live is not None:
        content["current_model_state"] = prefixed(live, "model.") | {"loss.scale": torch.ones(1)}
    return content


def save(content: Any, path: Path, old: bool = False) -> Path:
    """`torch.save`, optionally in the serialisation of torch below 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def example(model: nn.Module, batch: int = 2) -> Tensor:
    return model.signature.example(batch)[0]


def same_output(found: nn.Module, wanted: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(found(example(wanted)), wanted(example(wanted)))
