"""Weights of a file into a model that exists: what fits (`init=`), with a report; and the check that all does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kinema.checkpoints.arguments import flat, inner_families
from kinema.checkpoints.envelopes import Weights, read_weights
from kinema.checkpoints.load import (
    TRAINING_ONLY,
    arguments_of,
    difference,
    identify,
    listed,
)
from kinema.errors import CheckpointError

_BACKBONE = "backbone."
_JOINTS = ("num_joints", "num_joints_out")


def check_fits(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    sizes: Callable[[str, Mapping[str, Any]], str] | None = None,
) -> None:
    """Refuse a checkpoint that does not fit a model built from the configuration (before `resume=`).

    Args:
        model: a registered model.
        path: as for `kinema.load`.
        dataset: name of the data set, for the message.
        sizes: from a family and its constructor values to the size of `conf/model/` that is nearest, for the message;
            None = the family's name is one.

    Raises:
        CheckpointError: saying which override makes file and model fit.
    """
    found = read_weights(path, weights="live")
    arguments = flat(arguments_of(model))
    family = str(type(model).registered_name)  # type: ignore[attr-defined]  # arguments_of checked it
    apart = difference(model, found.shapes)
    if apart or found.record is not None:
        owner, stated = identify(found)
        if owner != family:
            size = sizes(owner, flat(stated)) if sizes else owner
            raise CheckpointError(f"{found.path} holds a {owner} but a {family} was built. Use model={size}.")
        _compare_arguments(found, flat(stated), arguments, dataset)
    if apart:
        raise CheckpointError(f"{found.path} does not fit {family}:\n{apart}")


def _compare_arguments(
    found: Weights,
    stated: Mapping[str, Any],
    arguments: Mapping[str, Any],
    dataset: str | None,
) -> None:
    """Refuse a configuration that differs from what the file states, with the overrides that mend it."""
    apart = {
        key: value
        for key, value in stated.items()
        if key in arguments and arguments[key] != value and key.rpartition(".")[2] not in TRAINING_ONLY
    }
    for head, cls in inner_families(stated).items():
        if head in apart:
            raise CheckpointError(
                f"checkpoint {found.path} was trained with {head}={stated[head]} but the model is built with "
                f"{head}={arguments[head]}. Use model@model.{head}=<a size of {cls.registered_name}>."  # type: ignore[attr-defined]
            )
    joints = next((key for key in apart if key.rpartition(".")[2] in _JOINTS), None)
    if joints:
        trained = ((found.record or {}).get("config") or {}).get("dataset") or {}
        remedy = f"dataset={trained['name']}" if trained.get("name") else f"a dataset with {apart[joints]} joints"
        have = arguments[joints]
        here = f"dataset={dataset} has {have}" if dataset else f"the model is built for {have}"
        raise CheckpointError(
            f"checkpoint {found.path} was trained for {apart[joints]} joints but {here}. Use {remedy}, "
            f"or train a model for {have} joints (init={found.path} takes over what fits)."
        )
    if apart:
        values = ", ".join(f"{key}={value}" for key, value in apart.items())
        built = ", ".join(f"{key}={arguments[key]}" for key in apart)
        remedy = " ".join(f"model.{key}={_as_override(value)}" for key, value in apart.items())
        raise CheckpointError(
            f"checkpoint {found.path} was trained with {values} but the model is built with {built}. Use {remedy}."
        )


def _as_override(value: Any) -> str:
    """A value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_as_override(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Transfer:
    """What `transfer` did.

    Attributes:
        path: the file.
        source: prefix that was stripped from the file's names.
        target: prefix of the part of the model that received them.
        matched: names in the model that took a tensor.
        mismatched: names present on both sides with different shapes; the model's values stay.
        missing: names of the receiving part that the file does not have; the model's values stay.
        unused: names in the file that found no place.
    """

    path: Path
    source: str
    target: str
    matched: tuple[str, ...]
    mismatched: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        where = f" into {self.target[:-1]}" if self.target else ""
        whence = f" ({self.source[:-1]} of the file)" if self.source else ""
        lines = [f"{len(self.matched)} tensors of {self.path}{whence} taken{where}"]
        lines += listed("of another shape, kept as they were", self.mismatched)
        lines += listed("not in the file, kept as they were", self.missing)
        lines += listed("of the file not used", self.unused)
        return "\n".join(lines)


def transfer(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    part: str | None = None,
    into: str | None = None,
    weights: str = "averaged",
) -> Transfer:
    """Copy every tensor of a file whose name and shape fit into a model, in place.

    Args:
        model: any module.
        path: as for `kinema.load`.
        part: part of the file to take, for example "backbone"; None = the whole file, or its backbone when that fits
            better (an action checkpoint into a lifter).
        into: submodule that receives the weights; None = the whole model, or its `backbone` when that fits better
            (a lifter into an action model).
        weights: "averaged" or "live".

    Returns:
        The report; print or log it.

    Raises:
        CheckpointError: when nothing fits, or for a file that `kinema.load` would refuse as well.
    """
    found = read_weights(path, part=part, weights=weights)
    own = model.state_dict(keep_vars=True)
    if into is not None and not any(name.startswith(f"{into}.") for name in own):
        parts = ", ".join(dict(model.named_children())) or "none"
        raise CheckpointError(f"The model has no part {into!r} to receive {found.path}. It has: {parts}.")
    sources = [""] if part is not None else ["", _BACKBONE]
    targets = [f"{into}."] if into is not None else ["", _BACKBONE]

    def pairs(source: str, target: str) -> dict[str, str]:
        """Names in the file -> names in the model, where both exist."""
        renamed = {name: target + name[len(source) :] for name in found.state if name.startswith(source)}
        return {name: wanted for name, wanted in renamed.items() if wanted in own}

    def fitting(names: dict[str, str]) -> list[str]:
        return [name for name, wanted in names.items() if found.state[name].shape == own[wanted].shape]

    # Ties go to the plain way, which stands first.
    source, target = max(((s, t) for s in sources for t in targets), key=lambda st: len(fitting(pairs(*st))))
    both = pairs(source, target)
    taken = fitting(both)
    if not taken:
        raise CheckpointError(
            f"Nothing of {found.path} ({len(found.state)} tensors, first {next(iter(found.state))!r}) fits the model "
            f"({len(own)} tensors, first {next(iter(own), 'none')!r}). Use a checkpoint of the same family."
        )
    with torch.no_grad():
        for name in taken:
            own[both[name]].copy_(found.state[name])
    receiving = [name for name in own if name.startswith(target)]
    return Transfer(
        path=found.path,
        source=source,
        target=target,
        matched=tuple(both[name] for name in taken),
        mismatched=tuple(
            f"{both[name]} {tuple(found.state[name].shape)} in the file, {tuple(own[both[name]].shape)} in the model"
            for name in both
            if name not in set(taken)
        ),
        missing=tuple(name for name in receiving if name not in set(both.values())),
        unused=tuple(name for name in found.state if name not in both),
    )
