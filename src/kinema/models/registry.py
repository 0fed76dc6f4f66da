"""Models by registered name, so that checkpoints name a family and never a dotted path."""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import nn

from kinema.errors import CheckpointError, ConfigError

Shapes = Mapping[str, tuple[int, ...]]
_MODELS: dict[str, type[nn.Module]] = {}
M = TypeVar("M", bound=type[nn.Module])


def register(name: str) -> Callable[[M], M]:
    """Register a model class under a name; it must offer `recognise(shapes)` and `unknowable`.

    `unknowable` holds the published value of every constructor argument that weights cannot tell, or `...` where no
    value is right for all published files: then it has to be said when a file is loaded.
    """

    def decorate(cls: M) -> M:
        known = _MODELS.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"The model name {name!r} is taken by {known.__module__}.{known.__qualname__}.")
        _MODELS[name] = cls
        cls.registered_name = name  # type: ignore[attr-defined]
        return cls

    return decorate


@cache
def _import_all() -> None:
    """Import every module of `kinema.models` and the entry points of other packages, once."""
    import kinema.models as package

    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            importlib.import_module(f"kinema.models.{module.name}")
    for point in entry_points(group="kinema.models"):
        point.load()


def models() -> dict[str, type[nn.Module]]:
    """Every registered model class by name."""
    _import_all()
    return dict(_MODELS)


def model_class(name: str) -> type[nn.Module]:
    """Look a class up by its registered name.

    Raises:
        CheckpointError: for an unknown name, with the nearest known one.
    """
    known = models()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
    raise CheckpointError(f"No model is registered as {name!r}. {hint}")


def recognised(shapes: Shapes) -> dict[str, dict[str, Any]]:
    """Families that answer for these names and shapes, with the constructor arguments that they read from them."""
    answers = {}
    for name, made in sorted(models().items()):
        try:
            arguments = made.recognise(shapes)  # type: ignore[attr-defined]  # registered classes have it
        except (KeyError, ValueError, IndexError, ArithmeticError):
            continue  # a known name with a shape that its family never has
        if arguments is not None:
            answers[name] = dict(arguments)
    return answers


def record(model: nn.Module) -> dict[str, Any]:
    """What a model inside another one is built from, as plain values: {"model": registered name, "args": {...}}."""
    name, arguments = getattr(type(model), "registered_name", None), getattr(model, "arguments", None)
    if name is None or not isinstance(arguments, Mapping):
        raise ConfigError(
            f"{type(model).__name__} is no registered model that keeps its constructor values. "
            "Decorate it with @register(name) and set self.arguments = {...} in its __init__."
        )
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    return {"model": name, "args": plain}


def from_record(made: Mapping[str, Any]) -> nn.Module:
    """Build a model from its record; values that the record leaves open are the published ones."""
    cls = model_class(str(made["model"]))
    published = {key: value for key, value in getattr(cls, "unknowable", {}).items() if value is not ...}
    return cls(**{**published, **made["args"]})


def depth_of(shapes: Shapes, prefix: str) -> int:
    """Number of blocks `<prefix>.0.`, `<prefix>.1.`, ... among the names of a state dict."""
    head = f"{prefix}."
    numbers = {name[len(head) :].split(".")[0] for name in shapes if name.startswith(head)}
    return len({number for number in numbers if number.isdigit()})


def ratio_of(hidden: int, dim: int) -> float:
    """The `mlp_ratio` for which int(dim * ratio) is `hidden`, as PoseFormer and MotionBERT compute it."""
    ratio = hidden / dim
    while int(dim * ratio) < hidden:  # rounding may put the product just below the integer
        ratio = math.nextafter(ratio, math.inf)
    return ratio
