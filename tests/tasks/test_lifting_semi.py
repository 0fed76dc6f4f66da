"""Semi-supervised lifting: the loss against plain loops, warm-up, weights, refusals, ranks, a run from end to end."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from kinema.checkpoints.export import export
from kinema.checkpoints.load import load
from kinema.core.camera import project
from kinema.core.skeleton import skeleton
from kinema.data.paired import PairedDataModule
from kinema.errors import ConfigError
from kinema.models.videopose3d import VideoPose3D
from kinema.tasks.lifting_semi import LiftingSemiTask
from tests.core.test_semi_losses import _lenses
from tests.data import tiny
from tests.tasks.lifters import BODY, Linear, network, spec, trainer

_PAIRED: dict[str, Any] = {"kind": PairedDataModule, "subjects_train": ["S1"], "subjects_unlabeled": ["S5"],
                           "batch_size": 4, "tasks": ["lifting", "lifting_semi"]}  # fmt: skip


def task(model: nn.Module | None = None, **changes: Any) -> LiftingSemiTask:
    options: dict[str, Any] = {
        "optimizer": partial(torch.optim.Adam, lr=1e-2), "target": "root_relative", "flip_average": False,
        "losses": {"mpjpe": 1.0, "trajectory": 1.0, "projection": 1.0, "bone_length": 1.0},
        "mask_invalid": True, "chunk": 4096, "protocol": "videopose3d", "objective": "val/mpjpe",
        "objective_mode": "min", "warmup": 0, "linear_projection": False,
    }  # fmt: skip
    made = LiftingSemiTask(model or network(trajectory=True, dropout=0.0), **{**options, **changes})
    made.describe(spec=spec().to_dict(), config={})
    return made


def facing(model: Any) -> Any:
    """Let a fresh network begin with a body in front of the camera: near its plane a projection jumps."""
    last = model.trajectory.shrink if hasattr(model.trajectory, "shrink") else model.trajectory.head
    with torch.no_grad():
        last.bias[2::3] += 6
    return model


def _batches(context: int = 1, targets: int = 2) -> dict[str, dict[str, Tensor]]:
    """A labelled batch of three and an unlabelled one of two samples, float64."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    made = {}
    for name, samples in (("labeled", 3), ("unlabeled", 2)):
        pose2d = random(samples, targets + 2 * context, 17, 2)
        made[name] = {"pose": pose2d, "pose2d": pose2d, "index": torch.arange(samples),
                      "valid": torch.ones(samples, targets, dtype=torch.bool)}  # fmt: skip
    place = 0.3 * random(3, targets, 17, 3) + torch.tensor([0.0, 0.0, 4.0])
    made["labeled"]["pose3d"] = place
    made["unlabeled"]["intrinsics"] = _lenses(2)
    return made


def _by_hand(model: VideoPose3D, batch: dict[str, dict[str, Tensor]]) -> dict[str, float]:
    """Every term by loops, from two networks run apart on both batches at once."""
    state = model.state_dict()
    apart = {}
    for prefix, joints in (("", 17), ("trajectory.", 1)):
        one = network(num_joints_out=joints, dropout=0.0).double().train()
        names = [name for name in state if name.startswith(prefix) and (prefix or not name.startswith("trajectory."))]
        one.load_state_dict({name.removeprefix(prefix): state[name] for name in names})
        apart[joints] = one(torch.cat([batch["labeled"]["pose"], batch["unlabeled"]["pose"]])).detach()
    pose, path, true = apart[17], apart[1], batch["labeled"]["pose3d"]
    samples, targets = true.shape[:2]
    terms = dict.fromkeys(("mpjpe", "trajectory", "projection", "bone_length"), 0.0)
    for b in range(samples):
        for t in range(targets):
            for j in range(17):
                relative = [float(v) for v in true[b, t, j] - true[b, t, 0]]
                terms["mpjpe"] += math.dist(pose[b, t, j].tolist(), relative) / (samples * targets * 17)
            off = math.dist(path[b, t, 0].tolist(), true[b, t, 0].tolist())
            terms["trajectory"] += off / float(true[b, t, 0, 2]) / (samples * targets)
    others = len(pose) - samples
    for b in range(others):
        for t in range(targets):
            for j in range(17):
                place = pose[samples + b, t, j] + path[samples + b, t, 0]
                seen = project(place[None], batch["unlabeled"]["intrinsics"][b : b + 1])[0]
                keypoint = batch["unlabeled"]["pose2d"][b, t + 1, j]
                terms["projection"] += math.dist(seen.tolist(), keypoint.tolist()) / (others * targets * 17)
    for j in range(1, 17):
        lengths = [(math.dist(pose[b, t, j].tolist(), pose[b, t, BODY.parents[j]].tolist()), b < samples)
                   for b in range(len(pose)) for t in range(targets)]  # fmt: skip
        means = [
            sum(v for v, k in lengths if k is own) / (targets * n) for own, n in ((True, samples), (False, others))
        ]
        terms["bone_length"] += abs(means[0] - means[1]) / 16
    return terms


def test_every_term_equals_the_loop_in_float64() -> None:
    model = network(trajectory=True, dropout=0.0).double().train()
    batch = _batches()
    made = task(model, losses={"mpjpe": 1.0, "trajectory": 0.5, "projection": 2.0, "bone_length": 3.0})
    wanted = _by_hand(model, batch)
    found = made.loss(batch)
    assert set(found) == {"loss", *wanted}
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-12), name
    weighted = wanted["mpjpe"] + 0.5 * wanted["trajectory"] + 2 * wanted["projection"] + 3 * wanted["bone_length"]
    assert float(found["loss"]) == pytest.approx(weighted, rel=1e-12)
    linear = task(model, linear_projection=True).loss(batch)["projection"]
    assert float(linear) != pytest.approx(wanted["projection"], rel=1e-6)


def test_gradients_are_those_of_finite_differences() -> None:
    model = facing(network(trajectory=True, dropout=0.0).double().train())
    batch, made = _batches(), task(model)
    made.loss(batch)["loss"].backward()
    random = torch.Generator().manual_seed(1)
    for name in ("shrink.weight", "trajectory.shrink.bias", "expand_conv.weight", "trajectory.expand_bn.bias"):
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        way = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(step * way)
                values.append(float(made.loss(batch)["loss"]))
                parameter.sub_(step * way)
        slope = float((parameter.grad * way).sum())
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-5), name


def test_weights_of_zero_leave_terms_out_but_not_the_batch() -> None:
    batch = _batches()
    made = task(network(trajectory=True, dropout=0.0).double().train(), losses={"mpjpe": 1.0, "bone_length": 1.0})
    assert set(made.loss(batch)) == {"loss", "mpjpe", "bone_length"}
    supervised = task(network(trajectory=True, dropout=0.0).double().train(), losses={"mpjpe": 1.0, "trajectory": 1.0})
    together, alone = supervised.loss(batch), supervised.loss(batch["labeled"])
    assert set(together) == set(alone) == {"loss", "mpjpe", "trajectory"}
    assert float(together["mpjpe"]) != float(alone["mpjpe"]), "BatchNorm sees both batches, as in the published program"


def test_frames_that_do_not_count_change_nothing() -> None:
    model = network(trajectory=True, dropout=0.0).double().eval()
    batch, made = _batches(), task(model)
    batch["labeled"]["valid"][1, 0] = batch["unlabeled"]["valid"][0, 1] = False
    before = made.loss(batch)
    batch["labeled"]["pose3d"][1, 0] = 0
    batch["unlabeled"]["pose2d"] = batch["unlabeled"]["pose2d"].clone()
    batch["unlabeled"]["pose2d"][0, 2] = 77
    after = made.loss(batch)
    for name, value in before.items():
        assert float(after[name]) == pytest.approx(float(value)), name
    after["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


# In a Trainer.


class Terms(pl.Callback):
    """Names of the terms of every step, and the epochs they were computed in."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, set[str]]] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.current_epoch, set(module._terms)))


def _data(folder: Path, **changes: Any) -> PairedDataModule:
    made: PairedDataModule = tiny.datamodule(
        _placed(folder), **{**_PAIRED, "signature": network().signature, **changes}
    )
    return made


def _placed(folder: Path) -> Path:
    """The tiny data with bodies in front of their cameras."""
    arrays = tiny.sequences()
    for name in arrays:
        if not name.endswith("2d"):
            arrays[name] = arrays[name] + [0.0, 0.0, 4.0]
    return tiny.write(folder / "tiny", {name: array.astype("float32") for name, array in arrays.items()})


def test_unlabelled_terms_come_after_the_warm_up(tmp_path: Path) -> None:
    terms = Terms()
    running = trainer(max_epochs=3, callbacks=[terms], limit_val_batches=0)
    running.fit(task(warmup=2), datamodule=_data(tmp_path))
    for epoch, names in terms.seen:
        assert ({"projection", "bone_length"} <= names) == (epoch >= 2)
        assert {"mpjpe", "trajectory"} <= names
    assert terms.seen[-1][0] == 2
    logged = running.callback_metrics
    assert {f"train/{name}_epoch" for name in ("mpjpe", "trajectory", "projection", "bone_length")} <= set(logged)


def test_labels_alone_train_the_trajectory(tmp_path: Path) -> None:
    running, terms = trainer(max_epochs=15, limit_val_batches=0), Terms()
    running.callbacks.append(terms)
    made = task()
    data = _data(tmp_path, subjects_unlabeled=[])
    running.fit(made, datamodule=data)
    assert terms.seen[0][1] == {"loss", "mpjpe", "trajectory"}
    batch = data.transform(data.windows("test")[torch.zeros(1, 3, dtype=torch.int64)])
    with torch.no_grad():
        depths = [float(one.eval().predict(batch, trajectory=True)[..., 0, 2].mean()) for one in (made, task())]
    assert abs(depths[1]) < 1 and 2 < depths[0] < 5, "the body stands four metres away, a fresh network does not know"


def test_a_checkpoint_holds_both_networks_and_exports_the_official_layout(tmp_path: Path) -> None:
    running = trainer(max_epochs=1, limit_val_batches=1)
    running.fit(task(), datamodule=_data(tmp_path))
    running.save_checkpoint(tmp_path / "a.ckpt")
    model = load(tmp_path / "a.ckpt")
    assert model.signature.trajectory
    path = tmp_path / "official.bin"
    export(model, path, "official")
    content = torch.load(path, weights_only=True)
    assert set(content["model_traj"]) == set(content["model_pos"])
    assert content["model_traj"]["shrink.bias"].shape == (3,) and content["model_pos"]["shrink.bias"].shape == (51,)


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    saver = pl.callbacks.ModelCheckpoint(tmp_path / "c", save_top_k=-1, every_n_train_steps=1, filename="{step}")
    straight = task(warmup=1)
    options = {"max_epochs": 3, "limit_val_batches": 0}
    trainer(callbacks=[saver], enable_checkpointing=True, **options).fit(straight, datamodule=_data(tmp_path))
    steps = len(list((tmp_path / "c").glob("*.ckpt")))
    for step in (2, steps // 3, steps // 2):
        resumed = task(warmup=1)
        trainer(**options).fit(
            resumed, datamodule=_data(tmp_path), ckpt_path=tmp_path / "c" / f"step={step}.ckpt", weights_only=True
        )
        for name, tensor in straight.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], tensor), (step, name)


# Refusals.


def test_impossible_combinations_are_refused_with_a_remedy(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(ConfigError, match=r"model=videopose3d model\.trajectory=true"):
        task(model).check(model.signature, spec())
    model = network(trajectory=True)
    with pytest.raises(ConfigError, match=r"absolute targets.*task\.target=root_relative"):
        task(model, target="absolute").check(model.signature, spec())
    task(model).check(model.signature, spec())


def test_data_without_lenses_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = tiny.read

    def blind(root: Path, **options: Any) -> Any:
        made = read(root, **options)
        made.cameras.clear()
        return made

    monkeypatch.setattr(tiny, "read", blind)
    running = trainer(max_epochs=1, limit_val_batches=0)
    with pytest.raises(ConfigError, match=r"focal lengths.*HumanEva-I.*task\.losses\.projection=0"):
        running.fit(task(), datamodule=_data(tmp_path))
    bones = task(losses={"mpjpe": 1.0, "trajectory": 1.0, "bone_length": 1.0})
    trainer(max_epochs=1, limit_val_batches=0).fit(bones, datamodule=_data(tmp_path))


def test_keypoints_of_another_layout_are_refused(tmp_path: Path) -> None:
    others = {"skeleton2d": "coco17", "reader": "tests.tasks.test_lifting_semi"}
    with pytest.raises(ConfigError, match="compares joint by joint, but keypoints and poses are coco17 and h36m17"):
        trainer(max_epochs=1, limit_val_batches=0).fit(task(), datamodule=_data(tmp_path, **others))


def files(root: Path, **options: Any) -> list[Path]:
    return tiny.files(root, **options)


def read(root: Path, **options: Any) -> Any:
    """The tiny data with COCO keypoints."""
    return tiny.read(root, **options).replace(skeleton2d=skeleton("coco17"))


def describe() -> str:
    return "COCO keypoints."


# Two processes.


class Twins(nn.Module):
    """Two linear lifters, one nested, without BatchNorm: what two processes compute must be what one computes."""

    def __init__(self) -> None:
        super().__init__()
        body = Linear(trajectory=True)
        self.head, self.signature = body.head, body.signature
        self.trajectory = Linear()

    def forward(self, pose: Tensor) -> Tensor:
        return Linear.forward(self, pose)  # type: ignore[arg-type]


class Keep(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            torch.save(module.model.state_dict(), self.path)


def outcome(folder: Path, devices: int) -> dict[str, Tensor]:
    """Train on one or two processes; the last batches are uneven, in one of them a rank has no labelled sample."""
    strategy = {"strategy": "ddp_spawn"} if devices > 1 else {}
    running = trainer(devices=devices, max_epochs=2, callbacks=[Keep(folder / f"{devices}.pt")], limit_val_batches=0,
                      **strategy)  # fmt: skip
    made = task(facing(Twins()), optimizer=partial(torch.optim.SGD, lr=1e-2))
    running.fit(made, datamodule=_data(folder, batch_size=5))
    state: dict[str, Tensor] = torch.load(folder / f"{devices}.pt", weights_only=True)
    return state


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    one, two = (outcome(tmp_path, devices) for devices in (1, 2))
    start = facing(Twins()).state_dict()
    for name, tensor in one.items():
        assert not torch.equal(tensor, start[name])
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6)
