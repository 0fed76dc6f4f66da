"""The check of a pose tensor against the signature of the model that gets it."""

from __future__ import annotations

from torch import Tensor

from kinema.core.shapes import expect
from kinema.core.spec import Signature
from kinema.errors import ConfigError


def expect_pose(pose: Tensor, signature: Signature) -> None:
    """Refuse a pose (B, T, J, C) of other joints, channels or frames than the model was built for.

    Of a model for several persons, the pose is (B, M, T, J, C).

    Raises:
        DataError: where joints or channels differ.
        ConfigError: where the number of frames breaks the model's rule.
    """
    if signature.persons is None:
        expect(pose, "B T J C", "pose", J=signature.joints, C=signature.in_channels)
    else:
        expect(pose, "B M T J C", "pose", M=signature.persons, J=signature.joints, C=signature.in_channels)
    frames, built = pose.shape[-3], signature.frames
    if signature.frames_rule == "exact" and frames != built:
        raise ConfigError(f"The model takes {built} frames at a time, not {frames}. {_REMEDY}")
    if signature.frames_rule == "max" and frames > built:
        raise ConfigError(f"The model takes at most {built} frames at a time, not {frames}. {_REMEDY}")
    least = 1 + sum(signature.context)
    if signature.frames_rule == "any" and frames < least:
        raise ConfigError(f"The model takes {least} frames or more, not {frames}. {_REMEDY}")


_REMEDY = (
    "Drop dataset.frames to follow the model, change the model's size, or cut videos by kinema.inference.slide.slide."
)
