"""DBMambaPose: contract, published sizes, causality and streaming, and a plain loop as oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.errors import ConfigError, DataError
from kinema.models.dbmambapose import DBMambaPose
from kinema.models.layers.ss2d import LIMB_PARTNERS
from kinema.tasks.optim import parameter_groups
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
        "d_state": 3,
        "d_conv": 4,
        "expand": 2,
        "mlp_ratio": 3,
        "dropout": 0.0,
        "drop_path": 0.0,
        "layer_scale": 1e-5,
        "mixer": "v2",
        "divide": True,
        "streams": "single",
        "limbs": False,
        "scan_backend": "auto",
    }
    return {**values, **changes}


CASES = (
    small(),
    small(num_joints=17, limbs=True, mixer="v1", divide=False, layer_scale=None, dim=12, mlp_ratio=2.5, d_conv=2),
    small(num_frames=4, in_channels=2, mixer="official", streams="dual", depth=1, expand=1, dropout=0.1, drop_path=0.1),
)
CAUSAL = (small(mixer="official"), small(mixer="official", streams="dual", depth=3, d_conv=1, layer_scale=None))


def scattered(options: dict[str, Any]) -> DBMambaPose:
    """A model in float64 with random values everywhere."""
    model = DBMambaPose(**options).double().eval()
    oracle.scatter(model)
    return model


@pytest.mark.parametrize("options", CASES, ids=["v2", "v1", "causal"])
def test_keeps_the_model_contract(options: dict[str, Any]) -> None:
    check_model(DBMambaPose, options)


@pytest.mark.parametrize(
    ("name", "parameters"), [("xs", 1_397_187), ("s", 4_232_387), ("b", 8_702_851), ("l", 12_155_779)]
)
def test_yaml_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = DBMambaPose(**arguments(f"dbmambapose_{name}"))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "depth", "millions"), [("xs", 10, 1.4), ("s", 30, 4.2), ("b", 17, 8.7), ("l", 24, 12.2)]
)
def test_two_streams_can_meet_the_published_sizes_as_well(name: str, depth: int, millions: float) -> None:
    told = {"streams": "dual", "expand": 1, "d_state": 8, "mlp_ratio": 2, "depth": depth}
    with torch.device("meta"):
        model = DBMambaPose(**{**arguments(f"dbmambapose_{name}"), **told})
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("options", [*CASES, *CAUSAL], ids=["v2", "v1", "causal", "causal single", "causal dual"])
def test_equals_a_plain_loop(options: dict[str, Any]) -> None:
    model = scattered(options)
    pose = torch.randn(2, 4, options["num_joints"], options["in_channels"], dtype=torch.float64)
    expected = torch.stack([oracle_lift(clip, model.state_dict(), options) for clip in pose])
    torch.testing.assert_close(model(pose), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", CAUSAL, ids=["single", "dual"])
@pytest.mark.parametrize("parts", [(1,) * 11, (4, 7), (1, 5, 1, 1, 3), (11,)], ids=str)
@torch.no_grad()
def test_streams_with_the_numbers_of_forward(options: dict[str, Any], parts: tuple[int, ...]) -> None:
    model = scattered({**options, "num_frames": 11})
    pose = torch.randn(2, 11, 4, 3, dtype=torch.float64)
    state, found = model.start(2), []
    for part in pose.split(parts, dim=1):
        if part.shape[1] == 1:
            out, state = model.step(part[:, 0], state)
            found.append(out[:, None])
        else:
            out, state = model.advance(part, state)
            found.append(out)
    torch.testing.assert_close(torch.cat(found, 1), model(pose), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_state_can_be_gone_on_from_twice() -> None:
    model = scattered(CAUSAL[1])
    pose = torch.randn(1, 3, 4, 3, dtype=torch.float64)
    _, state = model.advance(pose, model.start(1))
    kept = [tuple(part.clone() for part in entry) for entry in state]
    first, _ = model.step(pose[:, 0], state)
    again, _ = model.step(pose[:, 0], state)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for old, new in zip(kept, state, strict=True) for a, b in zip(old, new, strict=True))


@torch.no_grad()
def test_a_video_may_be_longer_than_a_clip() -> None:
    model = scattered(CAUSAL[0])
    out, _ = model.advance(torch.randn(1, 40, 4, 3, dtype=torch.float64), model.start(1))
    assert out.shape == (1, 40, 4, 3)


@pytest.mark.parametrize("mixer", ["v1", "v2", "official"])
def test_only_the_official_mixer_is_blind_to_the_future(mixer: str) -> None:
    model = scattered(small(mixer=mixer))
    pose = torch.randn(1, 5, 4, 3, dtype=torch.float64)
    changed = pose.clone()
    changed[:, 3:] += 1
    same = torch.equal(model(pose)[:, :3], model(changed)[:, :3])
    assert same == model.causal == (mixer == "official")


def test_a_bidirectional_model_refuses_to_stream() -> None:
    with pytest.raises(ConfigError, match="mixer=official"):
        DBMambaPose(**small()).start(1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mixer": "v3"}, "v1, v2, official"),
        ({"streams": "triple"}, "single, dual"),
        ({"scan_backend": "fast"}, "reference"),
        ({"limbs": True}, "17 joints"),
    ],
)
def test_refuses_unknown_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DBMambaPose(**small(**changes))


def test_refuses_poses_it_was_not_built_for() -> None:
    model = DBMambaPose(**small(mixer="official"))
    with pytest.raises(ConfigError, match="at most 5 frames"):
        model(torch.zeros(1, 6, 4, 3))
    with pytest.raises(DataError, match="J=4"):
        model.advance(torch.zeros(1, 1, 5, 3), model.start(1))


def test_decay_rates_and_skips_are_not_decayed_and_step_sizes_not_redrawn() -> None:
    model = DBMambaPose(**small())
    free = {name for name, p in model.named_parameters() if getattr(p, "_no_weight_decay", False)}
    kept = {name for name, p in model.named_parameters() if getattr(p, "_no_reinit", False)}
    names = [name for name, _ in model.named_parameters()]
    assert free == {name for name in names if name.rsplit(".", 1)[-1] in ("A_log", "A_b_log", "D", "D_b")}
    assert kept == {name for name in names if name.endswith(("dt_proj.bias", "dt_proj_b.bias"))}
    assert free and kept
    groups = {group.get("weight_decay"): len(group["params"]) for group in parameter_groups(model, None)}
    assert groups == {0.0: len(free), None: len(names) - len(free)}


def oracle_lift(pose: Tensor, state: oracle.State, options: dict[str, Any]) -> Tensor:
    """One clip (T, J, C) to (T, J, 3) from section 1.3 of the design, by loops over frames and joints."""
    x = oracle.linear(pose, oracle.part(state, "joints_embed")) + state["pos_embed"][0]
    causal = options["mixer"] == "official"

    def block(x: Tensor, weights: oracle.State, over_time: bool) -> Tensor:
        normed = oracle.norm(x, oracle.part(weights, "norm1"), 1e-5)
        kind = options["mixer"] if over_time or not causal else "v2"
        mixer = oracle.part(weights, "mixer")
        if over_time:
            rows = [oracle.mamba(normed[:, j], mixer, kind, options["divide"]) for j in range(x.shape[1])]
            mixed = torch.stack(rows, dim=1)
        else:
            if options["limbs"]:
                normed = torch.stack([normed[:, j] + normed[:, k] for j, k in enumerate(LIMB_PARTNERS)], dim=1)
            mixed = torch.stack([oracle.mamba(frame, mixer, kind, options["divide"]) for frame in normed])
        x = x + weights.get("layer_scale_1", torch.ones(())) * mixed
        hidden = oracle.mlp(oracle.norm(x, oracle.part(weights, "norm2"), 1e-5), oracle.part(weights, "mlp"))
        return x + weights.get("layer_scale_2", torch.ones(())) * hidden

    for i in range(options["depth"]):
        layer = oracle.part(state, f"layers.{i}")
        first = block(block(x, oracle.part(layer, "spatial"), False), oracle.part(layer, "temporal"), True)
        if options["streams"] == "dual":
            other = oracle.part(layer, "temporal_first")
            second = block(block(x, oracle.part(other, "temporal"), True), oracle.part(other, "spatial"), False)
            shares = oracle.linear(torch.cat([first, second], -1), oracle.part(layer, "fusion")).softmax(-1)
            first = first * shares[..., :1] + second * shares[..., 1:]
        x = first
    x = oracle.linear(oracle.norm(x, oracle.part(state, "norm"), 1e-5), oracle.part(state, "rep_logit.fc")).tanh()
    return oracle.linear(x, oracle.part(state, "head"))
