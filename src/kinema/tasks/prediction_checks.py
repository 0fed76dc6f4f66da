"""What cannot work in motion prediction, and how a checkpoint must be read: found out before a training or a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from kinema.core.spec import DataSpec, Signature
from kinema.data.prediction import SAME_RATE
from kinema.errors import ConfigError
from kinema.tasks.sampling import Sampling

_SHARES = ("clean", "unseen", "highest")
_EXAMPLE = "'task.condition_noise={clean: 0.25, unseen: 0.1, highest: 1.0}', or null"


def refuse_other_training(task: Any, keys: Iterable[str], spec: DataSpec) -> None:
    """Refuse to read a network in another way than it was trained to be read.

    Args:
        task: with `model`, and the values in use as attributes.
        keys: of the task's yaml that a test may not change.
        spec: of the data.

    Raises:
        ConfigError: naming the value that the checkpoint was trained with.
    """
    source = getattr(task.model, "provenance", None)
    if source is None:
        return
    rate = source.spec.fps if source.spec is not None else None
    if rate is not None and spec.fps is not None and abs(spec.fps / rate - 1) > SAME_RATE:
        raise ConfigError(
            f"The checkpoint was trained at {rate:g} frames per second, the data is said to have {spec.fps:g}. Use "
            f"dataset.fps={rate:g} where its reader resamples, or a data set of that rate."
        )
    trained = (source.config or {}).get("task") or {}
    for key in keys:
        was, now = trained.get(key), getattr(task, key)
        if key in trained and was != (list(now) if isinstance(now, tuple) else now):
            raise ConfigError(
                f"The checkpoint was trained with task.{key}={_typed(was)}, not {_typed(now)}. Use "
                f"{_quoted(f'task.{key}={_typed(was)}')}, or the experiment it was trained by."
            )


def _typed(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_typed(one)}" for key, one in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def _quoted(word: str) -> str:
    """An override as a shell takes it: braces and brackets would be expanded."""
    return f"'{word}'" if set(word) & set("{}[]") else word


def check_condition(rows: int, signature: Signature) -> None:
    """Refuse a network for another condition than the task makes.

    Args:
        rows: of the condition.
        signature: of the network.
    """
    taken = signature.condition_frames or signature.frames
    if rows != taken:
        remedy = f"model.condition_frames={rows}" if signature.condition_frames else "task.condition=coeffs"
        raise ConfigError(f"The network takes a condition of {taken} rows, and there are {rows}. Use {remedy}.")


def check_condition_noise(
    noise: Mapping[str, Any] | None, model: nn.Module, mod_train: float, sampled: Mapping[str, Sampling]
) -> None:
    """Refuse shares that are none, networks that are not told the level, and what noise takes the place of.

    Args:
        noise: `condition_noise` of the task's yaml.
        model: the network.
        mod_train: share of the training that sees the condition.
        sampled: every way of sampling by its key in yaml.
    """
    if noise is None:
        return
    values = [noise.get(key) for key in _SHARES]
    shares = [float(one) for one in values if isinstance(one, (int, float)) and 0 <= one <= 1]
    if set(noise) != set(_SHARES) or len(shares) != len(_SHARES) or shares[0] + shares[1] > 1:
        raise ConfigError(
            "task.condition_noise has the shares clean, unseen and highest, each from 0 to 1, and clean and unseen are "
            f"1 together at most. Use {_EXAMPLE}."
        )
    if not getattr(model, "takes_level", False):
        raise ConfigError(
            "The network takes no noise level of its condition. Use model=motion_mlp, or task.condition_noise=null."
        )
    if mod_train < 1:
        raise ConfigError("With task.condition_noise the share `unseen` is what sees nothing. Use task.mod_train=1.")
    for where, one in sampled.items():
        if one.mod_test < 1 or one.compat_rng:
            raise ConfigError(
                f"{where}: with task.condition_noise every sample sees the condition through noise of its own level, "
                "and published draws know no levels. Use mod_test=1 and compat_rng=false there."
            )
