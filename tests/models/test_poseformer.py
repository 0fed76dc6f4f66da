"""PoseFormer V1: contract, published sizes, a plain loop as oracle, shared spatial stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kinema.errors import ConfigError
from kinema.models.poseformer import PoseFormer
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 5,
        "num_joints": 3,
        "in_channels": 2,
        "dim": 4,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "qkv_bias": True,
        "dropout": 0.0,
        "attn_dropout": 0.0,
        "drop_path": 0.0,
    }
    return {**values, **changes}


CASES = (
    small(),
    small(num_frames=9, num_joints=15, dim=8, num_heads=4, depth=1, mlp_ratio=1.7, in_channels=3),
    small(num_frames=1, num_joints=5, qkv_bias=False, dropout=0.1, attn_dropout=0.1, drop_path=0.1),
    small(num_joints=17, num_joints_out=15),
)


def test_keeps_the_model_contract() -> None:
    check_model(PoseFormer, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(PoseFormer, small(depth=1), compile_backend="inductor")


@pytest.mark.parametrize(
    ("frames", "joints", "parameters"),
    [(9, 17, 9_563_645), (27, 17, 9_573_455), (81, 17, 9_602_885), (9, 15, 7_456_631), (81, 15, 7_491_263)],
)
def test_yaml_sizes_are_the_published_ones(frames: int, joints: int, parameters: int) -> None:
    values = arguments("poseformer", joints)
    assert values["num_frames"] == 81
    with torch.device("meta"):
        model = PoseFormer(**{**values, "num_frames": frames})
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_equals_a_plain_loop() -> None:
    model = PoseFormer(**small()).double().eval()
    oracle.scatter(model)
    pose = torch.randn(2, 5, 3, 2, dtype=torch.float64)
    expected = torch.stack([oracle.poseformer(window, model.state_dict(), 2) for window in pose])
    torch.testing.assert_close(model(pose), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 4, 100, None])
def test_slide_does_not_depend_on_its_chunks(chunk: int | None) -> None:
    model = PoseFormer(**small()).double().eval()
    oracle.scatter(model)
    pose = torch.randn(2, 11, 3, 2, dtype=torch.float64)
    expected = torch.cat([model(pose[:, i : i + 5]) for i in range(7)], dim=1)
    torch.testing.assert_close(model.slide(pose, chunk=chunk), expected, rtol=1e-10, atol=1e-10)


def test_slide_runs_the_spatial_stage_once_per_frame() -> None:
    model = PoseFormer(**small()).eval()
    seen: list[int] = []
    model.Spatial_norm.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:2].numel()))
    model.slide(torch.randn(1, 40, 3, 2))
    assert seen == [40]


def test_starts_from_zero_position_embeddings_and_keeps_the_epsilons() -> None:
    model = PoseFormer(**small())
    assert not model.Spatial_pos_embed.any() and not model.Temporal_pos_embed.any()
    norms = {name: m.eps for name, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert norms.pop("head.0") == 1e-5
    assert set(norms.values()) == {1e-6}


def test_spatial_samples_are_frames_and_temporal_samples_are_windows() -> None:
    model = PoseFormer(**small(drop_path=0.2))
    assert {block.drop_path.sample_axes for block in model.Spatial_blocks} == {2}
    assert {block.drop_path.sample_axes for block in model.blocks} == {1}
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.2])


def test_refuses_a_window_without_centre() -> None:
    with pytest.raises(ConfigError, match=r"model\.num_frames=7"):
        PoseFormer(**small(num_frames=6))


def test_other_joints_out_change_the_last_layer_alone() -> None:
    values = arguments("poseformer")
    assert values["num_joints_out"] == 17
    with torch.device("meta"):
        same, fewer = (PoseFormer(**{**values, "num_joints_out": joints}) for joints in (17, 15))
        unstated = PoseFormer(**{key: value for key, value in values.items() if key != "num_joints_out"})
    shapes, other = ({name: tuple(t.shape) for name, t in m.state_dict().items()} for m in (same, fewer))
    assert {name: shape for name, shape in other.items() if shapes[name] != shape} == {
        "head.1.weight": (45, 544), "head.1.bias": (45,),
    }  # fmt: skip
    assert set(shapes) == set(other)
    assert PoseFormer.recognise(other)["num_joints_out"] == 15
    # A checkpoint from before the argument existed was trained with as many joints out as in.
    assert unstated.arguments == same.arguments and unstated.signature == same.signature


def test_recognise_leaves_the_frequency_branch_to_its_successor() -> None:
    shapes = {name: tuple(t.shape) for name, t in PoseFormer(**small()).state_dict().items()}
    assert PoseFormer.recognise(shapes) is not None
    assert PoseFormer.recognise({**shapes, "Freq_embedding.weight": (4, 6)}) is None
