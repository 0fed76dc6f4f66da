"""`check_model` passes a sound model and names the broken clause of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kinema.core.spec import Signature
from kinema.inference.denoise import denoiser
from kinema.models import registry
from kinema.models.inputs import expect_pose
from kinema.models.layers.noise import expect_noise, noise_signature
from kinema.testing import check_model

ARGUMENTS = {"num_joints": 3, "in_channels": 2}


class Linear(nn.Module):
    """Each joint from the 2D pose of its own frame by one matrix."""

    unknowable: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, num_joints: int, in_channels: int) -> None:
        super().__init__()
        self.arguments = {"num_joints": num_joints, "in_channels": in_channels}
        self.head = nn.Linear(num_joints * in_channels, num_joints * 3)
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints,
            frames=1,
            frames_rule="any",
        )

    def forward(self, pose: Tensor) -> Tensor:
        expect_pose(pose, self.signature)
        return self.head(pose.flatten(2)).unflatten(2, (-1, 3))

    @classmethod
    def recognise(cls, shapes: registry.Shapes) -> dict[str, Any] | None:
        if set(shapes) != {"head.weight", "head.bias"} or shapes["head.bias"][0] % 3:
            return None
        joints = shapes["head.bias"][0] // 3
        return {"num_joints": joints, "in_channels": shapes["head.weight"][1] // joints}


class SlidesOneFrameLate(Linear):
    def slide(self, pose: Tensor) -> Tensor:
        return self(pose).roll(1, dims=1)


class FeaturesOfAnotherWidth(Linear):
    def features(self, pose: Tensor) -> Tensor:
        return pose


class WrongContext(Linear):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(num_joints=arguments["num_joints"], in_channels=arguments["in_channels"])
        values = {**self.signature.to_dict(), "context": (1, 1), "frames": 3}
        self.signature = Signature(**values)


class ChangesItsInput(Linear):
    def forward(self, pose: Tensor) -> Tensor:
        return super().forward(pose.mul_(2))


class MixesTheBatch(Linear):
    def forward(self, pose: Tensor) -> Tensor:
        return super().forward(pose - pose.mean(0))


class DeadParameter(Linear):
    def __init__(self, *, num_joints: int, in_channels: int) -> None:
        super().__init__(num_joints=num_joints, in_channels=in_channels)
        self.spare = nn.Parameter(torch.zeros(2))


class ConstantInTheState(Linear):
    def __init__(self, *, num_joints: int, in_channels: int) -> None:
        super().__init__(num_joints=num_joints, in_channels=in_channels)
        self.register_buffer("scale", torch.ones(1))


class PositionalArgument(Linear):
    def __init__(self, num_joints: int, *, in_channels: int) -> None:
        super().__init__(num_joints=num_joints, in_channels=in_channels)


class DefaultSize(Linear):
    def __init__(self, *, num_joints: int = 17, in_channels: int) -> None:
        super().__init__(num_joints=num_joints, in_channels=in_channels)


class ForgetsArguments(Linear):
    def __init__(self, *, num_joints: int, in_channels: int) -> None:
        super().__init__(num_joints=num_joints, in_channels=in_channels)
        self.arguments = {"num_joints": num_joints}


class Misreads(Linear):
    @classmethod
    def recognise(cls, shapes: registry.Shapes) -> dict[str, Any] | None:
        read = super().recognise(shapes)
        return read and {**read, "in_channels": 3}


class FixedDevice(Linear):
    def __init__(self, *, num_joints: int, in_channels: int) -> None:
        super().__init__(num_joints=num_joints, in_channels=in_channels)
        self.register_buffer("table", torch.zeros(3, device="cpu"), persistent=False)


class Float32Only(Linear):
    def forward(self, pose: Tensor) -> Tensor:
        return super().forward(pose).float()


class Noise(nn.Module):
    """Each coefficient from itself, the step and the condition."""

    unknowable: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, kept_coeffs: int, num_features: int) -> None:
        super().__init__()
        self.arguments = {"kept_coeffs": kept_coeffs, "num_features": num_features}
        self.scale = nn.Parameter(torch.ones(kept_coeffs, num_features))
        self.told = nn.Parameter(torch.ones(num_features))
        self.signature = noise_signature(kept_coeffs, num_features)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        expect_noise(x, t, condition, present, *self.scale.shape)
        x = x * self.scale + t[:, None, None].to(x.dtype) * 1e-3
        if condition is None:
            return x
        told = condition * self.told
        return x + (told if present is None else torch.where(present[:, None, None], told, 0))

    @classmethod
    def recognise(cls, shapes: registry.Shapes) -> dict[str, Any] | None:
        if set(shapes) != {"scale", "told"}:
            return None
        return {"kept_coeffs": shapes["scale"][0], "num_features": shapes["scale"][1]}


class IgnoresTheCondition(Noise):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        out = super().forward(x, t, condition, present)
        return out if condition is None else super().forward(x, t) + 0 * self.told


class IgnoresAbsence(Noise):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        expect_noise(x, t, condition, present, *self.scale.shape)
        return super().forward(x, t, condition)


class SharesWrongly(Noise):
    def denoiser(self, condition: Tensor | None, timesteps: Tensor, conditioned: int | None = None) -> Any:
        return denoiser(self, condition, timesteps.flip(0), conditioned, plain=True)


@pytest.fixture(autouse=True)
def alone_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry.models()
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    yield


def test_passes_a_sound_model() -> None:
    check_model(registry.register("linear")(Linear), ARGUMENTS, {"num_joints": 5, "in_channels": 3})


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (SlidesOneFrameLate, "slide over 2 frames"),
        (FeaturesOfAnotherWidth, "features"),
        (WrongContext, "keyword-only"),
        (ChangesItsInput, "must not change its input"),
        (MixesTheBatch, "alone and in a batch"),
        (DeadParameter, r"no gradient reaches \['spare'\]"),
        (ConstantInTheState, "buffer scale"),
        (PositionalArgument, "keyword-only"),
        (DefaultSize, "sizes have no default"),
        (ForgetsArguments, "`arguments` has the keys"),
        (Misreads, "recognised {'in_channels': 3}"),
        (FixedDevice, "table is made on cpu"),
        (Float32Only, "float64 model returns"),
    ],
)
def test_names_the_broken_clause(broken: type[nn.Module], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_model(registry.register("broken")(broken), ARGUMENTS)


NOISE = {"kept_coeffs": 4, "num_features": 6}


def test_passes_a_sound_noise_predictor() -> None:
    check_model(registry.register("noise")(Noise), NOISE, {"kept_coeffs": 1, "num_features": 5})


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (IgnoresTheCondition, "no gradient reaches|the condition must change"),
        (IgnoresAbsence, "condition=None against absence"),
        (SharesWrongly, "denoiser, a condition, None samples see it, step 0"),
    ],
)
def test_names_what_is_broken_of_a_noise_predictor(broken: type[nn.Module], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_model(registry.register("broken")(broken), NOISE)


def test_a_parameter_named_unused_may_get_no_gradient_and_must_not() -> None:
    class Spare(DeadParameter):
        unused_parameters = ("spare",)

    check_model(registry.register("spare")(_without_state(Spare)), ARGUMENTS)

    class Lies(Linear):
        unused_parameters = ("head.bias",)

    with pytest.raises(AssertionError, match=r"a gradient reaches \['head.bias'\]"):
        check_model(registry.register("lies")(Lies), ARGUMENTS)


def _without_state(cls: type[Linear]) -> type[Linear]:
    """The class with a `recognise` that knows the spare parameter."""

    def recognise(shapes: registry.Shapes) -> dict[str, Any] | None:
        rest = {name: shape for name, shape in shapes.items() if name != "spare"}
        return Linear.recognise(rest) if "spare" in shapes else None

    cls.recognise = staticmethod(recognise)  # type: ignore[method-assign, assignment]
    return cls


def test_checks_the_signature_against_the_output() -> None:
    class Promises(Linear):
        def __init__(self, *, num_joints: int, in_channels: int) -> None:
            super().__init__(num_joints=num_joints, in_channels=in_channels)
            self.signature = Signature(**{**self.signature.to_dict(), "context": (1, 1), "frames": 3})

    with pytest.raises(AssertionError, match=r"expected \(3, 1, 3, 3\)"):
        check_model(registry.register("promises")(Promises), ARGUMENTS)


def test_a_check_without_cases_fails() -> None:
    with pytest.raises(AssertionError, match="at least one"):
        check_model(Linear)
