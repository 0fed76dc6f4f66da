"""Constructor values of networks that hold networks: {"backbone": record} in the model, "backbone.depth" in names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from kinema.models.registry import model_class


def is_record(value: Any) -> bool:
    """Whether an argument is the record of a network inside, as `registry.record` writes it."""
    return isinstance(value, Mapping) and set(value) == {"model", "args"}


def flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by dotted names: {"backbone": {"model": "x", "args": {"depth": 3}}} -> backbone="x", backbone.depth=3.

    These names are what the command line and error messages use (`model.backbone.depth=3`).
    """
    result: dict[str, Any] = {}
    for name, value in arguments.items():
        if is_record(value):
            result[name] = value["model"]
            result.update({f"{name}.{inner}": one for inner, one in flat(value["args"]).items()})
        else:
            result[name] = value
    return result


def nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flat`: arguments as a constructor takes them."""
    heads = {name.partition(".")[0] for name in arguments if "." in name}
    result = {name: value for name, value in arguments.items() if "." not in name}
    for head in heads:
        inside = {name[len(head) + 1 :]: value for name, value in arguments.items() if name.startswith(f"{head}.")}
        result[head] = {"model": arguments[head], "args": nested(inside)}
    return result


def inner_families(arguments: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
    """Classes of the networks inside, by the name of their argument, from flat arguments."""
    heads = {name.partition(".")[0] for name in arguments if "." in name}
    return {head: model_class(str(arguments[head])) for head in sorted(heads)}


def unknowable_of(made: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What weights cannot tell, with published values, of a model and of the networks inside it; flat names."""
    values = dict(getattr(made, "unknowable", {}))
    for head, cls in inner_families(arguments).items():
        values.update({f"{head}.{name}": value for name, value in getattr(cls, "unknowable", {}).items()})
    return values


def names_of(made: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> list[str]:
    """Names of every constructor argument of a model and of the networks inside it; flat."""
    names = list(inspect.signature(made).parameters)
    for head, cls in inner_families(arguments).items():
        names += [f"{head}.{name}" for name in inspect.signature(cls).parameters]
    return names
