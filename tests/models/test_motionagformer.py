"""MotionAGFormer: contract, published sizes, plain loops as oracle, graphs and their limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.errors import ConfigError
from kinema.inference.complexity import count_macs
from kinema.models.layers import graph
from kinema.models.layers.attention import attend, attend_in_parts
from kinema.models.motionagformer import NEIGHBOURS, MotionAGFormer
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments

EDGES = [[0, 1], [1, 2], [1, 3]]


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
        "qkv_scale": None,
        "layer_scale": 1e-5,
        "adaptive_fusion": True,
        "hierarchical": False,
        "graph_only": False,
        "temporal_graph": "similarity",
        "neighbours": 2,
        "connection_len": 1,
        "use_tcn": False,
        "edges": EDGES,
        "dropout": 0.0,
        "attn_dropout": 0.0,
        "drop_path": 0.0,
    }
    return {**values, **changes}


CASES = (
    small(),
    small(num_frames=9, num_joints=17, edges=None, dim=12, num_heads=3, depth=1, mlp_ratio=4, temporal_graph="fixed"),
    small(num_frames=3, in_channels=2, graph_only=True, qkv_bias=False, qkv_scale=0.3, adaptive_fusion=False),
    small(num_frames=243, dim=16, depth=1, use_tcn=True, hierarchical=True, adaptive_fusion=False, layer_scale=None),
    small(num_frames=7, depth=1, graph_only=True, hierarchical=True, adaptive_fusion=False, temporal_graph="fixed"),
    small(neighbours=3, dropout=0.1, attn_dropout=0.1, drop_path=0.2, layer_scale=None),
)


def test_keeps_the_model_contract() -> None:
    check_model(MotionAGFormer, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(MotionAGFormer, small(depth=1), compile_backend="inductor")


@pytest.mark.parametrize(
    ("name", "frames", "parameters"),
    [
        ("motionagformer", 243, 11_723_811),
        ("motionagformer_xs", 27, 2_241_531),
        ("motionagformer_s", 81, 4_817_119),
        ("motionagformer_b", 243, 11_723_811),
        ("motionagformer_l", 243, 19_007_111),
    ],
)
def test_yaml_sizes_are_the_published_ones(name: str, frames: int, parameters: int) -> None:
    with torch.device("meta"):
        model = MotionAGFormer(**arguments(name))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert (model.signature.frames, model.signature.frames_rule) == (frames, "exact")


@pytest.mark.parametrize(("size", "published"), [("xs", 1.0e9), ("s", 6.6e9), ("b", 48.3e9), ("l", 78.3e9)])
def test_linear_layers_cost_what_was_published(size: str, published: float) -> None:
    with torch.device("meta"):
        model = MotionAGFormer(**arguments(f"motionagformer_{size}")).eval()
    # Published numbers leave the attention products out and are rounded.
    assert count_macs(model).kinds["linear"] == pytest.approx(published, rel=0.015)


# The network once more, one node at a time.


def batch_norm(x: Tensor, state: oracle.State, axis: int) -> Tensor:
    shape = [1] * x.ndim
    shape[axis] = -1
    scale = state["weight"] / (state["running_var"] + 1e-5).sqrt()
    return (x - state["running_mean"].reshape(shape)) * scale.reshape(shape) + state["bias"].reshape(shape)


def slow_convolution(nodes: Tensor, state: oracle.State, linked: list[list[int]]) -> Tensor:
    """One graph (N, C); `linked` holds the nodes that each node sees."""
    spread = oracle.linear(nodes, oracle.part(state, "V"))
    mixed = oracle.linear(nodes, oracle.part(state, "U"))
    for a, row in enumerate(linked):
        for b in row:
            mixed[a] = mixed[a] + spread[b] / math.sqrt(len(row) * len(linked[b]))
    return (nodes + batch_norm(mixed, oracle.part(state, "batch_norm"), 0)).clamp_min(0)


def alike(nodes: Tensor, count: int) -> list[list[int]]:
    rows = []
    for a in range(len(nodes)):
        products = [float(nodes[a] @ nodes[b]) for b in range(len(nodes))]
        least = sorted(products)[-count]
        rows.append([b for b, product in enumerate(products) if product >= least])
    return rows


def slow_tcn(x: Tensor, state: oracle.State) -> Tensor:
    """(T, J, C), branch by branch and frame by frame."""
    frames = len(x)
    outs = []
    for number in range(4):
        branch = oracle.part(state, f"branches.{number}")
        hidden = x @ branch["0.weight"][:, :, 0, 0].T + branch["0.bias"]
        hidden = batch_norm(hidden, oracle.part(branch, "1"), -1)
        if number < 2:
            hidden = hidden.clamp_min(0)
            weight, steps = branch["3.conv.weight"][..., 0], number + 1
            out = torch.zeros_like(hidden) + branch["3.conv.bias"]
            for t in range(frames):
                for k in range(5):
                    source = t + (k - 2) * steps
                    if 0 <= source < frames:
                        out[t] += hidden[source] @ weight[:, :, k].T
            hidden = batch_norm(out, oracle.part(branch, "3.bn"), -1)
        elif number == 2:
            hidden = hidden.clamp_min(0)
            hidden = torch.stack([hidden[max(t - 1, 0) : t + 2].amax(0) for t in range(frames)])
            hidden = batch_norm(hidden, oracle.part(branch, "4"), -1)
        outs.append(hidden)
    return x + torch.cat(outs, dim=-1)


def slow(pose: Tensor, model: MotionAGFormer) -> Tensor:
    """One clip (T, J, C) to (T, J, 3)."""
    told, state = model.arguments, model.state_dict()
    frames, joints = pose.shape[:2]
    links: list[list[int]] = [[] for _ in range(joints)]
    for a, b in told["edges"]:
        links[a].append(b)
        links[b].append(a)
    ahead = [list(range(t, min(t + told["connection_len"], frames - 1) + 1)) for t in range(frames)]

    def mixer(x: Tensor, block: oracle.State, kind: str) -> Tensor:
        out = torch.zeros_like(x)
        if kind == "graph_temporal" and told["use_tcn"]:
            return slow_tcn(x, block)
        for i in range(frames if kind.endswith("spatial") else joints):
            at: Any = i if kind.endswith("spatial") else (slice(None), i)
            if kind.startswith("att"):
                out[at] = oracle.attention(x[at], block, told["num_heads"])
            elif kind == "graph_spatial":
                out[at] = slow_convolution(x[at], block, links)
            else:
                linked = alike(x[at], told["neighbours"]) if told["temporal_graph"] == "similarity" else ahead
                out[at] = slow_convolution(x[at], block, linked)
        return out

    def part(x: Tensor, layer: oracle.State, kind: str) -> Tensor:
        block = oracle.part(layer, kind)
        if told["graph_only"] and kind.startswith("graph"):
            return mixer(x, block, kind)
        scales = [block.get(f"layer_scale_{n}", torch.ones(())) for n in (1, 2)]
        normed = oracle.norm(x, oracle.part(block, "norm1"), 1e-5)
        x = x + scales[0] * mixer(normed, oracle.part(block, "mixer"), kind)
        return x + scales[1] * oracle.mlp(oracle.norm(x, oracle.part(block, "norm2"), 1e-5), oracle.part(block, "mlp"))

    def stream(x: Tensor, layer: oracle.State, kind: str) -> Tensor:
        return part(part(x, layer, f"{kind}_spatial"), layer, f"{kind}_temporal")

    x = oracle.linear(pose, oracle.part(state, "joints_embed")) + state["pos_embed"]
    for depth in range(told["depth"]):
        layer = oracle.part(state, f"layers.{depth}")
        if told["hierarchical"]:
            half = x.shape[-1] // 2
            attended = stream(x[..., :half], layer, "att")
            x = torch.cat([attended, stream(x[..., half:] + attended, layer, "graph")], dim=-1)
            continue
        both = [stream(x, layer, "att"), stream(x, layer, "graph")]
        shares = torch.full((2,), 0.5).to(x)
        if told["adaptive_fusion"]:
            shares = oracle.linear(torch.cat(both, -1), oracle.part(layer, "fusion")).exp()
            shares = shares / shares.sum(-1, keepdim=True)
        x = both[0] * shares[..., :1] + both[1] * shares[..., 1:]
    x = oracle.linear(oracle.norm(x, oracle.part(state, "norm"), 1e-5), oracle.part(state, "rep_logit.fc"))
    return oracle.linear(x.tanh(), oracle.part(state, "head"))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="published"),
        pytest.param({"temporal_graph": "fixed", "connection_len": 2, "adaptive_fusion": False}, id="fixed"),
        pytest.param({"graph_only": True, "neighbours": 3}, id="graph only"),
        pytest.param({"hierarchical": True, "dim": 12, "layer_scale": None}, id="hierarchical"),
        pytest.param({"use_tcn": True, "layer_scale": None}, id="tcn"),
        pytest.param({"use_tcn": True, "graph_only": True, "hierarchical": True}, id="everything"),
    ],
)
def test_equals_plain_loops(changes: dict[str, Any]) -> None:
    model = MotionAGFormer(**small(**changes)).double().eval()
    oracle.scatter(model)
    pose = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    expected = torch.stack([slow(clip, model) for clip in pose])
    torch.testing.assert_close(model(pose), expected, rtol=1e-9, atol=1e-9)


def test_the_scale_of_the_logits_counts() -> None:
    plain, scaled = (MotionAGFormer(**small(qkv_scale=scale)).eval() for scale in (None, 0.1))
    oracle.scatter(plain)
    scaled.load_state_dict(plain.state_dict())
    same = MotionAGFormer(**small(qkv_scale=4**-0.5)).eval()
    same.load_state_dict(plain.state_dict())
    pose = torch.randn(1, 5, 4, 3)
    torch.testing.assert_close(plain(pose), same(pose))
    assert not torch.allclose(plain(pose), scaled(pose), atol=1e-4)


def test_fresh_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    model = MotionAGFormer(**small(dim=64, depth=1))
    layer = model.layers[0]
    for name in ("U", "V"):
        weight = getattr(layer.graph_spatial.mixer, name).weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    assert not layer.fusion.weight.any()
    assert (layer.fusion.bias == 0.5).all()
    assert (layer.att_spatial.layer_scale_1 == 1e-5).all()
    pose = torch.randn(1, 5, 4, 3)
    x = model.joints_embed(pose)
    torch.testing.assert_close(layer(x), (layer.attend(x) + layer.convolve(x)) / 2)


def test_a_clip_has_exactly_the_frames_of_the_graph() -> None:
    with pytest.raises(ConfigError, match="takes 5 frames at a time, not 4"):
        MotionAGFormer(**small())(torch.zeros(1, 4, 4, 3))
    model = MotionAGFormer(**small(use_tcn=True))
    assert model(torch.zeros(1, 4, 4, 3)).shape == (1, 4, 4, 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edges": None}, r"graph has 17 joints, not 4\. .*model\.edges=\[\[0,1\]"),
        ({"edges": [[0, 1], [1, 4], [2, 3]]}, r"edge \[1, 4\] links no two of 4 joints"),
        ({"edges": [[0, 1], [1, 2]]}, r"links nothing to the joints \[3\]"),
        ({"neighbours": 6}, "6 neighbours among 5 nodes"),
        ({"temporal_graph": "chain"}, "temporal_graph='chain' is unknown"),
        ({"hierarchical": True, "dim": 9, "num_heads": 1}, "9 channels cannot be halved"),
        ({"use_tcn": True, "dim": 6}, "6 channels do not divide into the 4 branches"),
        ({"num_heads": 3}, "do not divide into 3 heads"),
    ],
)
def test_impossible_sizes_are_sentences(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        MotionAGFormer(**small(**changes))


def test_similarity_ties_add_edges_and_carry_no_gradient() -> None:
    x = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]], requires_grad=True)
    linked = graph.similarity_adjacency(x, 2)
    assert linked.tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert not linked.requires_grad


def test_similarity_is_not_rounded_under_autocast() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 27, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = graph.similarity_adjacency(x, 2)
    assert torch.equal(found, graph.similarity_adjacency(x, 2))
    assert not torch.equal(found, graph.similarity_adjacency(x.bfloat16(), 2).float()), "the case must tell them apart"


def test_the_published_table_lacks_three_links() -> None:
    linked = graph.neighbour_adjacency(NEIGHBOURS)
    absent = (linked < linked.T).nonzero().tolist()
    assert absent == [[0, 4], [8, 11], [8, 14]]
    assert linked.trace() == 0


def test_adjacency_has_normalised_rows_and_a_diagonal_of_one() -> None:
    found = graph.row_normalised_adjacency(graph.parent_edges([-1, 0, 0, 2]), 5)
    third = [0.5, 0, 1, 0.5, 0]
    assert found.tolist() == [[1, 0.5, 0.5, 0, 0], [1, 1, 0, 0, 0], third, [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]


def test_chains_reach_as_far_as_their_steps() -> None:
    assert graph.chain_edges(4) == [(0, 1), (1, 2), (2, 3)]
    assert graph.chain_edges(4, (1, 2)) == [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]
    assert graph.chain_edges(1) == []


def test_a_convolution_takes_one_kind_of_graph() -> None:
    with pytest.raises(ConfigError, match="a fixed adjacency or a number of neighbours"):
        graph.GraphConvolution(4, 3)


def test_parts_of_a_long_batch_take_the_same_scale() -> None:
    query, key, value = torch.randn(3, 5, 2, 4, 3).unbind(0)
    whole = attend(query, key, value, 0.0, scale=0.3)
    torch.testing.assert_close(attend_in_parts(query, key, value, 0.0, 2, scale=0.3), whole)
    assert not torch.allclose(attend(query, key, value, 0.0), whole, atol=1e-3)
