"""HMSFT (our own design): contract, sizes, plain loops as oracle, distances and parts, a first bit of learning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kinema
from kinema.core.skeleton import SKELETONS, skeleton
from kinema.errors import CheckpointError, ConfigError
from kinema.inference.complexity import count_macs
from kinema.inference.slide import pad_edges, slide
from kinema.models.hmsft import HMSFT, FrequencyTemporalBlock, GraphBlock, ScaleDCT
from kinema.tasks.optim import parameter_groups
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments

DIVIDED = [name for name, body in SKELETONS.items() if "parts" in body.tables]


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 9,
        "num_joints": 17,
        "num_joints_out": 17,
        "in_channels": 2,
        "skeleton": "h36m17",
        "dim": 2,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "joint_depth": 1,
        "part_depth": 2,
        "part_ratio": 3,
        "kept_frames": 5,
        "kept_coeffs": 4,
        "dropout": 0.0,
        "drop_path": 0.0,
    }
    return {**values, **changes}


HUMANEVA = {"num_joints": 15, "num_joints_out": 15, "skeleton": "humaneva15"}
CASES = (
    small(),
    small(**HUMANEVA, num_frames=27, in_channels=3, dim=4, depth=1, joint_depth=2, part_depth=1, mlp_ratio=1.5,
          kept_frames=9, kept_coeffs=3, dropout=0.1, drop_path=0.1),
    small(skeleton="coco17", num_joints_out=15, kept_frames=1, num_heads=1),
    small(skeleton="mpi_inf_3dhp17", depth=1, kept_frames=9, kept_coeffs=9),
)  # fmt: skip
IDS = ["h36m", "humaneva", "coco_in", "3dhp"]


@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_keeps_the_model_contract(options: dict[str, Any]) -> None:
    check_model(HMSFT, options)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(HMSFT, small(depth=1), compile_backend="inductor")


def full(joints: int = 17, **changes: Any) -> HMSFT:
    """The size of the yaml on the meta device."""
    with torch.device("meta"):
        return HMSFT(**{**arguments("hmsft", joints), **changes})


@pytest.mark.parametrize(
    ("changes", "joints", "groups", "parameters", "mmac"),
    [
        ({"num_frames": 9}, 17, [9, 3, 1, 9], 15_373_632, 244),
        ({"num_frames": 27}, 17, [27, 9, 3, 9], 15_390_682, 570),
        ({}, 17, [27, 27, 9, 9], 15_412_402, 1038),
        ({}, 15, [27, 27, 9, 9], 12_179_292, 872),
        ({"num_frames": 243}, 17, [27, 81, 27, 9], 15_477_562, 2655),
        ({"depth": 3}, 17, [27, 27, 9, 9], 11_852_466, 860),
        ({"dim": 16}, 17, [27, 27, 9, 9], 3_911_410, 276),
    ],
)
def test_parameters_and_multiply_accumulates(
    changes: dict[str, int], joints: int, groups: list[int], parameters: int, mmac: int
) -> None:
    model = full(joints, **changes)
    assert model.group_sizes == groups
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert count_macs(model).total / 1e6 == pytest.approx(mmac, rel=0.01)


def test_every_part_has_its_share_of_the_parameters() -> None:
    found: Counter[str] = Counter()
    for name, parameter in full().named_parameters():
        head = name.split(".")[0]
        found["positions" if head.endswith("_pos") else head] += parameter.numel()
    assert found == {
        "joint_embed": 96,
        "joint_blocks": 34_320,
        "joint_norm": 64,
        "part_embed": 70_272,
        "part_blocks": 529_952,
        "part_norm": 256,
        "part_to_body": 348_704,
        "freq_embed": 19_040,
        "body_blocks": 14_239_744,
        "body_norm": 1_088,
        "pools": 76,
        "body_head": 115_379,
        "joint_head": 99,
        "positions": 53_312,
    }


def test_the_distance_of_3dhp_joints_needs_no_other_parameters() -> None:
    assert sum(p.numel() for p in full(skeleton="mpi_inf_3dhp17", skeleton_out=None).parameters()) == 15_412_402


def test_starts_from_zero_embeddings_and_biases_and_keeps_the_epsilons() -> None:
    model = HMSFT(**small())
    zeros = {name for name, p in model.named_parameters() if not p.any()}
    norms = {name: m.eps for name, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert {n for n in zeros if not n.endswith(".bias")} == {
        "joint_pos", "joint_time_pos", "part_pos", "part_time_pos", "token_pos",
        "joint_blocks.0.hop_bias", "part_blocks.0.hop_bias", "part_blocks.1.hop_bias",
    }  # fmt: skip
    assert norms.pop("body_head.0") == 1e-5
    assert set(norms.values()) == {1e-6}


def test_distance_biases_are_not_decayed() -> None:
    model = HMSFT(**small())
    groups = parameter_groups(model, None)
    free = {id(p) for group in groups if group.get("weight_decay") == 0.0 for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) in free} == {
        "joint_blocks.0.hop_bias", "part_blocks.0.hop_bias", "part_blocks.1.hop_bias",
    }  # fmt: skip


def test_stochastic_depth_rises_in_every_level_and_knows_its_samples() -> None:
    model = HMSFT(**small(joint_depth=2, drop_path=0.2))
    for level in (model.joint_blocks, model.part_blocks):
        assert [block.spatial.drop_path.rate for block in level] == [0.0, 0.2]
        assert [block.temporal.drop_path.rate for block in level] == [0.0, 0.2]
        assert {part.drop_path.sample_axes for block in level for part in (block.spatial, block.temporal)} == {2}
    assert [block.drop_path.rate for block in model.body_blocks] == [0.0, 0.2]
    assert {block.drop_path.sample_axes for block in model.body_blocks} == {1}


# Body parts and distances.


@pytest.mark.parametrize("name", DIVIDED)
def test_parts_hold_every_joint_once(name: str) -> None:
    body = skeleton(name)
    parts = body.partition()
    assert len(parts) == 5
    assert sorted(joint for part in parts.values() for joint in part) == list(range(len(body)))
    mirrored = {frozenset(body.flip_index[joint] for joint in part) for part in parts.values()}
    assert mirrored == {frozenset(part) for part in parts.values()}


def test_parts_are_those_of_the_design() -> None:
    assert list(skeleton("h36m17").partition().values()) == [
        (0, 7, 8, 9, 10), (1, 2, 3), (4, 5, 6), (11, 12, 13), (14, 15, 16),
    ]  # fmt: skip
    assert list(skeleton("humaneva15").partition().values()) == [
        (0, 1, 14), (2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13),
    ]  # fmt: skip
    limbs = skeleton("mpi_inf_3dhp17")
    for name, part in limbs.partition().items():
        if name != "torso":
            side = name.split("_")[0]
            assert all(limbs.joints[joint].startswith(side) for joint in part)


@pytest.mark.parametrize("name", sorted(SKELETONS))
def test_distances_are_shortest_ways_over_bones(name: str) -> None:
    body = skeleton(name)
    links = {joint: set() for joint in range(len(body))}
    for child, parent in body.bones:
        links[child].add(parent)
        links[parent].add(child)
    for start in range(len(body)):
        reached, distance, found = {start}, 0, {start: 0}
        while reached:
            distance += 1
            reached = {other for joint in reached for other in links[joint]} - set(found)
            found.update(dict.fromkeys(reached, distance))
        assert [found[joint] for joint in range(len(body))] == list(body.hops[start])


@pytest.mark.parametrize(("name", "longest"), [("h36m17", 8), ("humaneva15", 7), ("mpi_inf_3dhp17", 8)])
def test_the_longest_way_decides_the_number_of_biases(name: str, longest: int) -> None:
    joints = len(skeleton(name))
    model = HMSFT(**small(skeleton=name, num_joints=joints, num_joints_out=joints))
    assert model.joint_blocks[0].hop_bias.shape == (2, longest + 1)
    assert model.part_blocks[0].hop_bias.shape == (2, 2)


def test_a_bias_shuts_joints_out_by_their_distance() -> None:
    body = skeleton("h36m17")
    block = GraphBlock(4, 2, 8, body.hops, dropout=0.0, drop_path=0.0).eval()
    oracle.scatter(block)
    with torch.no_grad():
        block.hop_bias[:, 2:] = -1e9
        x = torch.randn(1, 3, 17, 4)
        moved = x.clone()
        moved[:, :, body.index("right_knee"), 0] += 1.0  # not all channels, which a norm would take away
        changed = (block(moved) - block(x)).abs().amax(dim=(0, 1, 3)) > 1e-6
    assert {body.joints[i] for i in changed.nonzero().flatten()} == {"right_hip", "right_knee", "right_ankle"}


# A slow form of every part.


@pytest.fixture
def double() -> Iterator[None]:
    """Parameters and constants in float64 from the start."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def oracle_transformer(x: Tensor, state: oracle.State, heads: int, bias: Tensor | None = None) -> Tensor:
    normed = oracle.norm(x, oracle.part(state, "norm1"), 1e-6)
    x = x + oracle.attention(normed, oracle.part(state, "attn"), heads, bias)
    return x + oracle.mlp(oracle.norm(x, oracle.part(state, "norm2"), 1e-6), oracle.part(state, "mlp"))


def oracle_graph_block(x: Tensor, state: oracle.State, heads: int, hops: list[list[int]]) -> Tensor:
    """One window of tokens (F, N, C), frame by frame, then token by token."""
    bias = torch.stack([torch.stack([head[torch.tensor(row)] for row in hops]) for head in state["hop_bias"]])
    x = torch.stack([oracle_transformer(frame, oracle.part(state, "spatial"), heads, bias) for frame in x])
    tracks = [oracle_transformer(x[:, n], oracle.part(state, "temporal"), heads) for n in range(x.shape[1])]
    return torch.stack(tracks, dim=1)


def oracle_dct(x: Tensor) -> Tensor:
    """Orthonormal DCT-II along the first axis, term by term."""
    count = len(x)
    rows = []
    for k in range(count):
        total = sum(x[m] * math.cos(math.pi * k * (2 * m + 1) / (2 * count)) for m in range(count))
        rows.append(total * math.sqrt((1 if k == 0 else 2) / count))
    return torch.stack(rows)


def oracle_inverse_dct(x: Tensor) -> Tensor:
    count = len(x)
    rows = []
    for m in range(count):
        total = x[0] / math.sqrt(count)
        for k in range(1, count):
            total = total + x[k] * math.sqrt(2 / count) * math.cos(math.pi * k * (2 * m + 1) / (2 * count))
        rows.append(total)
    return torch.stack(rows)


def oracle_frequency_block(groups: list[Tensor], state: oracle.State, heads: int) -> list[Tensor]:
    """Three time scales and the frequencies of one window, each (N, C)."""
    x = torch.cat(groups)
    x = x + oracle.attention(oracle.norm(x, oracle.part(state, "norm1"), 1e-6), oracle.part(state, "attn"), heads)
    out = []
    for number, group in enumerate(x.split([len(group) for group in groups])):
        if number < 3:
            spectrum = oracle_dct(oracle.norm(group, oracle.part(state, "norm2"), 1e-6))
            out.append(group + oracle_inverse_dct(oracle.mlp(spectrum, oracle.part(state, "mlp_time"))))
        else:
            normed = oracle.norm(group, oracle.part(state, "norm3"), 1e-6)
            out.append(group + oracle.mlp(normed, oracle.part(state, "mlp_freq")))
    return out


def oracle_hmsft(pose: Tensor, model: HMSFT) -> Tensor:
    """One window (F, J, C) to (1, J', 3), from the text of the design."""
    options, state = model.arguments, model.state_dict()
    body = skeleton(options["skeleton"])
    heads, frames = options["num_heads"], len(pose)
    joints = oracle.linear(pose, oracle.part(state, "joint_embed")) + state["joint_pos"][0] + state["joint_time_pos"][0]
    for level in range(options["joint_depth"]):
        hops = [list(row) for row in body.hops]
        joints = oracle_graph_block(joints, oracle.part(state, f"joint_blocks.{level}"), heads, hops)
    joints = oracle.norm(joints, oracle.part(state, "joint_norm"), 1e-6)
    tokens = []
    for frame in joints:
        tokens.append(
            torch.stack(
                [
                    oracle.linear(torch.cat([frame[joint] for joint in part]), oracle.part(state, f"part_embed.{name}"))
                    for name, part in body.tables["parts"].items()
                ]
            )
        )
    parts = torch.stack(tokens) + state["part_pos"][0] + state["part_time_pos"][0]
    for level in range(options["part_depth"]):
        hops = [[int(a != b) for b in range(5)] for a in range(5)]
        parts = oracle_graph_block(parts, oracle.part(state, f"part_blocks.{level}"), heads, hops)
    parts = oracle.norm(parts, oracle.part(state, "part_norm"), 1e-6)
    bodies = joints.flatten(1) + oracle.linear(parts.flatten(1), oracle.part(state, "part_to_body"))
    kept, centre = min(options["kept_frames"], frames), frames // 2
    spectrum = oracle_dct(pose.flatten(1))[: options["kept_coeffs"]]
    groups = [
        bodies[centre - kept // 2 : centre + kept // 2 + 1],
        torch.stack([bodies[i : i + 3].mean(0) for i in range(0, frames, 3)]),
        torch.stack([bodies[i : i + 9].mean(0) for i in range(0, frames, 9)]),
        oracle.linear(spectrum, oracle.part(state, "freq_embed")),
    ]
    sizes = [len(group) for group in groups]
    groups = list((torch.cat(groups) + state["token_pos"][0]).split(sizes))
    for level in range(options["depth"]):
        groups = oracle_frequency_block(groups, oracle.part(state, f"body_blocks.{level}"), heads)
    means = []
    for name, group in zip(("fine", "mid", "coarse", "freq"), groups, strict=True):
        weights, bias = state[f"pools.{name}.weight"].flatten(), state[f"pools.{name}.bias"]
        normed = oracle.norm(group, oracle.part(state, "body_norm"), 1e-6)
        means.append(sum(w * token for w, token in zip(weights, normed, strict=True)) + bias)
    out = oracle.norm(torch.cat(means), oracle.part(state, "body_head.0"), 1e-5)
    out = oracle.linear(out, oracle.part(state, "body_head.1")).reshape(1, -1, 3)
    if "joint_head.weight" in state:
        out = out + oracle.linear(joints[centre], oracle.part(state, "joint_head"))
    return out


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "options", [CASES[0], {**CASES[1], "num_frames": 9, "joint_depth": 1, "dropout": 0.0}, CASES[2]], ids=IDS[:3]
)
def test_equals_plain_loops(options: dict[str, Any]) -> None:
    model = HMSFT(**options).eval()
    oracle.scatter(model)
    pose = torch.randn(1, options["num_frames"], options["num_joints"], options["in_channels"])
    torch.testing.assert_close(model(pose)[0], oracle_hmsft(pose[0], model), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("double")
def test_a_graph_block_equals_plain_loops() -> None:
    hops = skeleton("humaneva15").hops
    block = GraphBlock(6, 3, 12, hops, dropout=0.0, drop_path=0.0).eval()
    oracle.scatter(block)
    x = torch.randn(2, 4, 15, 6)
    expected = [oracle_graph_block(one, block.state_dict(), 3, [list(row) for row in hops]) for one in x]
    torch.testing.assert_close(block(x), torch.stack(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("sizes", [[9, 3, 1, 9], [5, 6, 2, 4]])
def test_a_frequency_temporal_block_equals_plain_loops(sizes: list[int]) -> None:
    block, dct = FrequencyTemporalBlock(8, 2, 16, dropout=0.0, drop_path=0.0).eval(), ScaleDCT(sizes[:3])
    oracle.scatter(block)
    x = torch.randn(2, sum(sizes), 8)
    expected = [torch.cat(oracle_frequency_block(list(one.split(sizes)), block.state_dict(), 2)) for one in x]
    torch.testing.assert_close(block(x, dct), torch.stack(expected), rtol=1e-10, atol=1e-10)
    time = x[:, : dct.count]
    torch.testing.assert_close(dct.inverse(dct(time)), time)


# What is refused.


@pytest.mark.parametrize(("frames", "near"), [(10, 9), (18, 9), (80, 81), (90, 81), (1, 9), (243 + 8, 243)])
def test_refuses_windows_that_scales_do_not_divide(frames: int, near: int) -> None:
    with pytest.raises(ConfigError, match=rf"no odd multiple of 9\. Use model\.num_frames={near}\."):
        HMSFT(**small(num_frames=frames))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kept_frames": 4}, r"model\.kept_frames=5"),
        ({"part_depth": 0}, r"model\.part_depth=1"),
        (
            {"skeleton": "body25", "num_joints": 25},
            "body25 is not divided into body parts. Use one of h36m17, humaneva15",
        ),
        ({"skeleton": "custom17"}, "No skeleton is called 'custom17'"),
        ({"skeleton": "humaneva15"}, r"has 15 joints, not 17\. Use model\.num_joints=15"),
        ({"num_heads": 3}, "34 channels|2 channels"),
    ],
)
def test_refuses_what_it_cannot_build(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        HMSFT(**small(**changes))


# Files.


def test_bare_weights_do_not_tell_the_order_of_their_joints(tmp_path: Path) -> None:
    model = HMSFT(**small(skeleton="mpi_inf_3dhp17")).eval()
    path = tmp_path / "weights.bin"
    torch.save(model.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"cannot tell skeleton\. Say it"):
        kinema.load(path)
    again = kinema.load(path, skeleton="mpi_inf_3dhp17")
    assert again.arguments == model.arguments
    (pose,) = model.signature.example(2)
    with torch.no_grad():
        assert torch.equal(again(pose), model(pose))
        assert not torch.equal(kinema.load(path, skeleton="h36m17")(pose), model(pose))


def test_create_builds_the_size_of_the_yaml() -> None:
    model = kinema.create("hmsft", dim=8, depth=1)
    assert isinstance(model, HMSFT)
    assert model.arguments["skeleton"] == "h36m17"


# Whole videos.


@pytest.mark.parametrize("length", [1, 5, 23])
def test_a_video_in_chunks_is_what_its_windows_give(length: int) -> None:
    model = HMSFT(**small()).double().eval()
    oracle.scatter(model)
    pose = pad_edges(torch.randn(2, length, 17, 2, dtype=torch.float64), model.signature.context)
    with torch.no_grad():
        expected = torch.cat([model(pose[:, i : i + 9]) for i in range(length)], dim=1)
    for chunk in (1, 40, 4096):
        torch.testing.assert_close(slide(model, pose, chunk=chunk), expected, rtol=1e-10, atol=1e-10)


def test_a_video_is_cut_into_batches_of_bounded_size() -> None:
    model = HMSFT(**small()).eval()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    slide(model, torch.randn(1, 108, 17, 2), chunk=90)
    assert seen == [10] * 10


# Learning.


def test_learns_the_depth_of_a_moving_arm() -> None:
    """Depth is the velocity of the picture here: only a network that looks along time can tell it."""
    torch.manual_seed(0)
    model = HMSFT(**small(dim=8, depth=1, part_depth=1, part_ratio=2)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(75):
        speed = torch.randn(32, 1, 17, 2, generator=generator) * 0.2
        start = torch.randn(32, 1, 17, 2, generator=generator) * 0.5
        pose = start + speed * (torch.arange(9.0)[:, None, None] - 4)
        target = torch.cat([start, speed.sum(-1, keepdim=True)], dim=-1)
        error = (model(pose) - target).norm(dim=-1).mean()
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        errors.append(error.item())
    assert errors[0] > 1.0
    assert sum(errors[-5:]) / 5 < 0.19  # who knows x and y exactly and guesses a depth of 0 has 0.23


def test_joints_of_another_order_get_no_residual() -> None:
    assert HMSFT(**small(skeleton_out="h36m17")).joint_head is not None
    model = HMSFT(**small(skeleton="coco17", skeleton_out="h36m17"))
    assert model.joint_head is None and model(torch.randn(1, 9, 17, 2)).shape == (1, 1, 17, 3)


def test_the_transform_keeps_its_precision_under_autocast() -> None:
    transform, x = ScaleDCT([9, 3, 1]), torch.randn(2, 13, 4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(transform.inverse(transform(x)), x, atol=1e-5, rtol=0)
