"""VideoPose3D: contract, published sizes, three forms of one network, trajectory twin."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.errors import ConfigError
from kinema.models.videopose3d import VideoPose3D
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_joints": 4,
        "num_joints_out": 4,
        "in_channels": 2,
        "filter_widths": [3, 3],
        "channels": 6,
        "dropout": 0.0,
        "causal": False,
        "dense": False,
        "trajectory": False,
        "root": 0,
    }
    return {**values, **changes}


CASES = (
    small(),
    small(num_joints=17, num_joints_out=15, filter_widths=[3, 5], causal=True, dropout=0.25),
    small(num_joints=5, num_joints_out=5, filter_widths=[3, 3, 3], dense=True, in_channels=3),
    small(filter_widths=[5, 3], trajectory=True, root=2, channels=8),
    small(filter_widths=[3]),
)


def made(**changes: Any) -> VideoPose3D:
    model = VideoPose3D(**small(**changes)).double().eval()
    oracle.scatter(model)
    return model


def test_keeps_the_model_contract() -> None:
    check_model(VideoPose3D, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(VideoPose3D, CASES[3], compile_backend="inductor")


@pytest.mark.parametrize(
    ("changes", "parameters", "frames"),
    [
        ({}, 16_952_371, 243),
        ({"filter_widths": [3, 3, 3, 3]}, 12_753_971, 81),
        ({"filter_widths": [3, 3, 3]}, 8_555_571, 27),
        ({"in_channels": 3}, 17_004_595, 243),
    ],
)
def test_yaml_sizes_are_the_published_ones(changes: dict[str, Any], parameters: int, frames: int) -> None:
    with torch.device("meta"):
        model = VideoPose3D(**{**arguments("videopose3d"), **changes})
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.signature.frames == frames
    assert model.signature.context == (frames // 2, frames // 2)


def plain(model: VideoPose3D, window: Tensor) -> Tensor:
    """One window of R frames (R, J, C) to (J_out, 3), tap by tap at full length."""
    widths, causal = model.arguments["filter_widths"], model.arguments["causal"]

    def norm(x: Tensor, bn: Any) -> Tensor:
        return torch.relu((x - bn.running_mean) / (bn.running_var + 1e-5).sqrt() * bn.weight + bn.bias)

    def conv(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        reach = (weight.shape[2] - 1) * dilation
        rows = [
            sum(weight[:, :, k] @ x[t + k * dilation] for k in range(weight.shape[2])) for t in range(len(x) - reach)
        ]
        return torch.stack(rows)

    x = norm(conv(window.flatten(1), model.expand_conv.weight, 1), model.expand_bn)
    dilation = widths[0]
    for level, width in enumerate(widths[1:]):
        first, second = model.layers_conv[2 * level].weight, model.layers_conv[2 * level + 1].weight
        y = norm(conv(x, first, 1 if model.dense else dilation), model.layers_bn[2 * level])
        y = norm(conv(y, second, 1), model.layers_bn[2 * level + 1])
        shift = (width - 1) * dilation if causal else (width - 1) * dilation // 2
        x = y + x[shift : shift + len(y)]
        dilation *= width
    assert len(x) == 1
    return (x[0] @ model.shrink.weight[:, :, 0].T + model.shrink.bias).reshape(-1, 3)


@pytest.mark.parametrize("changes", [{}, {"causal": True}, {"dense": True}, {"filter_widths": [3, 1, 5]}])
def test_equals_a_plain_loop(changes: dict[str, Any]) -> None:
    model = made(**changes)
    length = 3
    pose = torch.randn(2, model.signature.frames - 1 + length, 4, 2, dtype=torch.float64)
    expected = torch.stack(
        [torch.stack([plain(model, clip[i : i + model.signature.frames]) for i in range(length)]) for clip in pose]
    )
    torch.testing.assert_close(model(pose), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(pose[:, : model.signature.frames]), expected[:, :1], rtol=1e-10, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.sampled_from([1, 3, 5]), min_size=1, max_size=3), causal=st.booleans(), batch=st.integers(1, 3)
)
def test_strided_and_dilated_forms_agree(widths: list[int], causal: bool, batch: int) -> None:
    model = made(filter_widths=widths, causal=causal)
    pose = torch.randn(batch, model.signature.frames, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(model(pose), model.slide(pose), rtol=1e-9, atol=1e-9)


def test_one_window_computes_only_what_its_output_needs() -> None:
    model = made(filter_widths=[3, 3, 3])
    lengths: list[int] = []
    for conv in (model.expand_conv, *model.layers_conv):
        conv.register_forward_hook(lambda _, __, out: lengths.append(out.shape[2]))
    model(torch.randn(2, 27, 4, 2, dtype=torch.float64))
    assert lengths == [9, 3, 3, 1, 1]


def test_causal_outputs_ignore_the_future() -> None:
    model = made(causal=True)
    assert model.signature.context == (8, 0)
    pose = torch.randn(1, 12, 4, 2, dtype=torch.float64)
    changed = pose.clone()
    changed[:, -1] += 1
    assert torch.equal(model(pose)[:, :-1], model(changed)[:, :-1])
    assert not torch.equal(model(pose)[:, -1], model(changed)[:, -1])


def test_trajectory_stands_in_the_roots_slot() -> None:
    model = made(trajectory=True, root=1)
    assert model.signature.trajectory
    state = model.state_dict()
    pose_only, path_only = made(), made(num_joints_out=1)
    pose_only.load_state_dict({name: t for name, t in state.items() if not name.startswith("trajectory.")})
    prefix = "trajectory."
    path_only.load_state_dict({name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)})
    for frames in (9, 12):
        pose = torch.randn(2, frames, 4, 2, dtype=torch.float64)
        out = model(pose)
        torch.testing.assert_close(out[:, :, 1:2], path_only(pose))
        torch.testing.assert_close(out[:, :, [0, 2, 3]], pose_only(pose)[:, :, [0, 2, 3]])


def test_momentum_reaches_every_norm_of_both_networks() -> None:
    model = made(trajectory=True)
    model.set_bn_momentum(0.003)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert len(norms) == 6 and {norm.momentum for norm in norms} == {0.003}


def test_training_on_windows_uses_statistics_of_the_strided_positions() -> None:
    model = made()
    model.set_bn_momentum(1.0)  # the running mean becomes the mean of the batch
    twin = copy.deepcopy(model)
    pose = torch.randn(8, 9, 4, 2, dtype=torch.float64)
    model.train()(pose)
    visited = twin.expand_conv(pose.flatten(2).transpose(1, 2), False)[:, :, ::3]
    torch.testing.assert_close(model.expand_bn.running_mean, visited.mean((0, 2)))


@pytest.mark.parametrize(
    ("shapes_of", "overrules"),
    [
        (small(filter_widths=[3, 7]), {"filter_widths": [3, 7], "dense": False}),
        (small(num_joints=15, num_joints_out=10), {"num_joints": 15, "in_channels": 2}),
    ],
)
def test_ambiguous_files_load_with_the_arguments_named(shapes_of: dict[str, Any], overrules: dict[str, Any]) -> None:
    state = VideoPose3D(**shapes_of).state_dict()
    read = VideoPose3D.recognise({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert read is not None and {**read, **overrules} != read
    VideoPose3D(**{**VideoPose3D.unknowable, **read, **overrules}).load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "words"), [({"filter_widths": [3, 4]}, "must be odd"), ({"root": 4}, "none of the 4 joints")]
)
def test_refuses_impossible_arguments(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VideoPose3D(**small(**changes))


def test_recognise_answers_none_for_other_names() -> None:
    shapes = {name: tuple(t.shape) for name, t in VideoPose3D(**small()).state_dict().items()}
    assert VideoPose3D.recognise({}) is None
    assert VideoPose3D.recognise({n: s for n, s in shapes.items() if n != "layers_conv.0.weight"}) is None
    assert VideoPose3D.recognise({**shapes, "expand_conv.weight": (6, 8)}) is None


@settings(max_examples=40, deadline=None)
@given(
    first=st.integers(0, 40),
    moving=st.integers(0, 12),
    last=st.integers(0, 40),
    causal=st.booleans(),
    dense=st.booleans(),
)
def test_repeated_edges_are_computed_once_with_the_same_result(
    first: int, moving: int, last: int, causal: bool, dense: bool
) -> None:
    model = made(filter_widths=[3, 5], causal=causal, dense=dense, trajectory=True)
    a, b = torch.randn(2, 2, 1, 4, 2, dtype=torch.float64).unbind(0)
    middle = torch.randn(2, moving, 4, 2, dtype=torch.float64)
    pose = torch.cat([a.expand(-1, first + 8, -1, -1), middle, b.expand(-1, last + 8, -1, -1)], dim=1)
    torch.testing.assert_close(model.slide(pose), model(pose), rtol=1e-9, atol=1e-9)


def test_padding_costs_no_convolutions() -> None:
    model = made(filter_widths=[3, 3, 3])
    video = torch.randn(1, 50, 4, 2, dtype=torch.float64)
    lengths: list[int] = []
    for conv in (model.expand_conv, *model.layers_conv):
        conv.register_forward_hook(lambda _, __, out: lengths.append(out.shape[2]))
    model.slide(torch.cat([video[:, :1].expand(-1, 13, -1, -1), video, video[:, -1:].expand(-1, 13, -1, -1)], dim=1))
    assert lengths == [52, 58, 58, 50, 50]  # not 74, 68, 68, 50, 50


def test_a_video_that_stands_still_or_holds_nan_is_lifted_as_by_forward() -> None:
    model = made()
    still = torch.randn(1, 1, 4, 2, dtype=torch.float64).expand(2, 20, -1, -1)
    torch.testing.assert_close(model.slide(still), model(still))
    broken = torch.randn(1, 20, 4, 2, dtype=torch.float64)
    broken[:, 0] = torch.nan
    torch.testing.assert_close(model.slide(broken), model(broken), equal_nan=True)


def test_gradients_of_slide_reach_every_padded_frame() -> None:
    model = made()
    pose = torch.randn(1, 1, 4, 2, dtype=torch.float64).repeat(1, 12, 1, 1).requires_grad_()
    model.slide(pose).sum().backward()
    assert pose.grad is not None and pose.grad[:, 1:-1].flatten(2).any(-1).all()
