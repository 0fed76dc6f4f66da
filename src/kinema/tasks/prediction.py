"""Motion prediction: several possible futures of an observed motion, by diffusion in the frequency domain."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core import condition_noise as noises
from kinema.core import diffusion, random
from kinema.core.motion_space import CONDITIONS, RESIDUALS, Encoded, MotionSpace
from kinema.core.skeleton import Skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.data import motion_windows
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.inference.motion_baselines import FROM_TRAINING, MotionBaselines, hips_of
from kinema.inference.motion_sampler import MotionSampler, standardised
from kinema.protocols.registry import PREDICTION as PROTOCOLS
from kinema.protocols.report import Protocol
from kinema.tasks.base import Batch, Task, one_of, options_by_protocol
from kinema.tasks.optim import OptimizerRecipe, SchedulerRecipe
from kinema.tasks.prediction_checks import check_condition, check_condition_noise, refuse_other_training
from kinema.tasks.sampling import Sampling, Variants, check_variants, numbered, published_generators, with_reference

# Training windows that a network measures its condition on, evenly spaced.
_MEASURED = 4096
# What a network is trained for: a test with other values would read its output wrongly.
_TRAINED = ("history", "horizon", "prediction", "noise_steps", "schedule", "padding", "heading", "residual",
            "coeff_scale", "condition_scale", "condition", "condition_stride", "condition_noise")  # fmt: skip


class PredictionTask(Task):
    """Train a network that tells noise from motion, and judge the futures that are sampled with it.

    Args:
        model: network with output "noise"; called with (x (B, n, F), t (B,), condition (B, n, F) or None, present (B,)
            or None).
        optimizer: recipe.
        scheduler: recipe or null.
        history: observed frames H.
        horizon: predicted frames P.
        prediction: what the network gives: noise, x0 (the motion) or v.
        noise_steps, schedule: levels of noise, and how fast they rise.
        padding, heading, residual, coeff_scale: the space that the network works in, see `MotionSpace`.
        condition, condition_stride: what the network is told of the history, see `MotionSpace`.
        condition_noise: noise on the condition, for networks that are told its level; null = none. `clean` and
            `unseen`: shares of the training windows that see the condition itself, and nothing of it; `highest`: level
            up to which the samples of a window are spread.
        loss_power: weight of coefficient k in the loss, coeff_scale[k] ** (2 * loss_power), mean 1; 0 = all alike.
        mod_train: share of the training windows, or steps, that see the condition.
        dropout_by: sample, or batch: the condition is dropped for a whole step (published).
        t_min: lowest noise level that is trained.
        num_samples: futures K of each window.
        ddim_timesteps: steps of sampling.
        sampler: ddim (published), or a faster one by its name.
        completion: the observed frames are put back at every step.
        mod_test: share of the samples of a window that see the condition; the others know the history by completion.
        compat_rng: draw as the released code does: one decision for all windows per pass, noise of torch's CPU
            generator. It needs all windows in one batch.
        seed: of training draws and of samples.
        chunk: sequences that the network sees at once: bounds the memory, not the result.
        validation: options of `predict` that replace those of the first variant in a validation.
        protocol: name in `protocols.registry.PREDICTION`.
        protocol_options: options of each protocol by its name.
        options: those of `Task`.
    """

    name: ClassVar[str] = "prediction"
    outputs: ClassVar[frozenset[str]] = frozenset({"noise"})
    needs: ClassVar[frozenset[str]] = frozenset({"pose3d"})
    modes: ClassVar[frozenset[str]] = frozenset({"switch", "control", "inbetween", "zero_shot"})
    alpha_hat: Tensor

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerRecipe,
        scheduler: SchedulerRecipe | None = None,
        *,
        history: int,
        horizon: int,
        prediction: str,
        noise_steps: int,
        schedule: str,
        padding: str,
        heading: bool,
        residual: str,
        coeff_scale: Sequence[float] | None,
        condition_scale: Sequence[float] | None,
        condition: str,
        condition_stride: int,
        condition_noise: Mapping[str, float] | None,
        loss_power: float,
        mod_train: float,
        dropout_by: str,
        t_min: int,
        num_samples: int,
        ddim_timesteps: int,
        sampler: str,
        completion: bool,
        mod_test: float,
        compat_rng: bool,
        seed: int,
        chunk: int,
        baseline_stride: int,
        validation: Mapping[str, Any] | None = None,
        protocol: str,
        protocol_options: Mapping[str, Mapping[str, Any]] | None = None,
        variants: Variants = None,
        **options: Any,
    ) -> None:
        sampling = Sampling(num_samples, ddim_timesteps, sampler, completion, mod_test, compat_rng)
        chosen = with_reference(variants, sampling, noise_steps)
        super().__init__(model, optimizer, scheduler, variants=chosen, **options)
        self.sampling, self.validation = sampling, dict(validation or {})
        self.history, self.horizon = history, horizon
        self.prediction = one_of("prediction", prediction, diffusion.PREDICTIONS)
        self.noise_steps, self.schedule = noise_steps, one_of("schedule", schedule, diffusion.SCHEDULES)
        self.padding = one_of("padding", padding, diffusion.PADDINGS)
        self.heading, self.residual = heading, one_of("residual", residual, RESIDUALS)
        self.coeff_scale, self.condition_scale = _numbers(coeff_scale), _numbers(condition_scale)
        self.condition, self.condition_stride = one_of("condition", condition, CONDITIONS), condition_stride
        self.condition_noise = None if condition_noise is None else {**condition_noise}
        self.loss_power = loss_power
        self.mod_train, self.dropout_by = mod_train, one_of("dropout_by", dropout_by, ("sample", "batch"))
        self.t_min, self.seed, self.chunk, self.baseline_stride = t_min, seed, chunk, baseline_stride
        self.protocol = one_of("protocol", protocol, tuple(PROTOCOLS))
        self.protocol_options = options_by_protocol(protocol_options, tuple(PROTOCOLS))
        self.register_buffer("alpha_hat", diffusion.alpha_hats(schedule, noise_steps), persistent=False)
        # Layers that official files hold and nothing reads: a distributed training would wait for their gradients.
        for name in getattr(model, "unused_parameters", ()):
            model.get_parameter(name).requires_grad_(False)
        self._numbers: dict[str, Tensor] = {}  # of the windows of a stage
        self._baselines: MotionBaselines | None = None
        self._mean_motion: Mapping[str, float] | None = None  # of training actions, for the protocols

    @property
    def space(self) -> MotionSpace:
        """What the network sees of a motion, and the way back."""
        return self._space_of(self.spec.skeleton if self.spec is not None else None)

    def _space_of(self, body: Skeleton | None, *, heading: bool | None = None) -> MotionSpace:
        return MotionSpace(
            history=self.history, horizon=self.horizon, kept_coeffs=self.signature.frames, padding=self.padding,
            heading=self.heading if heading is None else heading, residual=self.residual,
            hips=hips_of(body) if body is not None else None, scale=self.coeff_scale,
            condition_scale=self.condition_scale, condition=self.condition, condition_stride=self.condition_stride,
            compat_padding=self.sampling.compat_rng,
        )  # fmt: skip

    # Set-up.

    def check(self, signature: Signature, spec: DataSpec) -> None:
        """Refuse step counts, shares and options that cannot work, before a long training finds out."""
        refuse_other_training(self, _TRAINED, spec)
        diffusion.padded(
            torch.zeros(1, self.history, 1), self.history, self.padding, frames=self.history + self.horizon
        )
        space = self._space_of(spec.skeleton, heading=self.heading and spec.skeleton is not None)
        check_condition(space.condition_rows, signature)
        if self.loss_power and self.coeff_scale is None:
            raise ConfigError(
                "task.loss_power weights coefficients by task.coeff_scale, which is null. Use task.loss_power=0."
            )
        if not 0 <= self.t_min < self.noise_steps:
            raise ConfigError(f"task.t_min={self.t_min} is no step of 0 to {self.noise_steps - 1}. Use task.t_min=1.")
        known = frozenset(inspect.signature(self.predict).parameters) - {"batch"}
        named = {"validation": self.validation} | {f"variants.{name}": one for name, one in self.variants.items()}
        check_variants(named, known, self.sampling, self.noise_steps)
        drawn = {f"task.{name}": self.sampling.changed(one) for name, one in named.items() if not one.get("baseline")}
        check_condition_noise(self.condition_noise, self.model, self.mod_train, {"task": self.sampling, **drawn})

    def prepare(self, stage: str, windows: Windows) -> None:
        """Number the windows that are predicted, and take from the training set what they are compared with."""
        if stage == "train":
            self._calibrate(windows)
            return
        self._numbers[stage] = numbered(windows)
        self._mean_motion = self._data().mean_motion()
        wanted = {options.get("baseline") for options in self.variants.values()}
        if stage == "test" and wanted & FROM_TRAINING:
            self._baselines = self._baselines_of(self._data().training_windows(self.baseline_stride, withheld=True))

    def _calibrate(self, windows: Windows) -> None:
        """Let a fresh network measure its condition on the training windows, where it wants to."""
        measure = getattr(self.model, "calibrate", None)
        if measure is None or getattr(self.model, "provenance", None) is not None:
            return
        body = self._data().skeleton
        motion = motion_windows.as_motion(windows.evenly_spaced(min(len(windows), _MEASURED)), body.root)
        measure(self.space.encode_history(motion[:, : self.history].float()).condition)

    def _baselines_of(self, candidates: Tensor | None) -> MotionBaselines:
        body = self.spec.skeleton if self.spec is not None else None
        hips = hips_of(body) if body is not None else None
        return MotionBaselines(self.history, self.horizon, hips, candidates, self.seed)

    # Training.

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of what the network says about noisy coefficients.

        Args:
            batch: `motion` (B, N, F) metres without the root, `draw` (B,).

        Returns:
            `loss`, the mean over windows, coefficients and features.
        """
        encoded = self.space.encode(batch["motion"])
        assert encoded.coeffs is not None
        epoch = self._data().epoch if self._trainer is not None else 0
        draw = batch["draw"]
        share = random.uniform(self.seed, epoch, draw, "noise_level")
        t = self.t_min + (share * (self.noise_steps - self.t_min)).long()
        noise = random.normal(self.seed, epoch, draw, "noise", encoded.coeffs.shape[1:])
        condition = standardised(self.model, encoded.condition)
        level = None
        if self.condition_noise is not None:
            kinds = random.uniform(self.seed, epoch, draw, "condition_level", (2,))
            level = noises.trained_levels(kinds, self.condition_noise["clean"], self.condition_noise["unseen"])
            hidden = random.normal(self.seed, epoch, draw, "condition_noise", condition.shape[1:])
            condition = noises.mixed(condition, hidden, level)
        encoded = replace(encoded, condition=condition)
        return {"loss": self.denoising_loss(encoded, t, noise, self._present(draw, epoch), level)}

    def denoising_loss(
        self, encoded: Encoded, t: Tensor, noise: Tensor, present: Tensor | bool = True, level: Tensor | None = None
    ) -> Tensor:
        """The loss for given draws.

        Args:
            encoded: motions as `MotionSpace.encode` gives them, the condition as the network takes it.
            t: (B,) int64 noise levels.
            noise: (B, n, F).
            present: (B,) bool, who sees the condition, or everybody or nobody.
            level: (B,) how much of the condition is noise; None = nothing.
        """
        assert encoded.coeffs is not None
        x = diffusion.q_sample(encoded.coeffs, t, noise, self.alpha_hat)
        condition: Tensor | None = encoded.condition
        if present is False and self._trainer is not None and self.trainer.world_size > 1:
            # Ranks wait for the gradients of every layer: those of the condition are 0 then, alone they are None.
            present = torch.zeros(len(t), dtype=torch.bool, device=t.device)
        told = {} if level is None else {"level": level}
        if isinstance(present, bool):
            output = self.model(x, t, condition if present else None, **told)
        else:
            output = self.model(x, t, condition, present, **told)
        wanted = diffusion.target(self.prediction, encoded.coeffs, noise, t, self.alpha_hat)
        errors = (output.float() - wanted).square()
        if self.loss_power and self.coeff_scale is not None:
            weights = errors.new_tensor(self.coeff_scale) ** (2 * self.loss_power)
            errors = errors * (weights / weights.mean())[:, None]
        return errors.mean()

    def _present(self, draw: Tensor, epoch: int) -> Tensor | bool:
        if self.mod_train >= 1:
            return True
        if self.dropout_by == "sample":
            return random.uniform(self.seed, epoch, draw, "see_condition") < self.mod_train
        # published behaviour: one draw for a step; all ranks count the same steps.
        step = torch.tensor([self.trainer.global_step if self._trainer is not None else 0])
        return bool(random.uniform(self.seed, 0, step, "see_condition_step") < self.mod_train)

    # Prediction.

    def motion_sampler(self, sampling: Sampling | None = None) -> MotionSampler:
        """What draws samples with the network as it was trained; None = as the task samples."""
        chosen = self.sampling if sampling is None else sampling
        return MotionSampler(
            self.model, self.space, schedule=self.schedule, noise_steps=self.noise_steps, prediction=self.prediction,
            ddim_timesteps=chosen.ddim_timesteps, completion=chosen.completion, sampler=chosen.sampler,
            compat_steps=chosen.compat_rng, chunk=self.chunk,
            condition_noise=None if self.condition_noise is None else self.condition_noise["highest"],
        )  # fmt: skip

    def predict(  # type: ignore[override]
        self,
        batch: Batch,
        *,
        num_samples: int | None = None,
        ddim_timesteps: int | None = None,
        sampler: str | None = None,
        completion: bool | None = None,
        mod_test: float | None = None,
        compat_rng: bool | None = None,
        baseline: str | None = None,
        frames: int = 1,
        fade: float | None = 10.0,
        align: bool = True,
    ) -> Tensor:
        """Possible futures (B, K, P, F) in metres, without the root, in the heading of the history.

        Args:
            batch: `motion` (B, N, F) or its history alone; `index` (B,), the rows of the windows.
            num_samples, ddim_timesteps, sampler, completion, mod_test, compat_rng: null follows the task; in a
                validation, `validation` goes first.
            baseline: predict by this baseline, without the network.
            frames, fade, align: of the baselines, see `MotionBaselines`.
        """
        given = {
            "num_samples": num_samples, "ddim_timesteps": ddim_timesteps, "sampler": sampler, "completion": completion,
            "mod_test": mod_test, "compat_rng": compat_rng,
        }  # fmt: skip
        chosen = self.sampling.changed(given)
        if self.stage == "val":
            chosen = chosen.changed({"compat_rng": False, **self.validation})
        history, ids = batch["motion"][:, : self.history].float(), self._numbers_of(batch)
        if baseline is not None:
            if self._baselines is None:
                self._baselines = self._baselines_of(None)
            return self._baselines(baseline, history, chosen.num_samples, ids, frames=frames, fade=fade, align=align)
        draw = self.motion_sampler(chosen)
        if chosen.compat_rng:
            self._refuse_partial(batch)
            with published_generators(self.seed):
                motion = draw.published(history, chosen.num_samples, mod_test=chosen.mod_test)
        else:
            motion = draw(history, chosen.num_samples, conditioned=chosen.conditioned, ids=ids, seed=self.seed)
        return motion[:, :, self.history :]

    def _numbers_of(self, batch: Batch) -> Tensor:
        """Numbers of the windows of a batch, the key of their noise."""
        numbers = self._numbers.get(self.stage)
        index = batch["index"]
        if numbers is None:
            return index.clamp_min(0)
        self._numbers[self.stage] = numbers = numbers.to(index.device)
        return numbers[index.clamp_min(0)]

    def _refuse_partial(self, batch: Batch) -> None:
        """The published draws need all windows at once: a number drawn for one depends on all before it."""
        numbers = self._numbers.get(self.stage)
        count = len(batch["index"]) if numbers is None else len(numbers)
        if len(batch["index"]) != count or bool((batch["index"] < 0).any()):
            raise ConfigError(
                f"compat_rng draws noise for all {count} windows together, and a batch holds {len(batch['index'])}. "
                f"Use dataset.eval_batch_size={count} on one device, or task.compat_rng=false."
            )

    # Evaluation.

    def protocols(self, windows: Windows) -> dict[str, Protocol]:
        options = {"history": self.history, "mean_motion": self._mean_motion}
        options |= self.protocol_options.get(self.protocol, {})
        try:
            return {self.protocol: PROTOCOLS[self.protocol](windows, **options)}
        except TypeError as error:
            raise ConfigError(
                f"task.protocol_options.{self.protocol}: {error}. See conf/task/prediction.yaml."
            ) from error

    def scalars(self) -> tuple[str, ...]:
        return tuple(PROTOCOLS[self.protocol].scalars)


def _numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
