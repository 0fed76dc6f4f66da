"""The optimiser step, the average of weights, and what the trainer costs around a step."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from kinema.callbacks.ema import EMA
from kinema.tasks import optim
from scripts.bench import reference_training as reference
from scripts.bench.bench_networks import dstformer
from scripts.bench.measure import Pair, Spent
from scripts.bench.rows import bench
from scripts.bench.stores import distance

_LITE = {"dim": 256, "depth": 5, "mlp_ratio": 4}
_SMALL = {"dim": 16, "depth": 1, "mlp_ratio": 2}


def _with_gradients(dim: int, depth: int, mlp_ratio: float) -> nn.Module:
    model = dstformer(frames=9, dim=dim, depth=depth, heads=2, mlp_ratio=mlp_ratio)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.grad = 0.01 * torch.randn(parameter.shape, generator=generator)
    return model


def _weights_differ(first: nn.Module, second: nn.Module) -> float:
    return distance(*((a.detach(), b.detach()) for a, b in zip(first.parameters(), second.parameters(), strict=True)))


def build_optimiser(*, dim: int, depth: int, mlp_ratio: float) -> Pair:
    """One step of AdamW over every parameter of DSTformer Lite; equal after three steps."""
    recipe = partial(torch.optim.AdamW, lr=2e-4, weight_decay=0.01, fused=True)  # conf/task/optimizer/adamw.yaml
    plain_model, our_model = (_with_gradients(dim, depth, mlp_ratio) for _ in range(2))
    plain = torch.optim.AdamW(plain_model.parameters(), lr=2e-4, weight_decay=0.01, foreach=False, fused=False)
    ours = optim.build(recipe, optim.parameter_groups(our_model, None))

    def difference() -> float:
        for _ in range(3):
            plain.step()
            ours.step()
        return _weights_differ(plain_model, our_model)

    return Pair(plain.step, ours.step, difference)


bench(
    build_optimiser,
    "optimiser_step",
    operation="optimiser step, 16 M parameters",
    reference="AdamW, loop over tensors",
    sizes=_LITE,
    small=_SMALL,
    bound=2.5,
    goal=3.2,
    tolerance=1e-6,
    rounds=15,
)


def build_ema(*, dim: int, depth: int, mlp_ratio: float) -> Pair:
    """One update of the averaged weights as Lightning's WeightAveraging makes it; equal after three updates."""
    decay = 0.99
    model = _with_gradients(dim, depth, mlp_ratio)
    plain = copy.deepcopy(model)
    callback = EMA(decay=decay)
    averaged = AveragedModel(model, use_buffers=True, multi_avg_fn=callback._average)  # type: ignore[arg-type]
    averaged.update_parameters(model)  # the first one copies

    def difference() -> float:
        for _ in range(3):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.01 * torch.randn_like(parameter))
            reference.average(plain, model, decay)
            averaged.update_parameters(model)
        return _weights_differ(plain, averaged.module)

    return Pair(lambda: reference.average(plain, model, decay), lambda: averaged.update_parameters(model), difference)


bench(
    build_ema,
    "ema",
    operation="EMA, 16 M parameters",
    reference="tensor by tensor",
    sizes=_LITE,
    small=_SMALL,
    bound=2,
    goal=2.9,
    tolerance=1e-6,
    rounds=15,
)


class _Clock(pl.Callback):
    """Time of the steps after the warm-up, and the losses before."""

    def __init__(self, steps: int, warmup: int) -> None:
        self.steps, self.warmup = steps, warmup
        self.losses: list[float] = []
        self.started = self.ended = (0.0, 0.0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx < self.warmup:
            self.losses.append(float(outputs["loss"]))
        now = time.process_time(), time.perf_counter()
        if batch_idx + 1 == self.warmup:
            self.started = now
        if batch_idx + 1 == self.steps:
            self.ended = now

    def spent(self) -> Spent:
        cpu, wall = (end - start for end, start in zip(self.ended, self.started, strict=True))
        return Spent(cpu / (self.steps - self.warmup), wall / (self.steps - self.warmup))


def build_trainer_overhead(*, steps: int, warmup: int) -> Pair:
    """Milliseconds per step that the composed Trainer, its default callbacks and loggers add to the same steps.

    A small VideoPose3D on the built-in motion; model, data, task and trainer are those of `run.py`. The losses of the
    first steps must agree.
    """
    from kinema import composition

    folder = tempfile.mkdtemp(prefix="kinema-bench-")
    config = composition.compose(
        [
            "model=videopose3d", "model.filter_widths=[3]", "model.channels=64", "model.dropout=0.0",
            "dataset=synthetic", "dataset.reader_options.actions=[walk]", "dataset.batch_size=32", "trainer=cpu",
            f"trainer.max_steps={steps}", "trainer.limit_val_batches=0", "trainer.enable_progress_bar=false",
            f"paths.output_dir={folder}/run", f"paths.cache_dir={folder}/cache",
        ]
    )  # fmt: skip

    def build() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model: Any = composition.build_model(config)
        data = composition.build_data(config, model.signature)
        task = composition.build_task(config, model)
        task.describe(spec=data.spec.to_dict(), config=composition.plain(config))
        return task, data

    def trained() -> tuple[Spent, list[float]]:
        task, data = build()
        trainer = composition.build_trainer(config)
        clock = _Clock(steps, warmup)
        trainer.callbacks.insert(0, clock)
        trainer.fit(task, datamodule=data)
        return clock.spent(), clock.losses

    def looped() -> tuple[Spent, list[float]]:
        task, data = build()
        windows = data.windows("train")
        task.prepare("train", windows)
        optimizer = optim.build(task.optimizer_recipe, optim.parameter_groups(task.model, None))
        batches = (data.transform(batch, training=True) for batch in data.train_dataloader())
        return reference.bare_loop(
            batches, lambda batch: task.loss(batch)["loss"], optimizer, steps=steps, warmup=warmup
        )

    def difference() -> float:
        return distance((torch.tensor(trained()[1]), torch.tensor(looped()[1])))

    return Pair(
        lambda: looped()[0], lambda: trained()[0], difference, close=lambda: shutil.rmtree(folder, ignore_errors=True)
    )


bench(
    build_trainer_overhead,
    "trainer_overhead",
    operation="trainer overhead with default logging",
    reference="bare loop",
    sizes={"steps": 180, "warmup": 20},
    small={"steps": 4, "warmup": 3},
    bound=1.5,
    goal=0.7,
    tolerance=1e-6,
    kind="overhead",
    clock="own",
    rounds=7,
    needs=("hydra", "omegaconf", "tensorboard"),
)
