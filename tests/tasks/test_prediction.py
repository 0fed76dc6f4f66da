"""PredictionTask: losses for given draws, draws by sample, sampling by window, baselines, variants, and refusals."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinema.composition import compose, quieten_lightning
from kinema.core import baselines, diffusion
from kinema.core.heading import heading, turn
from kinema.core.skeleton import Skeleton, skeleton
from kinema.core.spec import DataSpec
from kinema.data.prediction import PredictionDataModule
from kinema.errors import ConfigError
from kinema.inference import motion_baselines
from kinema.inference.motion_baselines import MotionBaselines, hips_of
from kinema.models.humanmac import HumanMAC
from kinema.models.smrnet import SMRNet
from kinema.protocols.registry import PREDICTION
from kinema.tasks.prediction import PredictionTask
from kinema.tasks.sampling import numbered
from tests.data.motions import HISTORY, HORIZON, module, positions, write

BODY = skeleton("h36m17")
FRAMES, KEPT, FEATURES = HISTORY + HORIZON, 6, 48


def network(family: type[nn.Module] = SMRNet, **changes: Any) -> nn.Module:
    """A small network that is not silent: some layers of a fresh one are zero."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "kept_coeffs": KEPT, "num_features": FEATURES, "dim": 16, "depth": 2, "num_heads": 2, "dropout": 0.0,
    }  # fmt: skip
    if family is HumanMAC:
        options["ff_dim"] = 16
    made = family(**{**options, **changes})
    for parameter in made.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return made


def spec(body: Skeleton = BODY) -> DataSpec:
    return DataSpec(
        skeleton=body, skeleton2d=None, in_channels=3, unit="m", space="world", preprocess="root_relative", fps=50.0,
        has_3d=True, tasks=frozenset({"prediction"}), frames=FRAMES,
    )  # fmt: skip


def task(model: nn.Module | None = None, **changes: Any) -> PredictionTask:
    options: dict[str, Any] = {
        "history": HISTORY, "horizon": HORIZON, "prediction": "noise", "noise_steps": 100, "schedule": "cosine",
        "padding": "last_frame", "heading": False, "residual": "none", "coeff_scale": None, "condition_scale": None,
        "condition": "coeffs", "condition_stride": 1, "condition_noise": None, "loss_power": 0.0,
        "mod_train": 0.8, "dropout_by": "sample", "t_min": 1, "num_samples": 3, "ddim_timesteps": 5, "sampler": "ddim",
        "completion": True, "mod_test": 1.0, "compat_rng": False, "seed": 0, "chunk": 1000, "baseline_stride": 2,
        "protocol": "prediction", "objective": "val/ade", "objective_mode": "min",
    }  # fmt: skip
    optimizer = partial(torch.optim.Adam, lr=1e-3)
    made = PredictionTask(model or network(), optimizer, None, **{**options, **changes})
    made.describe(spec=spec().to_dict(), config={})
    return made


def batch(windows: int = 4, first: int = 0) -> dict[str, Tensor]:
    """Windows of smooth motion; those of a number are the same in any batch."""
    rows = torch.arange(first, first + windows)
    time = torch.linspace(0, 1, FRAMES)[:, None]
    motion = 0.5 * torch.sin(3 * time + rows[:, None, None] + torch.arange(FEATURES) / 7)
    return {"motion": motion, "index": rows, "draw": rows}


# Training.


@pytest.mark.parametrize("prediction", diffusion.PREDICTIONS)
def test_the_loss_of_a_perfect_network_is_zero(prediction: str) -> None:
    made, items = task(prediction=prediction), batch()
    encoded = made.space.encode(items["motion"])
    t, noise = torch.tensor([1, 5, 50, 99]), torch.randn(4, KEPT, FEATURES)

    seen = []

    def perfect(x: Tensor, t: Tensor, condition: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        share = made.alpha_hat[t][:, None, None]
        seen.append((x, share.sqrt() * encoded.coeffs + (1 - share).sqrt() * noise))
        v = share.sqrt() * noise - (1 - share).sqrt() * encoded.coeffs
        return {"noise": noise, "x0": encoded.coeffs, "v": v}[prediction]

    made.model.forward = perfect  # type: ignore[method-assign]
    assert float(made.denoising_loss(encoded, t, noise)) < 1e-10
    torch.testing.assert_close(*seen[0])
    elsewhere = dataclasses.replace(encoded, coeffs=encoded.coeffs + 1)
    assert float(made.denoising_loss(elsewhere, t, noise + 1)) > 0.01


class Given:
    """What a network was called with."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[tuple[Any, ...]] = []
        model.register_forward_pre_hook(lambda module, given: self.calls.append(given))


def test_draws_of_a_window_do_not_depend_on_its_batch() -> None:
    made = task()
    given = Given(made.model)
    made.loss(batch(6))
    made.loss(batch(2, first=3))
    (x, t, condition, present), (x2, t2, condition2, present2) = given.calls
    for whole, part in ((x, x2), (t, t2), (condition, condition2), (present, present2)):
        torch.testing.assert_close(whole[3:5], part)
    assert len(t.unique()) > 1


def test_draws_follow_seed_and_epoch() -> None:
    levels = []
    for seed in (0, 1):
        made = task(seed=seed)
        given = Given(made.model)
        made.loss(batch(8))
        levels.append(given.calls[0][1])
    assert not torch.equal(*levels)


def test_noise_levels_and_dropped_conditions_have_their_shares() -> None:
    made = task(mod_train=0.7, t_min=10)
    given = Given(made.model)
    items = batch(1)
    many = {"motion": items["motion"].expand(4000, -1, -1), "draw": torch.arange(4000), "index": torch.arange(4000)}
    made.loss(many)
    _, t, condition, present = given.calls[0]
    assert (int(t.min()), int(t.max())) == (10, 99)
    assert float(t.float().mean()) == pytest.approx(54.5, abs=1.5)
    assert condition is not None
    assert float(present.float().mean()) == pytest.approx(0.7, abs=0.03)


def test_everybody_sees_the_condition_where_none_is_dropped() -> None:
    made = task(mod_train=1.0)
    given = Given(made.model)
    made.loss(batch())
    assert given.calls[0][2] is not None and len(given.calls[0]) == 3


@pytest.mark.parametrize("family", [SMRNet, HumanMAC])
def test_a_whole_batch_without_a_condition_is_one_of_windows_without_one(family: type[nn.Module]) -> None:
    made, items = task(network(family)), batch()
    encoded = made.space.encode(items["motion"])
    t, noise = torch.tensor([1, 5, 50, 99]), torch.randn(4, KEPT, FEATURES)
    losses = [made.denoising_loss(encoded, t, noise, present) for present in (False, torch.zeros(4, dtype=torch.bool))]
    torch.testing.assert_close(*losses)
    assert not torch.allclose(losses[0], made.denoising_loss(encoded, t, noise))


def test_layers_that_nothing_reads_are_not_trained() -> None:
    made = task()
    made.loss(batch())["loss"].backward()
    silent = [name for name, p in made.model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    assert any(not p.requires_grad for p in made.model.parameters())


# Sampling.


@pytest.fixture
def trained() -> PredictionTask:
    return task().eval()


def test_futures_have_the_shape_of_the_horizon(trained: PredictionTask) -> None:
    futures = trained.predict(batch())
    assert futures.shape == (4, 3, HORIZON, FEATURES)
    assert futures.isfinite().all()
    torch.testing.assert_close(trained.predict(batch(), num_samples=5)[:, :3], futures)


def test_a_window_is_predicted_alike_in_any_batch_and_chunk(trained: PredictionTask) -> None:
    whole = trained.predict(batch(5))
    trained.chunk = 2
    for row in range(5):
        torch.testing.assert_close(trained.predict(batch(1, first=row))[0], whole[row], rtol=1e-4, atol=1e-5)
    trained.seed = 1
    assert not torch.allclose(trained.predict(batch(5)), whole)


def test_a_fixed_share_of_the_samples_sees_the_condition(trained: PredictionTask) -> None:
    with_, without = (trained.predict(batch(), num_samples=4, mod_test=share) for share in (1.0, 0.0))
    half = trained.predict(batch(), num_samples=4, mod_test=0.5)
    torch.testing.assert_close(half[:, :2], with_[:, :2])
    torch.testing.assert_close(half[:, 2:], without[:, 2:])
    assert not torch.allclose(with_, without)


def test_a_prediction_in_one_heading_turns_with_its_history() -> None:
    made = task(heading=True, residual="last_pose").eval()
    items, angle = batch(), torch.tensor([0.3, -2.0, 3.0, 1.0])
    turned = {**items, "motion": turn(items["motion"], angle)}
    torch.testing.assert_close(made.predict(turned), turn(made.predict(items), angle), rtol=1e-4, atol=1e-4)


def test_published_draws_need_all_windows_and_leave_the_generators_alone() -> None:
    made = task(compat_rng=True).eval()
    torch.manual_seed(7)
    state, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = made.predict(batch())
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == drawn).all()
    torch.testing.assert_close(made.predict(batch()), found)
    made._numbers["train"] = torch.arange(5)  # as if the stage had five windows
    with pytest.raises(ConfigError, match=r"dataset\.eval_batch_size=5"):
        made.predict(batch())


# Baselines.


@pytest.mark.parametrize("name", ["h36m17", "humaneva15"])
def test_hips_are_found_by_name_and_by_the_tree(name: str) -> None:
    body = skeleton(name)
    right, left = (body.index(joint) - 1 for joint in ("right_hip", "left_hip"))
    assert hips_of(body) == (right, left)
    other = Skeleton(
        "own", tuple(f"j{i}" for i in range(len(body))), body.parents, left=body.left, right=body.right, root=body.root
    )
    assert hips_of(other) == (right, left)
    assert hips_of(Skeleton.from_parents(list(body.parents))) is None


def test_nearest_neighbours_do_not_depend_on_headings() -> None:
    candidates, items = batch(30, first=50)["motion"], batch()
    by_tree = MotionBaselines(HISTORY, HORIZON, hips_of(BODY), candidates, 0)
    history, ids = items["motion"][:, :HISTORY], torch.arange(4)
    angle = torch.tensor([0.3, -2.0, 3.0, 1.0])
    found = by_tree("nearest", history, 5, ids)
    assert found.shape == (4, 5, HORIZON, FEATURES)
    torch.testing.assert_close(by_tree("nearest", turn(history, angle), 5, ids), turn(found, angle), atol=1e-4, rtol=0)
    plain = by_tree("nearest", history, 5, ids, align=False, fade=None)
    torch.testing.assert_close(plain, baselines.nearest(history, candidates, 5))
    random = by_tree("random_futures", history, 5, ids)
    torch.testing.assert_close(by_tree("random_futures", history[2:3], 5, ids[2:3]), random[2:3])
    assert not torch.allclose(random, found)


def test_baselines_read_training_windows_in_parts_and_keep_their_histories_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidates, items = batch(30, first=50)["motion"], batch()
    before = candidates.clone()
    history, ids = items["motion"][:, :HISTORY], torch.arange(4)
    names = [("nearest", True), ("nearest", False), ("random_futures", True)]

    def found(made: MotionBaselines) -> list[Tensor]:
        return [made(name, history, 5, ids, align=align) for name, align in names]

    turned = turn(candidates, -heading(candidates[:, HISTORY - 1].unflatten(-1, (-1, 3)), hips_of(BODY)))
    angle = heading(history[:, -1].unflatten(-1, (-1, 3)), hips_of(BODY))
    whole = MotionBaselines(HISTORY, HORIZON, hips_of(BODY), candidates, 0)
    expected = turn(baselines.nearest(turn(history, -angle), turned, 5, fade=10.0), angle)
    torch.testing.assert_close(found(whole)[0], expected, atol=1e-6, rtol=0)
    assert torch.equal(candidates, before)
    largest: list[int] = []

    def watched(motion: Tensor, angle: Tensor) -> Tensor:
        largest.append(motion.numel())
        return turn(motion, angle)

    monkeypatch.setattr(motion_baselines, "turn", watched)
    monkeypatch.setattr(motion_baselines, "_MEMORY", 4 * 6 * (1 + HORIZON) * FEATURES)
    parts = MotionBaselines(HISTORY, HORIZON, hips_of(BODY), candidates, 0)
    for one, other in zip(found(parts), found(whole), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    # One window's futures at a time, of 4; histories in parts, of 30.
    assert max(largest) <= 6 * (1 + HORIZON) * FEATURES < candidates.numel()
    kept = [value for value in vars(parts).values() if isinstance(value, Tensor)]
    assert [value.data_ptr() for value in kept] == [candidates.data_ptr()]
    assert {tuple(known.shape) for known in parts._known.values()} == {(30, HISTORY, FEATURES)}


def test_few_training_windows_give_few_futures_and_none_give_nan(caplog: pytest.LogCaptureFixture) -> None:
    history, ids = batch()["motion"][:, :HISTORY], torch.arange(4)
    few = MotionBaselines(HISTORY, HORIZON, hips_of(BODY), batch(2, first=9)["motion"], 0)
    assert few("nearest", history, 5, ids).shape[1] == few("nearest", history, 5, ids).shape[1] == 2
    assert caplog.text.count("2 training windows") == 1
    none = MotionBaselines(HISTORY, HORIZON, hips_of(BODY), None, 0)
    assert none("nearest", history, 5, ids).isnan().all()
    assert none("zero_velocity", history, 5, ids).isfinite().all()


# The whole of it.


@pytest.fixture
def data(tmp_path: Path) -> PredictionDataModule:
    return module(write(tmp_path))


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quieten_lightning()
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


VARIANTS = {
    "default": {}, "half": {"mod_test": 0.5}, "zero_velocity": {"baseline": "zero_velocity"},
    "nearest": {"baseline": "nearest"}, "fast": {"sampler": "dpm_solver_pp_2m", "ddim_timesteps": 2},
}  # fmt: skip


def test_training_validates_cheaply_and_a_test_compares_all_variants(
    tmp_path: Path, data: PredictionDataModule
) -> None:
    made = task(variants=VARIANTS, validation={"num_samples": 2, "ddim_timesteps": 2})
    running = trainer(tmp_path, max_epochs=2)
    running.fit(made, datamodule=data)
    assert made.reports["val"].summary["samples"] == 2
    running.test(made, datamodule=data, verbose=False)
    names = ["test", "test/half", "test/zero_velocity", "test/nearest", "test/fast", "test/ddim"]
    assert list(made.reports) == names
    found = {(report.scalars["ade"], report.scalars["apd"]) for report in made.reports.values()}
    assert len(found) == 6
    assert made.reports["test"].summary["samples"] == 3
    assert made.reports["test/zero_velocity"].scalars["apd"] == 0


def test_a_folder_of_test_data_alone_is_tested_without_what_needs_training_data(tmp_path: Path) -> None:
    there = {subject: trials for subject, trials in positions().items() if subject == "S9"}
    data, made = module(write(tmp_path, there)), task(variants=VARIANTS)
    trainer(tmp_path).test(made, datamodule=data, verbose=False)
    assert np.isnan(made.reports["test/nearest"].scalars["ade"])
    assert np.isfinite(made.reports["test"].scalars["ade"])
    assert "cmd" not in made.reports["test"].scalars
    whole, again = module(write(tmp_path / "whole")), task(variants=VARIANTS)
    trainer(tmp_path).test(again, datamodule=whole, verbose=False)
    assert again.reports["test"].scalars["ade"] == made.reports["test"].scalars["ade"]  # the noise is the same


def test_numbers_of_windows_name_the_recording_and_not_the_row(data: PredictionDataModule) -> None:
    windows = data.windows("test")
    assert windows is not None
    numbers, some = numbered(windows), windows.evenly_spaced(3)
    assert len(numbers.unique()) == len(windows)
    rows = [windows.table.tolist().index(row) for row in some.table.tolist()]
    assert numbered(some).tolist() == numbers[rows].tolist()
    assert int(numbers.max()) < 2**31


def test_a_checkpoint_predicts_as_the_task_that_wrote_it(trained: PredictionTask) -> None:
    other = task().eval()
    other.load_state_dict(copy.deepcopy(trained.state_dict()))
    assert not [name for name in trained.state_dict() if not name.startswith("model.")]
    torch.testing.assert_close(other.predict(batch()), trained.predict(batch()))


# Refusals and additions.


def test_a_faster_sampler_is_tested_beside_the_published_one() -> None:
    made = task(sampler="dpm_solver_pp_2m", ddim_timesteps=2, noise_steps=1000)
    assert made.variants == {"default": {}, "ddim": {"sampler": "ddim", "ddim_timesteps": 100}}
    named = task(variants={"fast": {"sampler": "fixed_known"}, "nearest": {"baseline": "nearest"}, "none": None})
    assert list(named.variants) == ["fast", "nearest", "ddim"]
    # Steps of its own are not the published ones, a tenth of the noise steps.
    quick = task(variants=VARIANTS, noise_steps=1000, ddim_timesteps=20)
    assert list(quick.variants) == [*VARIANTS, "ddim"] and quick.variants["ddim"]["ddim_timesteps"] == 100
    assert list(task(variants=VARIANTS, noise_steps=1000, ddim_timesteps=100).variants) == list(VARIANTS)
    listed = {"fast": VARIANTS["fast"], "ddim": {"ddim_timesteps": 20}}
    assert list(task(variants=listed, noise_steps=1000).variants) == ["fast", "ddim", "ddim_100"]
    slow = {name: VARIANTS[name] for name in ("default", "half", "nearest")}
    assert list(task(variants=slow, noise_steps=1000, ddim_timesteps=20).variants) == list(slow)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ddim_timesteps": 7}, r"must divide.*task\.ddim_timesteps=\d+"),
        ({"ddim_timesteps": 100}, r"at most half.*task\.ddim_timesteps=50"),
        ({"variants": {"a": {"ddim_timesteps": 7}}}, r"task\.ddim_timesteps="),
        ({"validation": {"num_sample": 3}}, r"task\.validation: 'num_sample' .* Did you mean 'num_samples'"),
        ({"variants": {"a": {"baseline": "nearst"}}}, r"variants\.a: no baseline .* nearest"),
        ({"mod_test": 2.0}, r"task\.mod_test=1\.0"),
        ({"num_samples": 0}, r"task\.num_samples=50"),
        ({"t_min": 100}, r"task\.t_min=1"),
        ({"padding": "repeat", "horizon": HORIZON + 1}, r"task\.padding=last_frame"),
        ({"coeff_scale": [1.0, 2.0]}, r"task\.coeff_scale=null"),
        ({"sampler": "euler"}, r"no sampler is called 'euler'"),
    ],
)
def test_what_cannot_work_is_refused_before_a_training(changes: dict[str, Any], message: str) -> None:
    made = task(**changes)
    with pytest.raises(ConfigError, match=message):
        made.check(made.signature, spec())


@pytest.mark.parametrize("key", ["prediction", "dropout_by", "padding", "residual", "schedule"])
def test_words_of_the_yaml_are_checked(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"task\.{key}: 'samplee' is unknown"):
        task(**{key: "samplee"})


def test_a_network_is_not_read_in_another_way_than_it_was_trained() -> None:
    class Source:
        spec = None
        config = {"task": {"prediction": "x0", "noise_steps": 100, "coeff_scale": [1.0] * KEPT}}  # noqa: RUF012

    model = network()
    model.provenance = Source()
    made = task(model, coeff_scale=[1.0] * KEPT)
    with pytest.raises(ConfigError, match=r"trained with task\.prediction=x0, not noise\. Use task\.prediction=x0"):
        made.check(made.signature, spec())
    fitting = task(model, coeff_scale=[1.0] * KEPT, prediction="x0")
    fitting.check(fitting.signature, spec())


def test_options_of_the_protocol_in_yaml_are_its_own() -> None:
    options = compose(["task=prediction", "model=smrnet_tiny", "dataset=cmu_motion"]).task.protocol_options
    for name, protocol in PREDICTION.items():
        own = set(inspect.signature(protocol.__init__).parameters) - {"self", "windows", "history", "mean_motion"}
        assert {str(key) for key in options[name]} == own
