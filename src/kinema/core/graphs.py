"""Graphs of joints for action recognition: the published layouts and the adjacency stacks built from them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kinema.core.skeleton import SKELETONS
from kinema.errors import ConfigError

MODES = ("spatial", "stgcn_spatial", "binary_adj", "random")


@dataclass(frozen=True)
class Layout:
    """Links of joints, each pointing to the centre of the body.

    Attributes:
        name: published name such as "nturgb+d", that of a skeleton, or "own".
        joints: number of joints V.
        inward: pairs (child, parent).
        centre: the joint in the middle; it matters in the mode "stgcn_spatial" only.
    """

    name: str
    joints: int
    inward: tuple[tuple[int, int], ...]
    centre: int

    @property
    def outward(self) -> tuple[tuple[int, int], ...]:
        """The same links the other way round."""
        return tuple((parent, child) for child, parent in self.inward)


# pyskl, utils/graph.py; "h36m" is ours, turned like "nturgb+d": the middle of the shoulders is the root.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="coco",
            joints=17,
            inward=(
                (15, 13), (13, 11), (16, 14), (14, 12), (11, 5), (12, 6), (9, 7), (7, 5),
                (10, 8), (8, 6), (5, 0), (6, 0), (1, 0), (3, 1), (2, 0), (4, 2),
            ),
            centre=0,
        ),
        Layout(
            name="nturgb+d",
            joints=25,
            inward=(
                (0, 1), (1, 20), (2, 20), (3, 2), (4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9), (11, 10),
                (12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18),
                (21, 7), (22, 7), (23, 11), (24, 11),
            ),
            centre=20,
        ),
        Layout(
            name="h36m",
            joints=17,
            inward=SKELETONS["h36m17"].tables["bone_stream"],
            centre=8,
        ),
    )
}  # fmt: skip

# The published layout of each skeleton that has one.
OF_SKELETON = {"coco17": "coco", "ntu25": "nturgb+d", "h36m17": "h36m"}


def layout(name: str) -> Layout:
    """Return a graph by the name of a published layout or of a skeleton.

    A skeleton without a published layout gives its own tree, with the root as centre.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.
    """
    if name in LAYOUTS:
        return LAYOUTS[name]
    if name in OF_SKELETON:
        return LAYOUTS[OF_SKELETON[name]]
    if name in SKELETONS:
        one = SKELETONS[name]
        return Layout(name=name, joints=len(one), inward=one.bones, centre=one.root)
    known = [*LAYOUTS, *SKELETONS]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    raise ConfigError(f"No graph of joints is called {name!r}. {hint} Your own: model.edges=[[child,parent],...].")


def own_layout(edges: Sequence[Sequence[int]], joints: int) -> Layout:
    """Describe a user's own graph by its links (child, parent).

    The centre is the joint that is nobody's child. Every other joint has exactly one link inward.

    Raises:
        ConfigError: where the links are no tree over all joints.
    """
    parents: dict[int, int] = {}
    for link in edges:
        if len(link) != 2 or link[0] == link[1] or not all(0 <= joint < joints for joint in link):
            raise ConfigError(
                f"{list(link)} links no two of {joints} joints (0 to {joints - 1}). Change model.edges, pairs of "
                "child and parent."
            )
        child, parent = link
        if parents.setdefault(child, parent) != parent:
            raise ConfigError(
                f"Joint {child} has two parents in model.edges, {parents[child]} and {parent}. Keep one of them."
            )
    roots = [joint for joint in range(joints) if joint not in parents]
    if len(roots) != 1:
        raise ConfigError(
            f"model.edges leave the joints {roots} without a parent. All {joints} joints but one, the centre, need one."
        )
    for joint in parents:
        way = {joint}
        while joint in parents:
            joint = parents[joint]
            if joint in way:
                raise ConfigError(
                    f"model.edges run in a circle through joint {joint}. They must lead to joint {roots[0]}."
                )
            way.add(joint)
    return Layout(name="own", joints=joints, inward=tuple(parents.items()), centre=roots[0])


def links(pairs: Sequence[tuple[int, int]], joints: int) -> np.ndarray:
    """(V, V) float64 with 1 at [second, first] of every pair: column = where a link begins."""
    matrix = np.zeros((joints, joints))
    for first, second in pairs:
        matrix[second, first] = 1.0
    return matrix


def column_normalised(matrix: np.ndarray) -> np.ndarray:
    """Divide every column of (V, V) by its sum; columns without a link stay 0."""
    total = matrix.sum(axis=0)
    return matrix / np.where(total > 0, total, 1.0)


def hop_distance(graph: Layout, max_hop: int) -> np.ndarray:
    """Number of links between joints along the shortest way, (V, V); infinity beyond `max_hop`.

    Source: pyskl, utils/graph.py, get_hop_distance.
    """
    either = links(graph.inward, graph.joints) + links(graph.outward, graph.joints) + np.eye(graph.joints)
    hops = np.full((graph.joints, graph.joints), np.inf)
    reach = np.eye(graph.joints)
    for hop in range(max_hop + 1):
        hops[(reach > 0) & np.isinf(hops)] = hop
        reach = reach @ (either > 0)
    return hops


def adjacency(graph: Layout, mode: str, max_hop: int = 1) -> np.ndarray:
    """Stack of adjacency matrices, (K, V, V) float64; a joint w gathers sum_v x_v A[k, v, w].

    Modes: "spatial" the joint itself, its parent, the mean of its children (K = 3); "stgcn_spatial" one or two
    matrices per hop, by which joint is nearer to the centre (K = 2 max_hop + 1); "binary_adj" every link both ways
    (K = 1); "random" noise of mean 0.04 and deviation 0.02 from torch's generator (K = 3).

    Args:
        graph: joints and links.
        mode: one of the above.
        max_hop: reach of "stgcn_spatial", at least 1.

    Source: pyskl, utils/graph.py.
    """
    if mode == "spatial":
        steps = (links(graph.inward, graph.joints), links(graph.outward, graph.joints))
        return np.stack([np.eye(graph.joints), *map(column_normalised, steps)])
    if mode == "stgcn_spatial":
        return _by_distance(graph, max_hop)
    if mode == "binary_adj":
        return links(graph.inward + graph.outward, graph.joints)[None]
    if mode == "random":
        noise = torch.randn(3, graph.joints, graph.joints, dtype=torch.float64, device="cpu")
        return 0.04 + 0.02 * noise.numpy()
    raise ConfigError(f"model.graph_mode={mode!r} is unknown. Use one of {', '.join(MODES)}.")


def _by_distance(graph: Layout, max_hop: int) -> np.ndarray:
    if max_hop < 1:
        raise ConfigError(f"A graph that reaches {max_hop} links holds none. Use model.max_hop=1 or more.")
    hops = hop_distance(graph, max_hop)
    shares = column_normalised((hops <= max_hop).astype(np.float64))
    # published behaviour: distances to the centre are cut at max_hop, so that most links compare infinity with itself
    # and count as leading inward.
    to_centre = hops[:, graph.centre]
    inward = to_centre[:, None] >= to_centre[None, :]  # [j, i]
    stack = []
    for hop in range(max_hop + 1):
        here = np.where(hops == hop, shares, 0.0)
        stack.append(np.where(inward, here, 0.0))
        if hop:
            stack.append(np.where(inward, 0.0, here))
    return np.stack(stack)
