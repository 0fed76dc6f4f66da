"""DSTformer: contract, sizes, and a plain loop as oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.errors import ConfigError, DataError
from kinema.models.dstformer import DSTBlock, DSTformer
from kinema.models.layers.stream_mix import StreamMix
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 5,
        "num_joints": 4,
        "in_channels": 3,
        "dim": 8,
        "dim_rep": 6,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "qkv_bias": True,
        "att_fuse": True,
        "dropout": 0.0,
        "attn_dropout": 0.0,
        "drop_path": 0.0,
    }
    return {**values, **changes}


CASES = (
    small(),
    small(num_frames=9, num_joints=21, dim=12, num_heads=3, depth=3, mlp_ratio=4, att_fuse=False, drop_path=0.2),
    small(num_frames=1, in_channels=2, depth=1, mlp_ratio=2.5, qkv_bias=False, dropout=0.1, attn_dropout=0.1),
)


def test_keeps_the_model_contract() -> None:
    check_model(DSTformer, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(DSTformer, small(depth=1), compile_backend="inductor")


@pytest.mark.parametrize(
    ("name", "joints", "parameters"),
    [("dstformer", 17, 42_466_317), ("dstformer_lite", 17, 16_001_549), ("dstformer_tiny", 17, None)],
)
def test_yaml_sizes_are_the_published_ones(name: str, joints: int, parameters: int | None) -> None:
    with torch.device("meta"):
        model = DSTformer(**arguments(name, joints))
    count = sum(p.numel() for p in model.parameters())
    assert count == parameters if parameters else count < 1_000_000


@pytest.mark.parametrize("att_fuse", [True, False])
def test_equals_a_plain_loop(att_fuse: bool) -> None:
    model = DSTformer(**small(att_fuse=att_fuse)).double().eval()
    oracle.scatter(model)
    pose = torch.randn(2, 4, 4, 3, dtype=torch.float64)
    expected = torch.stack([oracle.dstformer(clip, model.state_dict(), 2) for clip in pose])
    torch.testing.assert_close(model(pose), expected, rtol=1e-10, atol=1e-10)


def test_starts_from_the_mean_of_both_streams() -> None:
    mix = DSTformer(**small()).ts_attn
    assert mix is not None
    st, ts = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(mix[0](st, ts), (st + ts) / 2)


def test_initial_weights_follow_the_publication() -> None:
    model = DSTformer(**small(dim=64, num_heads=4))
    assert 0.018 < model.blocks_st[0].mlp_s.fc1.weight.std().item() < 0.022
    assert 0.015 < model.temp_embed.std().item() < 0.025
    assert not model.blocks_ts[1].attn_t.qkv.bias.any()
    assert not model.ts_attn[0].weight.any()
    assert model.norm.eps == 1e-6


def test_mixing_stays_exact_where_logits_are_far_apart() -> None:
    mix = StreamMix(3)
    with torch.no_grad():
        mix.weight.mul_(300)
    st, ts = torch.randn(5, 3), torch.randn(5, 3)
    shares = torch.softmax(torch.nn.functional.linear(torch.cat([st, ts], -1), mix.weight, mix.bias), -1)
    torch.testing.assert_close(mix(st, ts), shares[:, :1] * st + shares[:, 1:] * ts, rtol=1e-4, atol=1e-4)


def test_drop_path_counts_every_frame_as_a_sample() -> None:
    block = DSTBlock(4, 2, 8, temporal_first=False, qkv_bias=True, dropout=0.0, attn_dropout=0.0, drop_path=0.5)
    x = torch.randn(2, 50, 3, 4)
    moved = (block.drop_path(x) != x).flatten(2)
    dropped = (block.drop_path(x) == 0).flatten(2).all(2)
    assert moved.any()
    assert 20 < dropped.sum() < 80  # of 100 frames at rate 0.5
    assert not dropped[0].all() and not dropped[1].all()


def test_rates_rise_linearly_and_are_shared_by_both_streams() -> None:
    model = DSTformer(**small(depth=3, drop_path=0.3))
    for stream in (model.blocks_st, model.blocks_ts):
        assert [block.drop_path.rate for block in stream] == pytest.approx([0.0, 0.15, 0.3])


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((1, 6, 4, 3), ConfigError, "at most 5 frames"),
        ((1, 5, 5, 3), DataError, "J=4"),
        ((1, 5, 4, 2), DataError, "C=3"),
        ((5, 4, 3), DataError, "4 axes"),
    ],
)
def test_refuses_what_it_was_not_built_for(shape: tuple[int, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        DSTformer(**small())(torch.zeros(shape))


def test_refuses_heads_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="3 heads"):
        DSTformer(**small(num_heads=3))


def test_recognise_answers_none_for_parts_of_it() -> None:
    shapes: dict[str, Tensor] = DSTformer(**small()).state_dict()
    names = {name: tuple(tensor.shape) for name, tensor in shapes.items()}
    assert DSTformer.recognise({f"backbone.{name}": shape for name, shape in names.items()}) is None
    assert DSTformer.recognise({}) is None
    assert DSTformer.recognise({**names, "temp_embed": (5, 8)}) is None
