"""The contract of a model as one check, for the models of this package and of others."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from kinema.checkpoints.arguments import flat, nested, unknowable_of
from kinema.core.spec import Signature
from kinema.errors import KinemaError
from kinema.inference.denoise import denoiser
from kinema.models.registry import models


def check_model(factory: Callable[..., nn.Module], *cases: dict[str, Any], compile_backend: str | None = None) -> None:
    """Assert that a registered model keeps the contract of `kinema.models`, at several sizes.

    For every case: keyword-only constructor, arguments kept as plain containers, construction on the meta device,
    signature against forward passes, refused lengths, samples independent of their batch, float64, bfloat16 autocast,
    a gradient for every parameter (but those that the model names in `unused_parameters`), copies, export, no state
    beyond parameters and running statistics, arguments read back from names and shapes, a strict reload that gives the
    same numbers, and each ability against `forward`.

    Args:
        factory: the class.
        cases: constructor arguments; sizes should be small and differ from case to case.
        compile_backend: also run under `torch.compile` with this backend (slow).

    Raises:
        AssertionError: with the first broken clause.
    """
    _require(len(cases) > 0, "check_model needs at least one dict of constructor arguments")
    _check_constructor(factory)
    for arguments in cases:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = factory(**copy.deepcopy(arguments))
            _scatter_parameters(model)
        model.eval()
        _check_arguments(factory, model, arguments)
        _check_meta(factory, model, arguments)
        _check_forward(model)
        _check_number_formats(model)
        _check_gradients(model)
        _check_state(factory, model, arguments)
        _check_abilities(model)
        _check_export(model)
        if compile_backend is not None:
            _check_compile(model, compile_backend)


def _require(condition: object, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def _near(what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    _require(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    difference = (found.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item() + 1.0
    _require(difference <= tolerance * scale, f"{what}: differs by {difference:.2e} at a scale of {scale:.2e}")


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except KinemaError:
        return
    raise AssertionError(f"{what} must be refused with a KinemaError")


def _scatter_parameters(model: nn.Module) -> None:
    """Random values everywhere: zeros and ones of an initialisation hide faults."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and name in model.state_dict():
                buffer.add_(torch.rand_like(buffer) * 0.1)


def _inputs(model: nn.Module, batch: int, frames: int | None = None) -> tuple[Tensor, ...]:
    signature: Signature = model.signature  # type: ignore[assignment]
    return signature.example(batch, frames)


def _check_constructor(factory: Callable[..., nn.Module]) -> None:
    for name, parameter in inspect.signature(factory).parameters.items():
        _require(parameter.kind is parameter.KEYWORD_ONLY, f"constructor argument {name} must be keyword-only")
        size = isinstance(parameter.default, int) and not isinstance(parameter.default, bool)
        _require(not size, f"constructor argument {name}={parameter.default}: sizes have no default, they live in yaml")


def _check_arguments(factory: Callable[..., nn.Module], model: nn.Module, arguments: dict[str, Any]) -> None:
    kept: Any = getattr(model, "arguments", None)
    _require(isinstance(kept, dict), "the model must keep its constructor arguments as `arguments`")
    _require(set(kept) == set(inspect.signature(factory).parameters), f"`arguments` has the keys {sorted(kept)}")
    _require(json.loads(json.dumps(kept)) == kept, "`arguments` must hold plain values, lists and dicts only")
    for name, value in arguments.items():
        _require(kept[name] == value, f"`arguments` holds {name}={kept[name]!r}, built with {value!r}")


def _check_meta(factory: Callable[..., nn.Module], model: nn.Module, arguments: dict[str, Any]) -> None:
    with torch.device("meta"):
        ghost = factory(**copy.deepcopy(arguments))
    for name, tensor in (*ghost.named_parameters(), *ghost.named_buffers()):
        _require(tensor.is_meta, f"{name} is made on {tensor.device} under torch.device('meta')")
    shapes = {name: tensor.shape for name, tensor in ghost.state_dict().items()}
    _require(shapes == {n: t.shape for n, t in model.state_dict().items()}, "shapes differ on the meta device")


def _lengths(signature: Signature) -> list[int]:
    if signature.frames_rule == "exact":
        return [signature.frames]
    if signature.frames_rule == "max":
        return sorted({1, (signature.frames + 1) // 2, signature.frames})
    return sorted({1 + sum(signature.context), signature.frames, signature.frames + 1, signature.frames + 6})


def _check_forward(model: nn.Module) -> None:
    signature: Any = getattr(model, "signature", None)
    _require(isinstance(signature, Signature), "the model needs a `signature`")
    with torch.no_grad():
        for frames in _lengths(signature):
            inputs = _inputs(model, 3, frames)
            before = [tensor.clone() for tensor in inputs]
            out = model(*inputs)
            _require(all(map(torch.equal, before, inputs)), "forward must not change its input")
            _require(out.shape[0] == 3 and bool(out.isfinite().all()), f"output {tuple(out.shape)} at {frames} frames")
            if signature.output == "pose3d":
                wanted = (3, frames - sum(signature.context), signature.joints_out, 3)
                _require(tuple(out.shape) == wanted, f"output {tuple(out.shape)} at {frames} frames, expected {wanted}")
            elif signature.output == "logits":
                _require(
                    tuple(out.shape) == (3, signature.classes), f"output {tuple(out.shape)}, expected (3, classes)"
                )
            elif signature.output == "embedding":
                wide = (3, signature.feature_dim)
                _require(tuple(out.shape) == wide, f"output {tuple(out.shape)}, expected {wide} of `feature_dim`")
                _near("the length of an embedding", out.norm(dim=-1), torch.ones(3), 1e-5)
            elif signature.output == "noise":
                _require(out.shape == inputs[0].shape, f"output {tuple(out.shape)}, expected that of x")
            alone = model(*(tensor[1:2] for tensor in inputs))
            _near("a sample alone and in a batch", alone, out[1:2], 1e-5)
        if signature.frames_rule in ("exact", "max"):
            with _refused(f"{signature.frames + 1} frames"):
                model(*_inputs(model, 1, signature.frames + 1))
        least = 1 + sum(signature.context) if signature.frames_rule == "any" else signature.frames
        if signature.frames_rule in ("exact", "any") and least > 1:
            with _refused(f"{least - 1} frames"):
                model(*_inputs(model, 1, least - 1))


def _check_number_formats(model: nn.Module) -> None:
    inputs = _inputs(model, 2)
    with torch.no_grad():
        single = model(*inputs)
        wide = (tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs)
        double = copy.deepcopy(model).double()(*wide)
        _require(double.dtype == torch.float64, f"a float64 model returns {double.dtype}")
        _near("float32 against float64", single, double, 1e-4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(*inputs)
        # bfloat16 keeps 8 bits; a fault of shapes or types is far outside a tenth of the largest output.
        _near("bfloat16 autocast against float32", half.float(), single, 0.1)


def _check_gradients(model: nn.Module) -> None:
    model = copy.deepcopy(model)
    # Enough samples that every rectified unit is active in one of them.
    _loss(model(*_inputs(model, 16))).backward()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    dead = [name for name, p in trained if p.grad is None or not bool(p.grad.any())]
    kept = set(getattr(model, "unused_parameters", ()))  # official files hold them, nothing depends on them
    _require(not set(dead) - kept, f"no gradient reaches {sorted(set(dead) - kept)}")
    _require(kept <= set(dead), f"a gradient reaches {sorted(kept - set(dead))}, named in `unused_parameters`")
    model.train()
    model.zero_grad()
    _loss(model(*_inputs(model, 4))).backward()
    broken = [n for n, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    _require(not broken, f"training gradients of {broken} are not finite")


def _loss(out: Tensor) -> Tensor:
    """Squares with unequal weights: the plain sum of squares of an embedding of length 1 has no gradient."""
    return (out.square() * torch.linspace(1, 2, out[0].numel(), dtype=out.dtype).view_as(out[0])).sum()


def _check_state(factory: Callable[..., nn.Module], model: nn.Module, arguments: dict[str, Any]) -> None:
    state = model.state_dict()
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name in set(state) - parameters:
        owner = model.get_submodule(name.rpartition(".")[0])
        standard = type(owner).__module__.startswith("torch.nn.")
        kept = (*getattr(factory, "published_buffers", ()), *getattr(factory, "measured_buffers", ()))
        _require(
            standard or any(fnmatch(name, pattern) for pattern in kept),
            f"buffer {name} is in the state dict; constants are registered with persistent=False, and what official "
            "files hold, or training data tell, is named in the class attribute `published_buffers` or "
            "`measured_buffers`",
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    answers = {name: family.recognise(shapes) for name, family in models().items()}  # type: ignore[attr-defined]
    families = [name for name, answer in answers.items() if answer is not None]
    own = getattr(factory, "registered_name", None)
    _require(families == [own], f"the state dict of {own} is recognised by {families}")
    # Arguments of a network inside another one are compared one by one: "backbone.num_heads".
    known: dict[str, Any] = flat(answers[str(own)] or {})
    arguments = flat({name: value for name, value in arguments.items()})
    unknowable: dict[str, Any] = unknowable_of(factory, known)
    missing = set(arguments) - set(known) - set(unknowable)
    _require(not missing, f"arguments neither recognised nor unknowable: {sorted(missing)}")
    wrong = {name: value for name, value in known.items() if value != arguments.get(name, value)}
    _require(not wrong, f"recognised {wrong}, built with { ({name: arguments[name] for name in wrong}) }")
    told = {name: arguments[name] for name in unknowable if name in arguments}
    again = factory(**nested({**unknowable, **known, **told})).eval()
    again.load_state_dict(state, strict=True)
    with torch.no_grad():
        inputs = _inputs(model, 1)
        _require(torch.equal(again(*inputs), model(*inputs)), "a rebuilt and reloaded model gives other numbers")


def _check_abilities(model: nn.Module) -> None:
    signature: Signature = model.signature  # type: ignore[assignment]
    with torch.no_grad():
        if signature.persons is not None and getattr(model, "mask_persons", False):
            _check_persons(model)
        if signature.output == "noise":
            _check_noise(model)
        if hasattr(model, "features"):
            (pose,) = _inputs(model, 2)
            features = model.features(pose)  # type: ignore[operator]
            wanted = (*pose.shape[:3], signature.feature_dim)
            _require(tuple(features.shape) == wanted, f"features {tuple(features.shape)}, expected {wanted}")
            if isinstance(getattr(model, "head", None), nn.Module):
                _near("head(features) against forward", model.head(features), model(pose), 1e-6)  # type: ignore[operator]
        elif signature.output != "embedding":
            _require(signature.feature_dim is None, "signature.feature_dim is set but there is no `features`")
        if hasattr(model, "slide"):
            window = 1 + sum(signature.context)
            for length in (1, 2, 7):
                (pose,) = _inputs(model, 2, window - 1 + length)
                each = [model(pose[:, i : i + window]) for i in range(length)]
                _near(f"slide over {length} frames", model.slide(pose), torch.cat(each, dim=1), 1e-5)  # type: ignore[operator]


def _check_persons(model: nn.Module) -> None:
    """A model with `mask_persons` looks at the persons it is told of, and at nobody else."""
    (pose,) = _inputs(model, 3)
    persons = torch.ones(pose.shape[:2], dtype=torch.bool)
    _near("everybody present", model(pose, persons), model(pose), 1e-5)
    persons[1, 1:] = False
    other = pose.clone()
    other[1, 1:] = 7.0
    _near("a person who is absent", model(other, persons), model(pose, persons), 1e-6)


def _check_noise(model: nn.Module) -> None:
    """A noise predictor takes its condition or not, sample by sample; `denoiser` gives what `forward` does."""
    x, t, condition = _inputs(model, 4)
    with_it, without = model(x, t, condition), model(x, t)
    _require(not torch.equal(with_it, without), "the condition must change the output")
    every = torch.ones(4, dtype=torch.bool)
    _near("condition=None against absence", model(x, t, condition, ~every), without, 1e-5)
    _near("everybody present", model(x, t, condition, every), with_it, 1e-5)
    present = every.clone()
    present[1::2] = False
    other = torch.where(present[:, None, None], condition, 7.0)
    expected = torch.where(present[:, None, None], with_it, without)
    _near("two samples without the condition", model(x, t, other, present), expected, 1e-5)
    with _refused("another number of features"):
        model(x[..., 1:], t, condition)
    with _refused("a condition of another batch"):
        model(x, t, condition[1:])
    if not hasattr(model, "denoiser"):
        return
    windows, samples, steps = 3, 4, torch.tensor([999, 500, 1])
    x = torch.stack([_inputs(model, samples)[0] * (1 + window) for window in range(windows)])
    condition = condition[:windows]
    for given, seeing in ((condition, None), (condition, 0), (condition, 1), (condition, samples), (None, None)):
        shared, plain = (denoiser(model, given, steps, seeing, plain=plain) for plain in (False, True))
        for step in range(len(steps)):
            what = f"denoiser, {'no' if given is None else 'a'} condition, {seeing} samples see it, step {step}"
            _near(what, shared(x, step), plain(x, step), 1e-5)
    with _refused("more samples that see the condition than there are"):
        denoiser(model, condition, steps, samples + 1)(x, 0)
    with _refused("sampling in training mode"):
        denoiser(copy.deepcopy(model).train(), condition, steps)


def _check_export(model: nn.Module) -> None:
    inputs = _inputs(model, 1)
    with torch.no_grad():
        exported = torch.export.export(model, inputs, strict=False)
        _near("torch.export", exported.module()(*inputs), model(*inputs), 1e-5)


def _check_compile(model: nn.Module, backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
    with torch.no_grad():
        for batch in (1, 2):
            inputs = _inputs(model, batch)
            _near(f"torch.compile with {backend}", compiled(*inputs), model(*inputs), 1e-5)
