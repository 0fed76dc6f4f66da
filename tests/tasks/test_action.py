"""ActionTask: losses, mixed targets, averaging over mirrored clips, protocols, and what it refuses."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.skeleton import skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.errors import ConfigError
from kinema.tasks.action import ActionTask
from tests.data.clips import module

BODY = skeleton("h36m17")


class Pooled(nn.Module):
    """Mean pose through one linear layer; logits, or unit embeddings."""

    def __init__(self, output: str = "logits", size: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(17 * 3, size)
        self.signature = Signature(
            output=output, in_channels=3, joints=17, joints_out=17, frames=16, frames_rule="any", persons=2,
            classes=size if output == "logits" else None,
        )  # type: ignore[arg-type]  # fmt: skip

    def forward(self, pose: Tensor, persons: Tensor | None = None) -> Tensor:
        out = self.fc(pose.mean(2).flatten(2)).mean(1)
        return out if self.signature.output == "logits" else F.normalize(out, dim=-1)


def spec(**changes: Any) -> DataSpec:
    values: dict[str, Any] = {
        "skeleton": BODY, "skeleton2d": BODY, "in_channels": 3, "unit": "network", "space": "network",
        "preprocess": "ma52", "fps": None, "has_3d": True, "tasks": frozenset({"action"}),
        "classes": ("a", "b", "c"), "class_groups": None, "persons": 2, "frames": 16,
    }  # fmt: skip
    return DataSpec(**{**values, **changes})


def task(model: nn.Module | None = None, **changes: Any) -> ActionTask:
    options: dict[str, Any] = {
        "losses": {"cross_entropy": 1.0}, "label_smoothing": 0.0, "focal_gamma": 2.0, "class_balance": 0.0,
        "logit_adjustment": 0.0, "temperature": 0.1, "flip_average": False, "protocol": "action",
        "protocol_options": {}, "objective": "val/top1", "objective_mode": "max",
    }  # fmt: skip
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    made = ActionTask(model or Pooled(), optimizer, None, **{**options, **changes})
    made.describe(spec=spec().to_dict(), config={})
    return made


def batch(samples: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "pose": torch.randn(samples, 2, 16, 17, 3, generator=generator),
        "persons": torch.ones(samples, 2, dtype=torch.bool),
        "label": torch.arange(samples) % 3,
        "index": torch.arange(samples),
    }


def test_the_plain_loss_is_the_cross_entropy() -> None:
    made, items = task(), batch()
    logits = made.model(items["pose"])
    terms = made.loss(items)
    assert torch.allclose(terms["loss"], F.cross_entropy(logits, items["label"]))
    assert torch.allclose(terms["top1"], 100 * (logits.argmax(-1) == items["label"]).float().mean())


def test_label_smoothing_and_weights_of_terms_are_those_of_yaml() -> None:
    made, items = task(label_smoothing=0.1, losses={"cross_entropy": 0.5, "focal": 2.0}), batch()
    terms = made.loss(items)
    assert torch.allclose(
        terms["cross_entropy"], F.cross_entropy(made.model(items["pose"]), items["label"], label_smoothing=0.1)
    )
    assert torch.allclose(terms["loss"], 0.5 * terms["cross_entropy"] + 2 * terms["focal"])


def test_blended_clips_are_trained_on_both_labels() -> None:
    made, items = task(), batch()
    share = torch.linspace(0, 1, 8)
    logits = made.model(items["pose"])
    mixed = {**items, "mix": share, "partner": items["label"].flip(0)}
    each = [F.cross_entropy(logits, label, reduction="none") for label in (items["label"], items["label"].flip(0))]
    expected = (share * each[0] + (1 - share) * each[1]).mean()
    assert torch.allclose(made.loss(mixed)["cross_entropy"], expected, atol=1e-6)


def test_the_coarse_loss_is_that_of_summed_probabilities() -> None:
    made, items = task(losses={"cross_entropy": 1.0, "coarse": 1.0}), batch()
    made.describe(spec=spec(class_groups=(0, 1, 0)).to_dict(), config={})
    p = made.model(items["pose"]).softmax(-1)
    grouped = torch.stack([p[:, 0] + p[:, 2], p[:, 1]], -1).log()
    coarse = torch.tensor([0, 1, 0])[items["label"]]
    assert torch.allclose(made.loss(items)["coarse"], F.nll_loss(grouped, coarse), atol=1e-6)


def test_embeddings_are_trained_by_comparing_the_samples_of_a_batch() -> None:
    made = task(Pooled("embedding", 5), losses={"supcon": 1.0, "cross_entropy": 0.0}, protocol="oneshot")
    items = batch()
    terms = made.loss(items)
    assert set(terms) == {"loss", "supcon"}
    features = made.model(items["pose"])
    same = {**items, "label": torch.zeros(8, dtype=torch.long)}
    assert terms["supcon"] != made.loss(same)["supcon"]
    sims = features @ features.T / 0.1
    sims.fill_diagonal_(-torch.inf)
    log = sims - sims.logsumexp(1, keepdim=True)
    positive = (items["label"][:, None] == items["label"]) & ~torch.eye(8, dtype=torch.bool)
    expected = -(0.1 / 0.07) * (log.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()
    assert torch.allclose(terms["supcon"], expected, rtol=1e-5)


def test_averaging_over_the_mirrored_clip_is_symmetric() -> None:
    from kinema.inference.flip import mirror_pose

    made, items = task(flip_average=True), batch()
    other = {**items, "pose": mirror_pose(items["pose"], BODY)}
    assert torch.allclose(made.predict(items), made.predict(other), atol=1e-6)
    assert not torch.allclose(made.predict(items, flip_average=False), made.predict(other, flip_average=False))
    assert torch.allclose(made.predict(items).exp().sum(-1), torch.ones(8))


def fit(folder: Path, made: ActionTask, data: Any, max_epochs: int = 12, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=max_epochs,
        enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(made, datamodule=data)
    return trainer


def test_it_learns_what_can_be_learnt_and_reports_it(tmp_path: Path) -> None:
    data = module(tmp_path, reader_options={"per_class": 20})
    made = task()
    trainer = fit(tmp_path, made, data)
    trainer.test(made, datamodule=data, verbose=False)
    report = made.reports["test"]
    assert report.scalars["top1"] > 60  # three classes, a third by chance
    assert len(report.arrays["scores"]) == len(report.arrays["names"]) == len(data.windows("test"))
    assert report.arrays["training_counts"].tolist() == data.training_counts()


def test_class_counts_reach_the_losses(tmp_path: Path) -> None:
    data = module(tmp_path, reader_options={"per_class": 20})
    plain, adjusted = task(), task(logit_adjustment=1.0, class_balance=0.9)
    for made in (plain, adjusted):
        fit(tmp_path, made, data)
        assert made._counts is not None and made._counts.tolist() == data.training_counts()
    items = batch()
    adjusted.model.load_state_dict(plain.model.state_dict())
    adjusted._counts = torch.tensor([90, 9, 1])
    assert not torch.allclose(plain.loss(items)["loss"], adjusted.loss(items)["loss"])


@pytest.mark.parametrize(
    ("order", "options", "expected"),
    [
        ("seeded", {}, [16, 9, 1]),
        ("balanced", {"power": 1.0}, [16, 9, 1]),
        ("balanced", {"power": 0.5, "num_samples": 6}, [13, 9.75, 3.25]),  # 4 : 3 : 1
        ("balanced", {"power": 0.0}, [26 / 3] * 3),
    ],
)
def test_a_balanced_order_is_not_corrected_for_twice(
    tmp_path: Path, order: str, options: dict[str, Any], expected: list[float]
) -> None:
    data = module(tmp_path, order=order, order_options={order: options})
    data.training_counts = lambda: [16, 9, 1]  # type: ignore[method-assign]
    made = task(logit_adjustment=1.0, class_balance=0.9)
    fit(tmp_path, made, data)
    assert made._counts is not None
    assert made._counts.tolist() == pytest.approx(expected)


def test_class_counts_go_to_the_device_with_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(logit_adjustment=1.0)
    made._counts = torch.ones(3)
    monkeypatch.setattr(type(made), "device", torch.device("meta"))
    made.on_fit_start()
    assert made._counts.device.type == "meta"


def test_blended_clips_are_not_compared() -> None:
    made = task(Pooled("embedding", 5), losses={"supcon": 1.0}, protocol="oneshot")
    mixed = {**batch(), "mix": torch.ones(8), "partner": torch.arange(8) % 3}
    with pytest.raises(ConfigError, match=r"mixup blends.*supcon compares.*'dataset.augment=\[\]'"):
        made.loss(mixed)


class Keep(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            loss = float(trainer.callback_metrics["train/loss_epoch"])
            torch.save({"state": pl_module.model.state_dict(), "loss": loss}, self.path)


def compared(folder: Path, devices: int) -> dict[str, Any]:
    """Train embeddings on one or two processes; batches of 5 are uneven, and in the last one a rank has no clip."""
    made = task(Pooled("embedding", 5), losses={"supcon": 1.0}, protocol="oneshot", objective="val/accuracy")
    made.optimizer_recipe = partial(torch.optim.SGD, lr=0.1)
    options = {"validation": {"by": None}, "rule": "resample", "reader_options": {"per_class": 9}}
    assert len(module(folder, **options).windows("train") or ()) == 21
    data = module(folder, **options)
    strategy = {"strategy": "ddp_spawn", "devices": devices} if devices > 1 else {}
    path = folder / f"{devices}.pt"
    fit(folder, made, data, 2, callbacks=[Keep(path)], limit_val_batches=0, use_distributed_sampler=False, **strategy)
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def test_two_processes_compare_the_clips_of_both(tmp_path: Path) -> None:
    one, two = (compared(tmp_path, devices) for devices in (1, 2))
    start = Pooled("embedding", 5).state_dict()
    for name, tensor in one["state"].items():
        assert not torch.equal(tensor, start[name])
        torch.testing.assert_close(two["state"][name], tensor, rtol=1e-5, atol=1e-6)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "changes", "data", "sentence"),
    [
        (Pooled(), {"losses": {"supcon": 1.0}}, {}, r"gives logits, which the loss supcon cannot train"),
        (Pooled("embedding"), {}, {}, r"gives embedding.*task.losses.cross_entropy=0 task.losses.supcon=1"),
        (Pooled(), {"protocol": "oneshot"}, {}, r"task.protocol=oneshot judges embedding.*Use task.protocol=action"),
        (Pooled(), {"losses": {"cross_entropy": 1, "coarse": 1}}, {}, r"needs groups of classes"),
    ],
)
def test_losses_and_protocols_of_another_output_are_refused(
    model: Pooled, changes: dict[str, Any], data: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        task(model, **changes).check(model.signature, spec(**data))


def test_a_typo_in_the_losses_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'cross_entrpy' is unknown. Did you mean 'cross_entropy'"):
        task(losses={"cross_entrpy": 1.0})
