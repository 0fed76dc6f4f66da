"""PredictionTask with noise on the condition: what is trained, what is measured, what is refused, what a file keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kinema
from kinema.core.condition_noise import mixed
from kinema.data.motion_windows import as_motion
from kinema.data.prediction import PredictionDataModule
from kinema.errors import ConfigError
from kinema.models.motion_mlp import MotionMLP
from kinema.tasks.prediction_checks import refuse_other_training
from tests.data.motions import HISTORY, module, positions, write
from tests.tasks.test_prediction import FEATURES, KEPT, batch, network, spec, task, trainer

NOISE = {"clean": 0.25, "unseen": 0.1, "highest": 1.0}
ROWS = 1 + (HISTORY - 1) // 2
LEVELS: dict[str, Any] = {
    "prediction": "x0", "residual": "padded", "condition": "history", "condition_stride": 2, "condition_noise": NOISE,
    "mod_train": 1.0, "completion": False,
}  # fmt: skip


def mlp(**changes: Any) -> MotionMLP:
    torch.manual_seed(0)
    sizes = {
        "kept_coeffs": KEPT, "num_features": FEATURES, "condition_frames": ROWS, "dim": 16, "time_dim": 8, "depth": 1,
        "dropout": 0.0,
    }  # fmt: skip
    made = MotionMLP(**{**sizes, **changes})
    nn.init.normal_(made.out.weight, std=0.05)
    return made


def told(model: nn.Module) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    model.register_forward_pre_hook(lambda _, given, named: calls.append((given, named)), with_kwargs=True)
    return calls


def many(count: int) -> dict[str, Tensor]:
    rows = torch.arange(count)
    return {"motion": batch(1)["motion"].expand(count, -1, -1), "draw": rows, "index": rows}


def test_windows_see_their_condition_through_noise_of_the_level_told() -> None:
    made = task(mlp(), **LEVELS)
    calls = told(made.model)
    made.loss(many(3000))
    (_, _, seen), named = calls[0][0][:3], calls[0][1]
    level = named["level"]
    assert float((level == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((level == 1).float().mean()) == pytest.approx(0.10, abs=0.03)
    clean = made.model.standardised(made.space.encode(many(1)["motion"]).condition)
    torch.testing.assert_close(seen[level == 0], clean.expand(int((level == 0).sum()), -1, -1))
    hidden = seen[level == 1]
    assert float(hidden.mean()) == pytest.approx(0, abs=0.02) and float(hidden.std()) == pytest.approx(1, abs=0.02)
    half = (level - 0.5).abs() < 0.1
    expected = mixed(clean.expand(len(level), -1, -1), torch.zeros_like(seen), level)
    torch.testing.assert_close(seen[half].mean(0), expected[half].mean(0), atol=0.15, rtol=0)


def test_draws_of_a_window_do_not_depend_on_its_batch() -> None:
    made = task(mlp(), **LEVELS)
    calls = told(made.model)
    made.loss(batch(6))
    made.loss(batch(2, first=3))
    (whole, named), (part, named2) = calls
    torch.testing.assert_close(whole[2][3:5], part[2])
    torch.testing.assert_close(named["level"][3:5], named2["level"])


def test_slow_coefficients_can_weigh_more() -> None:
    scale = [2.0**-number for number in range(KEPT)]
    made = task(coeff_scale=scale, loss_power=0.5, mod_train=1.0)
    items = batch(3)
    encoded, noise = made.space.encode(items["motion"]), torch.zeros(3, KEPT, FEATURES)
    off = torch.zeros_like(noise)
    found = []
    for wrong in (0, KEPT - 1):
        made.model.forward = lambda *_, wrong=wrong: off.index_fill(1, torch.tensor([wrong]), 1.0)  # type: ignore[method-assign]
        found.append(float(made.denoising_loss(encoded, torch.tensor([1, 5, 9]), noise)))
    assert found[0] / found[1] == pytest.approx(scale[0] / scale[-1])
    plain = sum(scale) / KEPT
    assert found[0] == pytest.approx(scale[0] / plain / KEPT)
    refused = task(loss_power=0.5)
    with pytest.raises(ConfigError, match=r"loss_power=0"):
        refused.check(refused.signature, spec())


@pytest.fixture
def data(tmp_path: Path) -> PredictionDataModule:
    return module(write(tmp_path / "data", positions()))


def test_the_condition_is_measured_on_training_windows_and_kept_in_the_file(
    data: PredictionDataModule, tmp_path: Path
) -> None:
    made = task(mlp(), **LEVELS, num_samples=2)
    running = trainer(tmp_path, max_steps=2, limit_val_batches=1)
    running.fit(made, datamodule=data)
    windows = data.windows("train")
    assert windows is not None and len(windows) <= 4096
    condition = made.space.encode(as_motion(windows, 0)).condition
    torch.testing.assert_close(made.model.condition_mean, condition.mean(0))
    seen = made.model.standardised(condition)
    assert float(seen.square().mean()) == pytest.approx(1, abs=1e-3)
    running.save_checkpoint(tmp_path / "a.ckpt")
    loaded = kinema.load(tmp_path / "a.ckpt")
    torch.testing.assert_close(loaded.condition_mean, made.model.condition_mean)
    again = task(loaded, **LEVELS, num_samples=2)
    items = batch(2)
    made.model.eval()
    torch.testing.assert_close(again.predict(items), made.predict(items))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition_noise": {"clean": 0.2}}, "clean, unseen and highest"),
        ({"condition_noise": {**NOISE, "highest": 1.5}}, "each from 0 to 1"),
        ({"condition_noise": {**NOISE, "clean": 0.7, "unseen": 0.7}}, "1 together at most"),
        ({"condition_noise": {**NOISE, "clean": "a"}}, "each from 0 to 1"),
        ({"mod_train": 0.8}, "mod_train=1"),
        ({"variants": {"default": {}, "half": {"mod_test": 0.5}}}, r"task\.variants\.half.*mod_test=1"),
        ({"variants": {"default": {}, "published": {"compat_rng": True}}}, r"task\.variants\.published"),
        ({"validation": {"mod_test": 0.3}}, r"task\.validation"),
        ({"mod_test": 0.5}, "mod_test=1"),
        ({"condition_stride": 1}, "condition_frames="),
        ({"condition": "coeffs"}, f"condition_frames={KEPT}"),
    ],
)
def test_what_cannot_work_is_refused_before_a_training(changes: dict[str, Any], message: str) -> None:
    made = task(mlp(), **{**LEVELS, **changes})
    with pytest.raises(ConfigError, match=message):
        made.check(made.signature, spec())


def test_a_trained_network_keeps_what_it_measured(data: PredictionDataModule, tmp_path: Path) -> None:
    model = mlp()
    model.condition_mean.fill_(7.0)
    model.provenance = object()  # as `kinema.load` leaves it
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(task(model, **LEVELS), datamodule=data)
    assert torch.equal(model.condition_mean, torch.full_like(model.condition_mean, 7.0))


def test_a_network_that_is_not_told_the_level_is_refused() -> None:
    made = task(network(), condition_noise=NOISE, mod_train=1.0)
    with pytest.raises(ConfigError, match=r"model=motion_mlp"):
        made.check(made.signature, spec())
    other = task(network(), condition="history")
    with pytest.raises(ConfigError, match=r"task\.condition=coeffs"):
        other.check(other.signature, spec())


def test_a_remedy_can_be_typed_into_a_shell() -> None:
    trained = {"task": {"condition_noise": NOISE, "coeff_scale": [1.0, 2.0], "heading": True}}
    source = SimpleNamespace(spec=None, config=trained)
    for key, remedy in (
        ("condition_noise", "'task.condition_noise={clean:0.25,unseen:0.1,highest:1.0}'"),
        ("coeff_scale", "'task.coeff_scale=[1.0,2.0]'"), ("heading", "task.heading=true"),
    ):  # fmt: skip
        used = SimpleNamespace(model=SimpleNamespace(provenance=source), **{key: None})
        with pytest.raises(ConfigError) as error:
            refuse_other_training(used, [key], spec())
        assert f"not null. Use {remedy}, or" in str(error.value)
