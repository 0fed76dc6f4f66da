"""Networks that nest a second one for the path of the root."""

from __future__ import annotations

import copy
import dataclasses

from torch import nn


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
