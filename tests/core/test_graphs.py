"""Graphs of joints: known values, shapes of every mode, a user's own graph, refused ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinema.core.graphs import LAYOUTS, MODES, OF_SKELETON, adjacency, hop_distance, layout, own_layout
from kinema.core.skeleton import SKELETONS, skeleton
from kinema.errors import ConfigError

CHAIN = own_layout([[0, 1], [2, 1], [3, 2]], 4)  # 0 -> 1 <- 2 <- 3


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_layout_is_a_tree_that_leads_to_its_centre(name: str) -> None:
    graph = LAYOUTS[name]
    parents = dict(graph.inward)
    assert len(parents) == len(graph.inward) == graph.joints - 1
    assert own_layout(graph.inward, graph.joints).centre == graph.centre


@pytest.mark.parametrize(("name", "published"), OF_SKELETON.items())
def test_skeletons_have_their_published_layout(name: str, published: str) -> None:
    assert layout(name) is LAYOUTS[published]
    assert LAYOUTS[published].joints == len(skeleton(name))


@pytest.mark.parametrize("name", sorted(set(SKELETONS) - set(OF_SKELETON)))
def test_other_skeletons_give_their_own_tree(name: str) -> None:
    graph = layout(name)
    assert (graph.joints, graph.inward, graph.centre) == (
        len(skeleton(name)),
        skeleton(name).bones,
        skeleton(name).root,
    )


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_links_join_joints_of_one_side_or_the_middle(name: str) -> None:
    body = skeleton(next(key for key, value in OF_SKELETON.items() if value == name))
    for child, parent in LAYOUTS[name].inward:
        assert not ({child, parent} & set(body.left) and {child, parent} & set(body.right))


def test_spatial_mode_gathers_self_parent_and_children() -> None:
    itself, parent, children = adjacency(CHAIN, "spatial")
    x = np.array([1.0, 20.0, 300.0, 4000.0])
    np.testing.assert_array_equal(x @ itself, x)
    np.testing.assert_array_equal(x @ parent, [20.0, 0.0, 20.0, 300.0])
    np.testing.assert_array_equal(x @ children, [0.0, 301.0 / 2, 4000.0, 0.0])


def test_hop_distance_is_cut() -> None:
    np.testing.assert_array_equal(
        hop_distance(CHAIN, 2),
        [[0, 1, 2, np.inf], [1, 0, 1, 2], [2, 1, 0, 1], [np.inf, 2, 1, 0]],
    )


@pytest.mark.parametrize(("mode", "hops", "parts"), [("spatial", 1, 3), ("binary_adj", 1, 1), ("random", 1, 3)])
def test_number_of_matrices(mode: str, hops: int, parts: int) -> None:
    assert adjacency(CHAIN, mode, hops).shape == (parts, 4, 4)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_stgcn_spatial_shares_every_reached_joint_once(hops: int) -> None:
    stack = adjacency(CHAIN, "stgcn_spatial", hops)
    assert len(stack) == 2 * hops + 1
    np.testing.assert_allclose(stack.sum(0).sum(0), 1.0)  # columns of all matrices together
    assert ((stack > 0).sum(0) == (hop_distance(CHAIN, hops) <= hops)).all()


def test_random_links_follow_the_seed() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(adjacency(layout("ntu25"), "random"))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert abs(drawn[0].mean() - 0.04) < 0.003
    assert abs(drawn[0].std() - 0.02) < 0.002


def test_modes_are_those_that_the_error_names() -> None:
    with pytest.raises(ConfigError, match=", ".join(MODES)):
        adjacency(CHAIN, "spatail")
    with pytest.raises(ConfigError, match="max_hop=1"):
        adjacency(CHAIN, "stgcn_spatial", 0)


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([[0, 1], [2, 4]], r"\[2, 4\] links no two of 4"),
        ([[0, 0]], r"\[0, 0\]"),
        ([[0, 1, 2]], r"\[0, 1, 2\]"),
        ([[0, 1], [0, 2], [3, 2], [1, 2]], "Joint 0 has two parents"),
        ([[0, 1], [2, 1]], r"joints \[1, 3\]"),
        ([[0, 1], [1, 2], [2, 0]], "circle"),
    ],
)
def test_own_graphs_that_are_no_tree_are_refused(edges: list[list[int]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        own_layout(edges, 4)


def test_an_unknown_layout_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'nturgb"):
        layout("ntu-rgb+d")
