"""Task: what every LightningModule of Kinema does alike: steps, logging, optimiser, protocols, checkpoint contents."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from kinema.checkpoints.load import record_of
from kinema.core.spec import DataSpec, Signature
from kinema.data.windows import Windows
from kinema.errors import CheckpointError, ConfigError
from kinema.protocols.report import Protocol, Report
from kinema.tasks import optim

_STAGES = {"train": "train", "sanity_check": "val", "validate": "val", "test": "test", "predict": "predict"}
_SETUP = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
Batch = Mapping[str, Tensor]


class Task(pl.LightningModule, ABC):
    """A model, what it is trained for, and how it is judged. A task writes `loss`, `predict` and `protocols`.

    Losses are added up on the device and read every `trainer.log_every_n_steps` optimiser steps: `train/<term>` is the
    mean over the samples since the last reading, `train/<term>_epoch` the one over the epoch. Validation and test
    report through protocols: `val/<scalar>`, `test/<scalar>`, and `reports` for tables.

    Args:
        model: the network; its `signature` is checked against the data by `check`.
        optimizer: recipe, called with parameter groups.
        scheduler: recipe, called with the optimiser, or null.
        parameter_groups: name pattern to options of the optimiser, see `optim.parameter_groups`.
        trainable: name patterns of the parameters that are trained; null = all.
        variants: name to options of `predict`; a test runs each with its own protocols. The first one is the plain
            `val/` and `test/`, the others are `test/<variant>/`. null = one without options.
        objective: metric that selects checkpoints and that sweeps optimise.
        objective_mode: "min" or "max".

    Attributes:
        reports: reports of the last evaluation by prefix ("val"; "test", "test/<variant>").
        spec: what the data serves; known from `setup` or `describe` on.
    """

    name: ClassVar[str]
    outputs: ClassVar[frozenset[str]]
    needs: ClassVar[frozenset[str]]
    modes: ClassVar[frozenset[str]] = frozenset()
    sources: ClassVar[frozenset[str]] = frozenset()  # training batches it takes beside the labelled one, by name

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.OptimizerRecipe,
        scheduler: optim.SchedulerRecipe | None = None,
        *,
        parameter_groups: Mapping[str, Mapping[str, Any]] | None = None,
        trainable: Sequence[str] | None = None,
        variants: Mapping[str, Mapping[str, Any]] | None = None,
        objective: str,
        objective_mode: str,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_recipe = optimizer
        self.scheduler_recipe = scheduler
        self.parameter_options = parameter_groups
        self.variants: dict[str, dict[str, Any]] = {k: dict(v) for k, v in (variants or {"default": {}}).items()}
        self.objective = objective
        self.objective_mode = objective_mode
        self.reports: dict[str, Report] = {}
        self.spec: DataSpec | None = None
        self.config: dict[str, Any] = {}
        self._evaluations = nn.ModuleDict()  # stage -> variants in order -> protocols by name
        self._terms: tuple[str, ...] = ()
        self._window: Tensor | None = None  # sums of the terms since the last reading, and the samples behind them
        self._epoch: list[float] = []
        self._written = -1
        self._judged = 0  # batches of the running test that an interrupted one has judged
        optim.freeze_but(model, trainable)

    @property
    def signature(self) -> Signature:
        """What the network takes and gives."""
        signature = self.model.signature
        assert isinstance(signature, Signature)
        return signature

    # What a task writes.

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named terms and `loss`, their weighted sum; scalars that are means over the samples of the batch."""

    @abstractmethod
    def predict(self, batch: Batch, **options: Any) -> Tensor:
        """Output for the target frames of a batch."""

    @abstractmethod
    def protocols(self, windows: Windows) -> dict[str, Protocol]:
        """The protocols of an evaluation by name; the first one gives the plain metric names."""

    @abstractmethod
    def scalars(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation gives, without stage."""

    def check(self, signature: Signature, spec: DataSpec) -> None:
        """Refuse combinations that only this task knows to be wrong.

        Raises:
            ConfigError: its last sentence is an override that works.
        """

    def prepare(self, stage: str, windows: Windows) -> None:
        """Take from the windows of a stage what `loss` and `predict` need to know."""

    # Set-up.

    def describe(self, *, spec: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Tell what checkpoints of this task keep beside the weights: plain containers only."""
        self.spec = DataSpec.from_dict(dict(spec))
        self.config = dict(config)

    def setup(self, stage: str) -> None:
        """Look at the data of a stage and build its protocols."""
        data = self._data()
        self.spec = data.spec
        for name in _SETUP[stage]:
            windows = data.windows(name)
            if windows is None:
                continue
            self.prepare(name, windows)
            if name in ("val", "test"):
                variants = self.variants if name == "test" else list(self.variants)[:1]
                judges = [self.protocols(windows) for _ in variants]
                needed = [key for protocol in judges[0].values() for key in sorted(protocol.needs)]
                windows.keys = tuple(dict.fromkeys([*windows.keys, *needed]))
                modules = nn.ModuleList(nn.ModuleDict(protocols) for protocols in judges)
                self._evaluations[name] = modules.to(self.device)

    def _data(self) -> Any:
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise ConfigError("A task gets its data from a datamodule. Use trainer.fit(task, datamodule=data).")
        return data

    def configure_optimizers(self) -> Any:
        """Optimiser over the parameter groups, and the schedule if there is one."""
        groups = optim.parameter_groups(self.model, self.parameter_options)
        clips = bool(self.trainer.gradient_clip_val) and optim.scaler_of(self.trainer) is not None
        optimizer = optim.build(self.optimizer_recipe, groups, unscaled_clipping=clips)
        if self.scheduler_recipe is None:
            return optimizer
        steps = optim.schedule(self.scheduler_recipe, optimizer, lambda: int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": steps}

    @property
    def stage(self) -> str:
        """ "train", "val", "test" or "predict"; "train" outside a Trainer."""
        running = self._trainer.state.stage if self._trainer is not None else None
        return _STAGES[running.value] if running is not None else "train"

    # Training.

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = self.loss(batch)
        samples, share = self._share(batch, batch_idx)
        values = torch.stack([value.detach() for value in terms.values()]).float()
        values = torch.cat([values * samples, values.new_full((1,), samples)])
        if self._window is None or self._terms != tuple(terms):
            self._terms, self._window = tuple(terms), torch.zeros_like(values)
            self._epoch = [0.0] * len(values)
        self._window += values
        return terms["loss"] if share == 1 else terms["loss"] * share

    def _share(self, batch: Batch, batch_idx: int) -> tuple[int, float]:
        """Samples of this rank in a batch, and the factor that makes the mean over ranks the mean over samples."""
        samples = len(batch["index"])
        if self.trainer.world_size == 1:
            return samples, 1.0
        share = self._data().share(batch_idx)
        return (samples if share else 0), share  # a rank without samples has got a filler

    def on_fit_start(self) -> None:
        # Lightning leaves modules in the mode they come in, and a loaded network comes in evaluation mode.
        self.train()

    def on_train_epoch_start(self) -> None:
        self._window, self._terms, self._epoch = None, (), []

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, every = self.trainer.global_step, int(getattr(self.trainer, "log_every_n_steps", 0))
        if (every and step % every == 0 and step != self._written) or self.trainer.is_last_batch:
            self._write(step)

    def _write(self, step: int) -> None:
        """Read the sums of the last steps: the only moment at which the host waits for the device."""
        if self._window is None:
            return
        window = self._window
        if self.trainer.world_size > 1:
            window = self.trainer.strategy.reduce(window, reduce_op="sum")
        *sums, samples = window.tolist()
        self._window.zero_()
        self._written = step
        if not samples:
            return
        self._epoch = [a + b for a, b in zip(self._epoch, [*sums, samples], strict=True)]
        values = {f"train/{term}": total / samples for term, total in zip(self._terms, sums, strict=True)}
        for logger in self.loggers:
            logger.log_metrics(values, step)
        self.log_dict({key: value for key, value in values.items() if key != "train/loss"}, logger=False)
        self.log("train/loss", values["train/loss"], prog_bar=True, logger=False)

    def on_train_epoch_end(self) -> None:
        *sums, samples = self._epoch or [0.0]
        if samples:
            values = {f"train/{term}_epoch": s / samples for term, s in zip(self._terms, sums, strict=True)}
            self.log_dict(values, sync_dist=self.trainer.world_size > 1)

    # Evaluation.

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._judge("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx >= self._judged:
            self._judge("test", batch)

    def _judge(self, stage: str, batch: Batch) -> None:
        for options, protocols in zip(self.variants.values(), self._judges(stage), strict=False):
            prediction = self.predict(batch, **options)
            for protocol in protocols.values():
                protocol.update(prediction, batch)

    def _judges(self, stage: str) -> list[dict[str, Any]]:
        """Protocols by name, for each variant in order."""
        judges = self._evaluations[stage]
        assert isinstance(judges, nn.ModuleList)
        return [dict(protocols.items()) for protocols in judges]  # type: ignore[operator]

    def on_validation_epoch_start(self) -> None:
        self._begin("val")

    def on_test_epoch_start(self) -> None:
        self._begin("test")

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def standing(self) -> list[dict[str, Any]]:
        """What the protocols of the running test have added on this rank: of every variant in order, by name."""
        return [{name: one.standing() for name, one in protocols.items()} for protocols in self._judges("test")]

    def take_up(self, batches: int, standing: Sequence[Mapping[str, Any]]) -> None:
        """Go on with an interrupted test: its first batches are judged already, `standing` is what they gave."""
        for protocols, kept in zip(self._judges("test"), standing, strict=True):
            for name, protocol in protocols.items():
                protocol.take_up(kept[name])
        self._judged = batches

    def _begin(self, stage: str) -> None:
        self.reports = {}
        self._judged = 0
        for protocols in self._judges(stage):
            for protocol in protocols.values():
                protocol.reset()

    def _report(self, stage: str) -> None:
        for number, (variant, protocols) in enumerate(zip(self.variants, self._judges(stage), strict=False)):
            for position, (name, protocol) in enumerate(protocols.items()):
                prefix = "/".join([stage, *([variant] if number else []), *([name] if position else [])])
                report = self.reports[prefix] = protocol.compute()
                values = {
                    f"{prefix}/{key}": value
                    for key, value in report.scalars.items()
                    if not (number and report.missing and math.isnan(value))  # a variant that could not be run
                }
                # Every rank has the same numbers; the mean over ranks only keeps Lightning from warning.
                self.log_dict(values, sync_dist=self.trainer.world_size > 1)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Predictions of the first variant on the host, with what they belong to."""
        options = next(iter(self.variants.values()))
        kept = {key: batch[key].cpu() for key in ("index", "frames", "valid") if key in batch}
        return {"prediction": self.predict(batch, **options).cpu(), **kept}

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to build the model again without this program's configuration."""
        if hasattr(type(self.model), "registered_name") and hasattr(self.model, "arguments"):
            checkpoint["kinema"] = record_of(self.model, task=self.name, spec=self.spec, config=self.config)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; a checkpoint of another network is named as such."""
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            lines = str(error).splitlines()
            shown = "\n".join(lines[1:11]) + (f"\n\t... and {len(lines) - 11} more" if len(lines) > 11 else "")
            raise CheckpointError(
                f"The checkpoint belongs to another network than the one configured:\n{shown}\n"
                f"Use the model= (and its sizes) that the checkpoint was trained with, see its config.resolved.yaml."
            ) from error


def one_of(key: str, value: str, known: tuple[str, ...]) -> str:
    """A value of the task's yaml that is among the known ones.

    Raises:
        ConfigError: for another one, with the nearest known.
    """
    if value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    raise ConfigError(f"task.{key}: {value!r} is unknown. {hint}")


def options_by_protocol(
    options: Mapping[str, Mapping[str, Any] | None] | None, known: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """`protocol_options` of a task's yaml, every name checked."""
    return {one_of("protocol_options", name, known): dict(own or {}) for name, own in (options or {}).items()}
