"""Networks that nest a second one for the path of the root."""

from __future__ import annotations

import copy
import dataclasses

from torch import Tensor, nn

from kinema.errors import ConfigError


def separated(model: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """Split a network with a nested trajectory network into the two; weights are shared, the model is left as it is.

    The nested form puts the trajectory into the root's slot. VideoPose3D's protocol measures the root that the pose
    network itself predicts, and its pictures add the trajectory to all joints (published behaviour): both need the
    pose network alone.

    Returns:
        The pose network and the trajectory network; (model, None) where nothing is nested.
    """
    twin = getattr(model, "trajectory", None)
    if not isinstance(twin, nn.Module):
        return model, None
    alone = copy.copy(model)
    alone._modules = {**model._modules, "trajectory": None}
    alone.signature = dataclasses.replace(model.signature, trajectory=False)  # type: ignore[type-var]
    return alone, twin


class Placed(nn.Module):
    """A pose network and its nested trajectory network as one, in camera space: every joint moved by the path.

    Takes what the model takes; weights are shared with it.

    Args:
        model: with a trajectory network and root-relative poses.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.pose, twin = separated(model)
        if twin is None:
            raise ConfigError(
                "This network predicts poses without a path: it holds no trajectory network. "
                "Use predict.trajectory=false, or train one: task=lifting_semi model=videopose3d model.trajectory=true."
            )
        self.path = twin
        self.signature = self.pose.signature
        self.training = model.training

    def forward(self, pose: Tensor) -> Tensor:
        """(B, T, J, C) to camera-space joints (B, T', J_out, 3)."""
        return self.pose(pose) + self.path(pose)

    def slide(self, pose: Tensor) -> Tensor:
        """All frames of a stretch at once, see the models' `slide`."""
        return self.pose.slide(pose) + self.path.slide(pose)  # type: ignore[operator]
