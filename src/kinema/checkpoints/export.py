"""Weights out of Kinema: official layouts, safetensors, ONNX and torch.export, each compared with the eager model."""

from __future__ import annotations

import copy
import json
import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinema.checkpoints.envelopes import ENVELOPES, Envelope, read_weights
from kinema.checkpoints.files import require
from kinema.checkpoints.load import Provenance, arguments_of, load, record_of
from kinema.core.spec import DataSpec, Signature
from kinema.errors import CheckpointError

log = logging.getLogger(__name__)

# Batches of the comparison. Two is what the graph is traced with: torch.export takes sizes 0 and 1 for constants.
_TRACED, _COMPARED = 2, (1, 2, 3)

# Largest difference from the eager output, over the largest output: other kernels, other order of sums.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """One written file.

    Attributes:
        path: the file.
        format: "official", "safetensors", "onnx" or "torch".
        size: in bytes.
        difference: largest absolute difference of its outputs from the eager model's.
        scale: largest absolute output of the eager model.
    """

    path: Path
    format: str
    size: int
    difference: float
    scale: float

    def __str__(self) -> str:
        return (
            f"{self.path} ({self.format}, {self.size:,} bytes): largest difference from the eager model "
            f"{self.difference:.2e}, outputs up to {self.scale:.2f}"
        )


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    format: str,
    *,
    overwrite: bool = False,
    frames: int | None = None,
) -> Exported:
    """Write a model to a file, read it back and compare outputs before the file gets its name.

    Args:
        model: a registered model; it is not changed.
        path: the file; its folder is made. An existing one is kept unless `overwrite`.
        format: "official" = the layout of the model's authors, readable by their scripts; "safetensors" = weights
            with Kinema's record as metadata; "onnx" and "torch" (torch.export, .pt2) = a graph for any batch size. The
            graph of a network with `mask_persons` for several persons takes a second input, persons (B, M) bool; that
            of a noise predictor takes x, t, condition and present (B,) bool.
        overwrite: replace an existing file.
        frames: input length of the graphs; None = what the model is built for.

    Raises:
        CheckpointError: for an existing file, an unknown format, a model without official layout, an absent extra,
            and a file whose outputs differ.
    """
    path = Path(path).expanduser()
    if format not in FORMATS:
        raise CheckpointError(f"export.format={format} is unknown. Use export.format={'|'.join(FORMATS)}.")
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists and was kept. Use export.overwrite=true, or another export.output.")
    plain = copy.deepcopy(model).cpu().eval()
    inputs = [_arguments(plain, batch, frames) for batch in _COMPARED]
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: readers tell formats by it.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        with _quiet():
            run = FORMATS[format].write(plain, temporary, inputs[_COMPARED.index(_TRACED)])
        with torch.inference_mode():
            pairs = [(run(*given), plain(*given)) for given in inputs]
        difference = max(float((found - wanted).abs().max()) for found, wanted in pairs)
        scale = max(float(wanted.abs().max()) for _, wanted in pairs)
        if not difference <= _TOLERANCE * max(scale, 1.0):
            raise CheckpointError(
                f"The {format} form of this model differs from the eager one by {difference:.2e} (outputs up to "
                f"{scale:.2f}); {path} was not written. Use another export.format."
            )
        size = temporary.stat().st_size
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path=path, format=format, size=size, difference=difference, scale=scale)


def _arguments(model: nn.Module, batch: int, frames: int | None) -> tuple[Tensor, ...]:
    """Example arguments of `forward`, with what is optional there: who is present, and which samples see a condition.

    A graph has no optional inputs.
    """
    signature: Signature = model.signature  # type: ignore[assignment]
    pose = signature.example(batch, frames)
    if signature.output == "noise":
        return (*pose, torch.arange(batch) % 2 == 0)
    if signature.persons in (None, 1) or not getattr(model, "mask_persons", False):
        return pose
    persons = torch.ones(pose[0].shape[:2], dtype=torch.bool)
    persons[::2, 1:] = False
    return (*pose, persons)


Run = Callable[..., Tensor]


def _write_official(model: nn.Module, path: Path, example: tuple[Tensor, ...]) -> Run:
    arguments = arguments_of(model)
    family = type(model).registered_name  # type: ignore[attr-defined]  # arguments_of checked it
    layouts = [envelope for envelope in ENVELOPES if family in envelope.families]
    if not layouts or arguments.get("head") == "coarse_fine":
        what = f"{family} with head=coarse_fine" if layouts else family
        raise CheckpointError(f"{what} has no official layout. Use export.format=safetensors.")
    provenance: Provenance | None = getattr(model, "provenance", None)
    facts: dict[str, Any] = provenance.facts if provenance is not None else {}
    preprocess = _preprocess_of(model)
    envelope = next(
        (one for one in layouts if provenance is not None and one.name == provenance.envelope),
        next((one for one in layouts if one.preprocess == preprocess), layouts[-1]),
    )
    lr = facts.get("lr")
    rate = lr if isinstance(lr, (float, list)) else 0.0
    state = _state_of(model)
    content = envelope.write(state, int(facts.get("epoch", 0)), rate, facts)
    content.update(_carried(envelope, provenance, state))
    implied = envelope.preprocess_of({}, {k: tuple(t.shape) for k, t in state.items()})
    if preprocess not in (None, implied) and not envelope.bare:
        content["preprocess"] = preprocess  # the layout alone would say another one; the authors' scripts ignore it
    torch.save(content, path)
    return load(path, **arguments)


def _preprocess_of(model: nn.Module) -> str | None:
    """The way from raw to network units that a loaded model was trained with, where known."""
    provenance: Provenance | None = getattr(model, "provenance", None)
    if provenance is None:
        return None
    return provenance.spec.preprocess if provenance.spec is not None else provenance.preprocess


def _carried(envelope: Envelope, provenance: Provenance | None, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the source file holds for resuming (optimiser, scheduler), while the weights are still those of the file."""
    if provenance is None or provenance.envelope != envelope.name or provenance.part is not None:
        return {}
    try:
        found = read_weights(provenance.path)
    except CheckpointError:
        return {}  # moved or deleted since it was loaded
    same = found.sha256 == provenance.sha256 and found.state.keys() == state.keys()
    if not same or any(not torch.equal(found.state[name], state[name]) for name in state):
        return {}
    return {key: found.rest[key] for key in envelope.carried if key in found.rest}


def _write_safetensors(model: nn.Module, path: Path, example: tuple[Tensor, ...]) -> Run:
    safetensors = require("safetensors.torch")
    provenance = getattr(model, "provenance", None)
    spec: DataSpec | None = provenance.spec if provenance is not None else None
    record = record_of(model, task=provenance.task if provenance is not None else None, spec=spec)
    if spec is None and provenance is not None and provenance.preprocess is not None:
        record["preprocess"] = provenance.preprocess
    metadata = {"format": "pt", "kinema": json.dumps(record)}
    path.write_bytes(safetensors.save(_state_of(model), metadata))  # save_file would ignore the user's umask
    return load(path)


def _write_onnx(model: nn.Module, path: Path, example: tuple[Tensor, ...]) -> Run:
    require("onnxscript")
    runtime = require("onnxruntime")
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        input_names=_input_names(model)[: len(example)],
        output_names=[model.signature.output],  # type: ignore[union-attr, list-item]
        dynamic_shapes=_dynamic_batch(example),
        verbose=False,
    )
    if program is None:  # the return type of the form that writes a file itself
        raise CheckpointError("torch.onnx.export returned no program. Use export.format=torch.")
    program.save(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


def _input_names(model: nn.Module) -> list[str]:
    signature: Signature = model.signature  # type: ignore[assignment]
    return ["x", "t", "condition", "present"] if signature.output == "noise" else ["pose", "persons"]


def _write_torch(model: nn.Module, path: Path, example: tuple[Tensor, ...]) -> Run:
    program = torch.export.export(model, example, dynamic_shapes=_dynamic_batch(example))
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _dynamic_batch(example: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in example)


def _state_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, each tensor in memory of its own (safetensors refuses shared and strided ones)."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print their progress and warn about their own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclass(frozen=True)
class _Format:
    suffix: str
    write: Callable[[nn.Module, Path, tuple[Tensor, ...]], Run]


FORMATS: dict[str, _Format] = {
    "official": _Format(".bin", _write_official),
    "safetensors": _Format(".safetensors", _write_safetensors),
    "onnx": _Format(".onnx", _write_onnx),
    "torch": _Format(".pt2", _write_torch),
}


def suffix_of(model: nn.Module, format: str) -> str:
    """What the name of a model's file in a format ends with: in the official one, as its authors name theirs."""
    family = getattr(type(model), "registered_name", None)
    layouts = [envelope for envelope in ENVELOPES if family in envelope.families]
    return layouts[-1].suffix if format == "official" and layouts else FORMATS[format].suffix
