"""Whether a network has the joints, features and classes of a data set: parts of the check at the start of a run."""

from __future__ import annotations

from typing import Any

from kinema.core.spec import DataSpec, Signature
from kinema.errors import ConfigError


def refuse_other_joints(signature: Signature, spec: DataSpec, config: Any, origin: str) -> None:
    """Refuse a network for other joints than the data set has."""
    for key, kind, found, wanted in (
        ("num_joints", "input", signature.joints, spec.skeleton2d),
        ("num_joints_out", "output", signature.joints_out, spec.skeleton),
    ):
        if wanted is not None and found != len(wanted):
            remedy = f"Use model.{key}={len(wanted)}, or drop model.{key} to follow the data set."
            if config.ckpt:
                remedy = "Use a data set (or a converter) with that skeleton, or another checkpoint."
            elif key not in config.model:
                remedy = "It gives as many joints as it takes. Use keypoints of that skeleton, or model=videopose3d."
            raise ConfigError(
                f"{origin} has {found} {kind} joints but dataset={config.dataset.name} has {len(wanted)}. {remedy}"
            )


def refuse_other_features(signature: Signature, spec: DataSpec, config: Any, origin: str) -> None:
    """Refuse a noise predictor for another number of features than the skeleton of the data has without its root."""
    wanted = 3 * (len(spec.skeleton) - 1) if spec.skeleton is not None else None  # else known from the opened file
    if wanted is not None and signature.num_features != wanted:
        remedy = f"Use model.num_features={wanted}, or drop model.num_features to follow the data set."
        if config.ckpt:
            remedy = "Use a data set with that skeleton, or another checkpoint."
        raise ConfigError(
            f"{origin} has {signature.num_features} features (three per joint without the root) but dataset="
            f"{config.dataset.name} has {wanted}. {remedy}"
        )


def refuse_other_classes(signature: Signature, spec: DataSpec, config: Any, origin: str) -> None:
    """Refuse a network for other classes, or another number of persons, than the data set has."""
    dataset, count = config.dataset.name, len(spec.classes or ())
    if signature.classes is not None and signature.classes != count:
        remedy = "Use the data set it was trained on, or take over its weights with init= instead of ckpt="
        if not config.ckpt:
            remedy = f"Use model.num_classes={count}, or drop model.num_classes to follow the data set"
        raise ConfigError(f"{origin} has {signature.classes} classes but dataset={dataset} has {count}. {remedy}.")
    if signature.in_channels != spec.in_channels:
        remedy = f"Use model.in_channels={spec.in_channels}"
        if config.ckpt or spec.in_channels == 3:
            remedy = "Use the dataset.transforms it was trained with: [{with_motion: {scale: 10}}] makes six channels"
        raise ConfigError(
            f"{origin} takes {signature.in_channels} channels but dataset={dataset} gives {spec.in_channels}. {remedy}."
        )
    if signature.persons is not None and signature.persons != spec.persons:
        raise ConfigError(
            f"{origin} takes {signature.persons} persons but dataset={dataset} gives {spec.persons}. "
            f"Use dataset.persons={signature.persons}."
        )
