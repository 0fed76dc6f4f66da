"""PoseMamba: contract, true sizes, and a plain loop as oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.errors import ConfigError
from kinema.models.layers.ss2d import BiSTSSM
from kinema.models.posemamba import PoseMamba
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments

# Joint added to each joint, as released.
PARTNERS = [0, 0, 1, 2, 3, 0, 4, 5, 6, 8, 11, 12, 13, 8, 14, 15, 16]


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 2,
        "num_joints": 17,
        "in_channels": 2,
        "dim": 8,
        "depth": 2,
        "d_state": 2,
        "d_conv": 3,
        "expand": 2,
        "mlp_ratio": 2,
        "drop_path": 0.0,
        "scan_backend": "auto",
    }
    return {**values, **changes}


CASES = (small(), small(num_frames=1, in_channels=3, dim=20, depth=1, d_state=3, d_conv=1, expand=1, mlp_ratio=2.5))


@pytest.mark.parametrize("options", CASES, ids=["two", "one"])
def test_keeps_the_model_contract(options: dict[str, Any]) -> None:
    check_model(PoseMamba, options)


@pytest.mark.parametrize(("name", "parameters"), [("s", 1_470_211), ("b", 4_742_659), ("l", 9_450_499)])
def test_yaml_sizes_are_those_of_the_released_configs(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = PoseMamba(**arguments(f"posemamba_{name}"))
    assert sum(p.numel() for p in model.parameters()) == parameters
    # What the authors' counter sees: no bare parameters.
    seen = sum(
        p.numel() for m in model.modules() for p in m.parameters(False) if not isinstance(m, (BiSTSSM, PoseMamba))
    )
    assert round(seen / 1e6, 2) == {"s": 0.86, "b": 3.36, "l": 6.71}[name]


@pytest.mark.parametrize("options", CASES, ids=["two", "one"])
def test_equals_a_plain_loop(options: dict[str, Any]) -> None:
    model = PoseMamba(**options).double().eval()
    oracle.scatter(model)
    pose = torch.randn(2, options["num_frames"], 17, options["in_channels"], dtype=torch.float64)
    expected = torch.stack([oracle_lift(clip, model.state_dict(), options["depth"]) for clip in pose])
    torch.testing.assert_close(model(pose), expected, rtol=1e-9, atol=1e-9)


def test_refuses_other_skeletons_and_even_convolutions() -> None:
    with pytest.raises(ConfigError, match="H36M, not for 16"):
        PoseMamba(**small(num_joints=16))
    with pytest.raises(ConfigError, match="even side 4"):
        PoseMamba(**small(d_conv=4))
    with pytest.raises(ConfigError, match="no backend"):
        PoseMamba(**small(scan_backend="fast"))


def test_decay_rates_and_skips_are_not_decayed() -> None:
    model = PoseMamba(**small())
    free = {name for name, p in model.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert free == {name for name, _ in model.named_parameters() if name.endswith((".A_logs", ".Ds"))}


def oracle_lift(pose: Tensor, state: oracle.State, depth: int) -> Tensor:
    """One clip (T, J, C) to (T, J, 3)."""
    x = oracle.linear(pose, oracle.part(state, "Spatial_patch_to_embedding")) + state["Spatial_pos_embed"][0]
    for i in range(depth):
        for name, kind in (("STEblocks", "Spatial"), ("TTEblocks", "Temporal")):
            block = oracle.part(state, f"{name}.{i}")
            x = x + oracle_mix(oracle.norm(x, oracle.part(block, "norm"), 1e-6), oracle.part(block, "op"))
            x = x + oracle.mlp(oracle.norm(x, oracle.part(block, "norm2"), 1e-6), oracle.part(block, "mlp"))
            x = oracle.norm(x, oracle.part(state, f"{kind}_norm"), 1e-6)
            if i == 0 and kind == "Spatial":
                x = x + state["Temporal_pos_embed"][0, : len(x), None]
    return oracle.linear(oracle.norm(x, oracle.part(state, "head.0"), 1e-5), oracle.part(state, "head.1"))


def oracle_mix(x: Tensor, state: oracle.State) -> Tensor:
    """The four scans of one clip (T, J, C), token by token."""
    frames, joints, _ = x.shape
    inner, gate = oracle.linear(x, oracle.part(state, "in_proj")).chunk(2, dim=-1)
    weights = state["conv2d.weight"][:, 0]
    half = weights.shape[1] // 2
    plane = torch.zeros_like(inner) + state["conv2d.bias"]
    for t in range(frames):
        for j in range(joints):
            for dt in range(-half, half + 1):
                for dj in range(-half, half + 1):
                    if 0 <= t + dt < frames and 0 <= j + dj < joints:
                        plane[t, j] = plane[t, j] + weights[:, dt + half, dj + half] * inner[t + dt, j + dj]
    plane = plane * torch.sigmoid(plane)
    by_frame = [(t, j) for t in range(frames) for j in range(joints)]
    by_joint = [(t, j) for j in range(joints) for t in range(frames)]
    total = torch.zeros_like(plane)
    for k, order in enumerate((by_frame, by_joint, by_frame[::-1], by_joint[::-1])):
        width = plane.shape[-1]
        a = -state["A_logs"][k * width : (k + 1) * width].exp()
        skip = state["Ds"][k * width : (k + 1) * width]
        memory = a.shape[1]
        rank = state["x_proj_weight"].shape[1] - 2 * memory
        hidden = torch.zeros_like(a)
        for t, j in order:
            u = plane[t, j] + plane[t, PARTNERS[j]] if k % 2 == 0 else plane[t, j]
            projected = state["x_proj_weight"][k] @ u
            step = (state["dt_projs_weight"][k] @ projected[:rank] + state["dt_projs_bias"][k]).exp().log1p()
            b, c = projected[rank : rank + memory], projected[rank + memory :]
            hidden = (step[:, None] * a).exp() * hidden + (step * u)[:, None] * b
            total[t, j] = total[t, j] + (hidden * c).sum(1) + skip * u
    out = oracle.norm(total, oracle.part(state, "out_norm"), 1e-5) * gate * torch.sigmoid(gate)
    return oracle.linear(out, oracle.part(state, "out_proj"))
