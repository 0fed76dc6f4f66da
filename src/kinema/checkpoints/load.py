"""`kinema.load`: a checkpoint file of any known system in, a ready network out."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kinema.checkpoints.arguments import flat, is_record, names_of, nested, unknowable_of
from kinema.checkpoints.envelopes import FORMAT_VERSION, MESSAGE_LINES, Weights, read_weights
from kinema.checkpoints.mmcv_config import model_config
from kinema.core.spec import DataSpec
from kinema.errors import CheckpointError, ConfigError, KinemaError
from kinema.models.registry import Shapes, model_class, models, recognised, record

log = logging.getLogger(__name__)

# Constructor values that shape no evaluation (rates of training, the backend of a scan): an override may differ from
# what the file was trained with.
TRAINING_ONLY = frozenset({"dropout", "attn_dropout", "drop_path", "scan_backend"})

# Values that the yaml of a model improves on: files of others keep the published one unless the user says otherwise.
AS_PUBLISHED = frozenset({"mask_persons"})

# Official constructor names -> ours, for people who type what they know.
OFFICIAL_NAMES = {
    "num_frame": "num_frames", "maxlen": "num_frames", "n_frames": "num_frames",
    "in_chans": "in_channels", "dim_in": "in_channels", "in_features": "in_channels",
    "num_joints_in": "num_joints", "dim_feat": "dim", "embed_dim_ratio": "dim", "latent_dim": "dim",
    "n_layers": "depth", "num_layers": "depth", "drop_path_rate": "drop_path", "drop_rate": "dropout",
    "attn_drop_rate": "attn_dropout", "attn_drop": "attn_dropout", "drop": "dropout",
    "use_adaptive_fusion": "adaptive_fusion", "layer_scale_init_value": "layer_scale",
    "neighbour_num": "neighbours", "temporal_connection_len": "connection_len",
    "hidden_dim": "hidden", "dropout_ratio": "dropout",
    "input_feats": "num_features", "n_pre": "kept_coeffs", "ff_size": "ff_dim",
    "number_of_kept_frames": "kept_frames", "number_of_kept_coeffs": "kept_coeffs",
}  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """Where the weights of a model come from.

    Attributes:
        path, sha256: the file.
        envelope: its layout; `part` of it that was taken (None = all); `kind` of weights: "averaged", "live", "only".
        family: registered name of the model.
        arguments: constructor values.
        guessed: those of `arguments` that the weights cannot tell and nobody gave: from the file's name or published;
            of a network inside as "backbone.num_heads".
        preprocess: the way from raw to network units, None = the file does not tell.
        spec: the data it was trained on, where known.
        task, config: of the training run, in Kinema's own files.
        facts: numbers and words the file holds beside (epoch, lr, min_loss, best_acc, ...).
    """

    path: Path
    sha256: str
    envelope: str
    part: str | None
    kind: str
    family: str
    arguments: dict[str, Any]
    guessed: dict[str, Any]
    preprocess: str | None
    spec: DataSpec | None
    task: str | None
    config: dict[str, Any] | None
    facts: dict[str, Any]

    def __repr__(self) -> str:
        guessed = f", guessed {self.guessed}" if self.guessed else ""
        return f"Provenance({self.family} from {self.path}, {self.envelope} layout{guessed})"


@dataclass(frozen=True)
class Difference:
    """What keeps weights from fitting a model: names, with shapes (file, model) where they differ."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        titles = {
            "missing in the file": self.missing,
            "unexpected in the file": self.unexpected,
            "of another shape": self.mismatched,
        }
        return "\n".join(line for title, names in titles.items() for line in listed(title, names))


def listed(title: str, names: tuple[str, ...]) -> list[str]:
    """A heading with the count and at most ten names; nothing for an empty list."""
    if not names:
        return []
    more = [f"  ... and {len(names) - MESSAGE_LINES} more"] if len(names) > MESSAGE_LINES else []
    shown = names if not more else names[: MESSAGE_LINES - 1]
    more = [f"  ... and {len(names) - len(shown)} more"] if more else []
    return [f"{len(names)} {title}:", *(f"  {name}" for name in shown), *more]


def difference(model: nn.Module, found: Shapes) -> Difference:
    """Compare a file's names and shapes with those of a model."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return Difference(
        missing=tuple(name for name in wanted if name not in found),
        unexpected=tuple(name for name in found if name not in wanted),
        mismatched=tuple(
            f"{name} {found[name]} in the file, {wanted[name]} in the model"
            for name in wanted
            if name in found and found[name] != wanted[name]
        ),
    )


def arguments_of(model: nn.Module) -> dict[str, Any]:
    """Constructor values of a registered model, in plain containers.

    Raises:
        CheckpointError: for a module that does not keep them (every registered model does, in `arguments`).
    """
    try:
        return dict(record(model)["args"])
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def record_of(
    model: nn.Module,
    *,
    task: str | None = None,
    spec: DataSpec | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The "kinema" record of a checkpoint: enough to rebuild the model and predict without a dataset.

    Args:
        model: a registered model; its weights stand in the file's `state_dict` under the prefix "model.".
        task: name of the task it was trained for.
        spec: what the training data serves.
        config: the composed configuration in plain containers.
    """
    return {
        "version": FORMAT_VERSION,
        "model": type(model).registered_name,  # type: ignore[attr-defined]  # checked by arguments_of below
        "args": arguments_of(model),
        "task": task,
        "spec": spec.to_dict() if spec else None,
        "config": dict(config) if config else None,
    }


def load(
    path: str | os.PathLike[str], *, part: str | None = None, weights: str = "averaged", **overrides: Any
) -> nn.Module:
    """Return the model of a checkpoint file, on the CPU and in eval mode.

    The file may be an official one of any known family, a bare state dict, safetensors, or Kinema's own .ckpt. The
    architecture and its sizes are read from the names and shapes of the tensors (or from Kinema's own record).

    Args:
        path: the file. Nothing in it is executed.
        part: take only one network of the file: "backbone" of an action checkpoint, "model_pos" or "model_traj" of a
            VideoPose3D file.
        weights: "averaged" (the EMA where the file has one) or "live".
        overrides: constructor values that the file cannot tell, such as num_heads=4 or causal=True. A name that only
            the network inside has goes to it (num_heads of an action network's backbone); what both have is said as
            backbone={"dropout": 0.1}.

    Returns:
        The model; `model.provenance` says where everything came from and which values are published defaults.

    Raises:
        CheckpointError: for a missing, damaged, unsafe or foreign file, an unknown override, and one that the file
            contradicts.
    """
    found = read_weights(path, part=part, weights=weights)
    family, stated = identify(found)
    if found.record is None:
        others: Mapping[str, Any] = models()
        for other in others.values():
            sentence = lent(other, found, family)
            if sentence is not None and found.path.name in other.lent_files:
                log.warning(sentence, found.path)
    made, stated = model_class(family), flat(stated)
    owned = _own_record(found) is not None
    told = getattr(made, "told_by_file", None)
    if told is not None and not owned:  # what shapes leave open and values or an official configuration say
        stated |= told(found.state, model_config(found.rest))
    published: Mapping[str, Any] = {} if owned else unknowable_of(made, stated)
    guesses = {name: value for name, value in published.items() if value is not ...}  # has to be said
    guesses |= {name: value for name, value in found.guesses.items() if name in published}
    overrides = _spelt_out(made, stated, overrides, family)
    guesses |= _told_by_name(made, found, stated, overrides, published)
    if owned:
        _check_against_record(found, stated, overrides)
    arguments = {**guesses, **stated, **overrides}
    guessed = {key: value for key, value in guesses.items() if key not in overrides and key not in stated}
    model = _build(made, arguments, guessed, found)
    apart = difference(model, found.shapes)
    if apart:
        changed = {key: value for key, value in overrides.items() if key in stated and stated[key] != value}
        if changed:
            given = ", ".join(f"{key}={value}" for key, value in changed.items())
            read = ", ".join(f"{key}={stated[key]}" for key in changed)
            raise CheckpointError(f"{given} contradicts {found.path}, whose tensors give {read}. Drop the override.")
        raise CheckpointError(f"{found.path} does not fit {family}:\n{apart}")
    model.load_state_dict(found.state)
    model.provenance = _provenance(found, family, arguments, guessed)  # type: ignore[assignment]
    return model.eval()


def identify(found: Weights) -> tuple[str, dict[str, Any]]:
    """Name the family of a file's weights and the constructor values that the file states.

    Raises:
        CheckpointError: when no registered family, or more than one, answers for these names and shapes.
    """
    own = _own_record(found)
    if own is not None:
        return str(own["model"]), dict(own["args"])
    answers = recognised(found.shapes)
    if len(answers) == 1:
        return next(iter(answers.items()))
    first = next(iter(found.state), "none")
    if answers:
        raise CheckpointError(
            f"{found.path} fits {len(answers)} families ({', '.join(answers)}); exactly one may answer. "
            "Narrow the `recognise` of one of them."
        )
    heads = {name.split(".")[0] for name in found.state if "." in name}
    inside = {word: recognised(_below(found.shapes, word)) for word in sorted(heads)}
    hint = "".join(
        f" Its part {word!r} is a {' or '.join(families)}: kinema.load({str(found.path)!r}, part={word!r})."
        for word, families in inside.items()
        if families
    )
    raise CheckpointError(
        f"{found.path} is no checkpoint of a known family: {len(found.state)} tensors, first {first!r}. "
        f"Known: {', '.join(sorted(models()))} (kinema models).{hint}"
    )


def lent(made: Any, found: Weights, family: str) -> str | None:
    """The sentence for users of a model who hold these official weights of another family under its name, or None.

    A model whose authors linked others' weights as their own offers `lent`, that family -> the sentence, and
    `lent_files`, the names of those files.
    """
    sentence: str | None = getattr(made, "lent", {}).get(family)
    return sentence if found.record is None else None


def _own_record(found: Weights) -> Mapping[str, Any] | None:
    """The record of what was taken of one of Kinema's own files: the whole, or a network inside it."""
    if found.record is None or found.part is None:
        return found.record
    inside = found.record["args"].get(found.part)
    return inside if is_record(inside) else None


def _below(shapes: Shapes, word: str) -> dict[str, tuple[int, ...]]:
    return {name[len(word) + 1 :]: shape for name, shape in shapes.items() if name.startswith(f"{word}.")}


def _spelt_out(
    made: type[nn.Module], stated: Mapping[str, Any], overrides: Mapping[str, Any], family: str
) -> dict[str, Any]:
    """Overrides under flat names: what only the network inside has becomes "backbone.num_heads"."""
    known = names_of(made, stated)
    heads = {name.partition(".")[0] for name in known if "." in name}
    result: dict[str, Any] = {}
    for name, value in overrides.items():
        if name in heads and isinstance(value, Mapping):
            inside = flat({name: value}) if is_record(value) else {f"{name}.{key}": one for key, one in value.items()}
        else:
            inside = {next((n for n in (name, *(f"{head}.{name}" for head in heads)) if n in known), name): value}
        result.update(inside)
    for name in result:
        if name in known:
            continue
        last = name.rpartition(".")[2]
        translated = OFFICIAL_NAMES.get(last, "")
        near = [n for n in (translated, *(f"{head}.{translated}" for head in heads)) if n in known]
        ends = {n.rpartition(".")[2]: n for n in reversed(known)}
        near = near or [ends[end] for end in difflib.get_close_matches(last, ends, n=1)]
        hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(known)}."
        raise CheckpointError(f"{family} has no argument {name!r}. {hint}")
    for head in heads & set(result):
        if result[head] != stated[head]:
            raise CheckpointError(
                f"{head}={result[head]} contradicts the file, whose {head} is a {stated[head]}. Drop the override."
            )
    return result


def _check_against_record(found: Weights, stated: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    for name, value in overrides.items():
        if name in stated and stated[name] != value and name.rpartition(".")[2] not in TRAINING_ONLY:
            raise CheckpointError(
                f"{name}={value} contradicts {found.path}, which was trained with {name}={stated[name]}. "
                "Drop the override."
            )


def _told_by_name(
    made: type[nn.Module],
    found: Weights,
    stated: Mapping[str, Any],
    overrides: Mapping[str, Any],
    unknowable: Mapping[str, Any],
) -> dict[str, Any]:
    """What the name of an official file says of arguments that its weights cannot tell; a warning where others differ.

    A family may offer `told_by_name(name)`. A name that the tensors contradict belongs to other weights and says
    nothing.
    """
    hook = getattr(made, "told_by_name", None)
    told: dict[str, Any] = hook(found.path.name) if hook is not None and unknowable else {}
    if any(stated.get(name, value) != value for name, value in told.items()):
        return {}
    told = {name: value for name, value in told.items() if name in unknowable}
    for name, value in told.items():
        if name not in overrides:
            log.info("%s: its weights cannot tell %s; %s=%s is what its name says.", found.path, name, name, value)
        elif overrides[name] != value:
            log.warning(
                "%s: %s=%s is used, but the name of the file says %s, and its weights fit both: "
                "use %s=%s unless you know better.",
                found.path, name, overrides[name], value, name, value,
            )  # fmt: skip
    return told


def _build(made: type[nn.Module], arguments: dict[str, Any], guessed: Mapping[str, Any], found: Weights) -> nn.Module:
    """Construct a model without moving the random generators that belong to the caller."""
    needed = [
        name
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.default is parameter.empty and name not in arguments
    ]
    if needed:
        example = ", ".join(f"{name}=..." for name in needed)
        typed = " ".join(f"model.{name}=..." for name in needed)
        raise CheckpointError(
            f"{found.path} cannot tell {', '.join(needed)}. "
            f"Say it: kinema.load(path, {example}), or {typed} for run.py."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            return made(**nested(arguments))
    except (KinemaError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        guess = ", ".join(f"{key}={value}" for key, value in guessed.items())
        remedy = f" The file cannot tell {guess}, which are the published values; say others." if guess else ""
        raise CheckpointError(f"{found.path}: its {made.__name__} cannot be built: {error}{remedy}") from error


def _facts(rest: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values among a file's other entries; optimiser states would keep twice the weights in memory.

    mmcv keeps its facts one and two levels deeper, in `meta` and its `hook_msgs`; they come out under their own names.
    """
    meta = rest.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    hooks = meta.get("hook_msgs")
    plain = {}
    for key, value in {**(hooks if isinstance(hooks, Mapping) else {}), **meta, **rest}.items():
        value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
        numbers = isinstance(value, list) and value and all(isinstance(one, (int, float)) for one in value)
        if isinstance(value, (bool, int, float, str)) or numbers:
            plain[key] = value
    return plain


def _provenance(found: Weights, family: str, arguments: dict[str, Any], guessed: dict[str, Any]) -> Provenance:
    record = found.record or {}
    return Provenance(
        path=found.path,
        sha256=found.sha256,
        envelope=found.envelope,
        part=found.part,
        kind=found.kind,
        family=family,
        arguments=nested(arguments),
        guessed=guessed,
        preprocess=found.preprocess,
        spec=DataSpec.from_dict(record["spec"]) if record.get("spec") else None,
        task=record.get("task"),
        config=record.get("config"),
        facts=_facts(found.rest),
    )
