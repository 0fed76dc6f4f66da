"""Multiply-accumulates against the published counts and a closed form; memory against sizes known by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kinema.errors import ConfigError
from kinema.inference.complexity import LivingTensors, count_macs, count_parameters, measure
from kinema.models.registry import model_class
from tests.checkpoints import tiny
from tests.models.configs import arguments


def on_meta(family: str, values: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return model_class(family)(**values)


@pytest.mark.parametrize(
    ("size", "frames", "macs"),
    [
        ("dstformer", None, "185.40"),
        ("dstformer", 100, "73.81"),
        ("dstformer", 16, "11.58"),
        ("dstformer_lite", None, "71.05"),
        ("dstformer_lite", 81, "22.54"),
    ],
)
def test_dstformer_counts_are_the_published_ones(size: str, frames: int | None, macs: str) -> None:
    found = count_macs(on_meta("dstformer", arguments(size)), frames=frames)
    assert f"{found.total / 1e9:.2f}" == macs
    assert found.frames_out == (frames or 243)
    assert found.per_frame == found.total / found.frames_out
    assert sum(found.kinds.values()) == found.total


@pytest.mark.parametrize(("dim", "depth", "ratio"), [(8, 1, 2), (16, 3, 4)])
def test_dstformer_counts_follow_the_closed_form(dim: int, depth: int, ratio: int) -> None:
    # motionbert.md 1.4, n tokens: embedding, blocks, mixing, representation, head.
    sizes = {"dim": dim, "depth": depth, "mlp_ratio": ratio, "num_frames": 9, "num_joints": 5, "dim_rep": 12}
    t, j, batch = 9, 5, 3
    n = t * j
    block = 4 * (4 * dim**2 + 2 * ratio * dim**2) * n + 4 * n * dim * (j + t)
    expected = n * 3 * dim + depth * (block + 4 * n * dim) + n * dim * 12 + 3 * 12 * n
    model = on_meta("dstformer", {**tiny.DSTFORMER, **sizes})
    found = count_macs(model, batch)
    assert found.total == batch * expected
    assert found.kinds["attention"] == batch * depth * 4 * n * dim * (j + t)
    assert found.per_frame == expected / t


@pytest.mark.parametrize(("frames", "macs"), [(9, "91.3"), (27, "276.0"), (81, "846.9")])
def test_poseformer_counts_are_the_published_ones(frames: int, macs: str) -> None:
    found = count_macs(on_meta("poseformer", {**arguments("poseformer"), "num_frames": frames}))
    assert f"{found.total / 1e6:.1f}" == macs
    assert found.frames_out == 1
    assert found.streaming is not None
    assert found.streaming < found.total, "windows of a video share the spatial stage"


@pytest.mark.parametrize(("levels", "macs"), [(3, "17.8"), (4, "57.4"), (5, "176.3")])
def test_videopose3d_counts_are_the_published_ones(levels: int, macs: str) -> None:
    found = count_macs(on_meta("videopose3d", {**arguments("videopose3d"), "filter_widths": [3] * levels}))
    assert f"{found.total / 1e6:.1f}" == macs
    # One frame more of a long video passes through every weight of a convolution once.
    model = on_meta("videopose3d", {**arguments("videopose3d"), "filter_widths": [3] * levels})
    weights = sum(p.numel() for name, p in model.named_parameters() if "conv" in name or name == "shrink.weight")
    assert found.streaming == weights


def test_parameters_are_counted_with_and_without_frozen_ones() -> None:
    model = on_meta("dstformer", arguments("dstformer"))
    assert count_parameters(model) == 42_466_317
    model.head.requires_grad_(False)
    assert count_parameters(model) - count_parameters(model, trainable=True) == 3 * 512 + 3


def test_counting_leaves_the_model_where_it_was() -> None:
    model = tiny.build("dstformer").train()
    count_macs(model)
    assert model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_living_tensors_sees_the_worst_moment() -> None:
    weight = torch.ones(1000, 1000)
    with LivingTensors([weight]) as living:
        a = torch.ones(256)  # 1 KiB
        b = torch.ones(512)  # 2 KiB
        del a
        c = weight.t()[0]  # a view of what was there before
        d = torch.ones(256)
        del b, c, d
        e = torch.ones(128)
    assert living.peak == 3 * 1024
    assert living.now == e.nbytes


def test_a_training_step_weighs_at_least_the_gradients() -> None:
    model = tiny.build("dstformer", dim=64)
    (pose,) = model.signature.example(4)
    forward, step = measure(model, (pose,), runs=2), measure(model, (pose,), runs=2, training=True)
    size = sum(parameter.nbytes for parameter in model.parameters())
    assert step.peak_bytes > size + forward.peak_bytes
    assert forward.peak_bytes >= pose.nbytes
    assert (forward.runs, step.runs) == (2, 2)
    assert 0 < forward.seconds < step.seconds
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_slow_call_is_not_repeated() -> None:
    assert measure(tiny.build("poseformer"), tiny.build("poseformer").signature.example(), runs=9, budget=0).runs == 1


def test_a_training_step_leaves_running_statistics_alone() -> None:
    model = tiny.build("videopose3d")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, model.signature.example(3), runs=1, training=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_sample_cannot_train_batch_norm() -> None:
    model = tiny.build("videopose3d")
    with pytest.raises(ConfigError, match=r"Use describe\.batch_size=2\."):
        measure(model, model.signature.example(1), training=True)
    assert not model.training


@pytest.mark.parametrize(
    ("size", "visible", "full"),
    [("xs", "4.203", "5.85"), ("s", "12.664", "17.75"), ("b", "27.352", "36.24"), ("l", "38.181", "50.62")],
)
def test_dbmambapose_counts_are_those_of_its_design(size: str, visible: str, full: str) -> None:
    found = count_macs(on_meta("dbmambapose", arguments(f"dbmambapose_{size}")))
    assert found.visible is not None
    assert f"{found.visible / 1e9:.3f}" == visible
    # The table of the design adds rounded parts: B is 36.2349 G by the formula, 36.24 there.
    assert found.total / 1e9 == pytest.approx(float(full), abs=0.0052)
    assert sum(found.kinds.values()) == found.total
    assert found.per_frame == found.total / 243


@pytest.mark.parametrize(("dim", "depth", "frames"), [(16, 1, 5), (32, 2, 9)])
def test_posemamba_counts_follow_the_closed_form(dim: int, depth: int, frames: int) -> None:
    model = on_meta("posemamba", {**arguments("posemamba_s"), "dim": dim, "depth": depth})
    inner, states, rank, batch = 2 * dim, 16, dim // 16, 3
    scan = inner * (rank + 2 * states) + rank * inner + inner * (3 * states + 1)
    outside = 2 * dim + 3 * dim + depth * 2 * (dim * 2 * inner + 4 * dim**2)
    tokens = batch * frames * 17
    found = count_macs(model, batch, frames)
    assert found.visible == tokens * outside
    assert found.total == tokens * (outside + depth * 2 * (inner * dim + 9 * inner + 4 * scan))
    assert found.kinds["scan"] == tokens * depth * 8 * inner * (3 * states + 1)


def test_a_model_without_scans_hides_nothing() -> None:
    assert count_macs(on_meta("dstformer", tiny.DSTFORMER)).visible is None
