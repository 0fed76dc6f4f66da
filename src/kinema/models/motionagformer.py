"""MotionAGFormer: a transformer stream and a graph stream side by side, fused token by token."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.layers.attention import Attention
from kinema.models.layers.drop_path import DropPath
from kinema.models.layers.graph import (
    GraphConvolution,
    MultiScaleTCN,
    forward_adjacency,
    neighbour_adjacency,
)
from kinema.models.layers.mlp import MLP
from kinema.models.layers.representation import representation
from kinema.models.layers.stream_mix import StreamMix
from kinema.models.registry import Shapes, depth_of, ratio_of, register

TEMPORAL_GRAPHS = ("similarity", "fixed")

# published behaviour: neighbours of the 17 Human3.6M joints; 0 does not list 4, and 8 lists neither 11 nor 14.
NEIGHBOURS = (
    (1, 7), (2, 0), (3, 1), (2,), (5, 0), (6, 4), (5,), (0, 8), (7, 9),
    (8, 10), (9,), (12, 8), (13, 11), (12,), (15, 8), (16, 14), (15,),
)  # fmt: skip

_PUBLISHED_FRAMES = 243


@register("motionagformer")
class MotionAGFormer(nn.Module):
    """Lift a clip of 2D poses to a clip of 3D poses.

    Input (B, T, J, C) with C = x, y, confidence and exactly T = `num_frames` (the batch normalisation of the temporal
    graph has a channel per frame; with `use_tcn` there is none, and T goes up to `num_frames`). Output (B, T, J, 3) in
    the space of the training targets (normalised image units for the published weights).

    Args:
        num_frames: frames of a clip.
        num_joints: joints in and out.
        in_channels: channels of a 2D joint.
        dim: channels of a token.
        dim_rep: channels of the representation that `features` returns.
        depth: layers.
        num_heads: attention heads.
        mlp_ratio: width of the MLPs over their input.
        qkv_bias: whether the qkv product has a bias.
        qkv_scale: factor of the attention logits; None = (channels / heads) ** -0.5.
        layer_scale: first value of the learned scale of every residual branch; None = no such scale.
        adaptive_fusion: mix the streams by two learned weights per token; otherwise take their mean.
        hierarchical: half of the channels for each stream, the graph stream on top of the attention stream. The fusion
            layers of `adaptive_fusion` then exist and are not used (published behaviour, kept for official files).
        graph_only: bare graph convolutions in the graph stream, without norm, scale and MLP.
        temporal_graph: "similarity" links each frame to the frames most like it, per joint; "fixed" to the next ones.
        neighbours: frames that "similarity" links to.
        connection_len: frames ahead that "fixed" links to, besides the frame itself.
        use_tcn: temporal convolutions in place of the temporal graph; `temporal_graph` then does not matter.
        edges: pairs of linked joints; None = the table of the released code for 17 joints, in Human3.6M order.
        dropout: rate after attention projections and MLP layers.
        attn_dropout: rate on the attention weights.
        drop_path: rate of stochastic depth, the same in every layer; a sample is one clip.

    Initialisation: graph convolutions normal with standard deviation sqrt(2 / dim), fusion layers weight 0 and bias
    0.5, joint embedding 0, the rest as torch has it.

    Source: Mehraban et al. 2024, model/MotionAGFormer.py, whose parameter names are kept.
    """

    unknowable: ClassVar[dict[str, Any]] = {
        "num_heads": 8,
        "qkv_scale": None,
        "temporal_graph": "similarity",
        "neighbours": 2,
        "connection_len": 1,
        "edges": None,
        "dropout": 0.0,
        "attn_dropout": 0.0,
        "drop_path": 0.0,
    }

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        in_channels: int,
        dim: int,
        dim_rep: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qkv_scale: float | None,
        layer_scale: float | None,
        adaptive_fusion: bool,
        hierarchical: bool,
        graph_only: bool,
        temporal_graph: str,
        neighbours: int,
        connection_len: int,
        use_tcn: bool,
        edges: list[list[int]] | None,
        dropout: float,
        attn_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        edges = None if edges is None else [[int(a), int(b)] for a, b in edges]
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "in_channels": in_channels,
            "dim": dim,
            "dim_rep": dim_rep,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "qkv_scale": qkv_scale,
            "layer_scale": layer_scale,
            "adaptive_fusion": adaptive_fusion,
            "hierarchical": hierarchical,
            "graph_only": graph_only,
            "temporal_graph": temporal_graph,
            "neighbours": neighbours,
            "connection_len": connection_len,
            "use_tcn": use_tcn,
            "edges": edges,
            "dropout": dropout,
            "attn_dropout": attn_dropout,
            "drop_path": drop_path,
        }
        if temporal_graph not in TEMPORAL_GRAPHS:
            raise ConfigError(f"temporal_graph={temporal_graph!r} is unknown. Use {' or '.join(TEMPORAL_GRAPHS)}.")
        if hierarchical and dim % 2:
            raise ConfigError(f"{dim} channels cannot be halved for hierarchical streams. Use an even model.dim.")
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints,
            frames=num_frames,
            frames_rule="max" if use_tcn else "exact",
            feature_dim=dim_rep,
        )
        width = dim // 2 if hierarchical else dim
        links = neighbour_adjacency(_neighbours(num_joints, edges))

        attention = partial(
            Attention, width, num_heads, qkv_bias=qkv_bias, scale=qkv_scale, dropout=dropout, attn_dropout=attn_dropout
        )
        block = partial(
            Block, width, int(width * mlp_ratio), layer_scale=layer_scale, dropout=dropout, drop_path=drop_path
        )

        def temporal_mixer() -> nn.Module:
            if use_tcn:
                return MultiScaleTCN(width)
            if temporal_graph == "fixed":
                return GraphConvolution(width, num_frames, forward_adjacency(num_frames, connection_len))
            return GraphConvolution(width, num_frames, neighbours=neighbours)

        def graph(mixer: nn.Module) -> nn.Module:
            return mixer if graph_only else block(mixer)

        self.joints_embed = nn.Linear(in_channels, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim))
        self.layers = nn.ModuleList(
            AGLayer(
                att_spatial=block(attention()),
                att_temporal=block(attention()),
                graph_spatial=graph(GraphConvolution(width, num_joints, links)),
                graph_temporal=graph(temporal_mixer()),
                fusion=StreamMix(width) if adaptive_fusion else None,
                hierarchical=hierarchical,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.rep_logit = representation(dim, dim_rep)
        self.head = nn.Linear(dim_rep, 3)

    def forward(self, pose: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            pose: (B, T, J, C).

        Returns:
            (B, T, J, 3).
        """
        return self.head(self.features(pose))

    def features(self, pose: Tensor) -> Tensor:
        """Return the representation before the last layer, (B, T, J, dim_rep)."""
        expect_pose(pose, self.signature)
        x = self.joints_embed(pose) + self.pos_embed
        for layer in self.layers:
            x = layer(x)
        return self.rep_logit(self.norm(x))

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family.

        A network with `use_tcn` works at any length, which its tensors do not tell: the published 243 is taken.
        """
        first = "layers.0"
        norm, hidden = f"{first}.att_spatial.norm1.weight", f"{first}.att_spatial.mlp.fc1.weight"
        needed = ("pos_embed", "joints_embed.weight", "rep_logit.fc.weight", "head.weight", norm, hidden)
        graph = next(
            (
                f"{first}.graph_spatial{sub}"
                for sub in (".mixer", "")
                if f"{first}.graph_spatial{sub}.U.weight" in shapes
            ),
            None,
        )
        if graph is None or any(name not in shapes for name in needed):
            return None
        temporal = graph.replace("spatial", "temporal")
        use_tcn = f"{temporal}.branches.0.0.weight" in shapes
        _, num_joints, dim = shapes["pos_embed"]
        (width,) = shapes[norm]
        return {
            "num_frames": _PUBLISHED_FRAMES if use_tcn else shapes[f"{temporal}.batch_norm.weight"][0],
            "num_joints": num_joints,
            "in_channels": shapes["joints_embed.weight"][1],
            "dim": dim,
            "dim_rep": shapes["rep_logit.fc.weight"][0],
            "depth": depth_of(shapes, "layers"),
            "mlp_ratio": ratio_of(shapes[hidden][0], width),
            "qkv_bias": f"{first}.att_spatial.mixer.qkv.bias" in shapes,
            # The first value is forgotten once weights are there.
            "layer_scale": 1e-5 if f"{first}.att_spatial.layer_scale_1" in shapes else None,
            "adaptive_fusion": f"{first}.fusion.weight" in shapes,
            "hierarchical": width != dim,
            "graph_only": not graph.endswith(".mixer"),
            "use_tcn": use_tcn,
        }


class AGLayer(nn.Module):
    """Both streams of one layer and their fusion; (B, T, J, dim) to the same.

    Each stream is spatial first. Temporal parts work on the transposed stream (B, J, T, dim), so that every part mixes
    along the last but one axis.
    """

    def __init__(
        self,
        *,
        att_spatial: nn.Module,
        att_temporal: nn.Module,
        graph_spatial: nn.Module,
        graph_temporal: nn.Module,
        fusion: StreamMix | None,
        hierarchical: bool,
    ) -> None:
        super().__init__()
        self.att_spatial, self.att_temporal = att_spatial, att_temporal
        self.graph_spatial, self.graph_temporal = graph_spatial, graph_temporal
        self.fusion = fusion
        self.hierarchical = hierarchical
        if fusion is not None:
            nn.init.zeros_(fusion.weight)
            nn.init.constant_(fusion.bias, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.hierarchical:
            first, second = x.chunk(2, dim=-1)
            attended = self.attend(first)
            return torch.cat([attended, self.convolve(second + attended)], dim=-1)
        attended, convolved = self.attend(x), self.convolve(x)
        if self.fusion is None:
            return (attended + convolved) * 0.5
        return self.fusion(attended, convolved)

    def attend(self, x: Tensor) -> Tensor:
        """The attention stream."""
        return self.att_temporal(self.att_spatial(x).transpose(1, 2)).transpose(1, 2)

    def convolve(self, x: Tensor) -> Tensor:
        """The graph stream."""
        return self.graph_temporal(self.graph_spatial(x).transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """x = x + DP(s1 * mixer(norm1(x))); x = x + DP(s2 * mlp(norm2(x))), with or without the scales s1 and s2.

    Parameter names: `layer_scale_1`, `layer_scale_2`, `norm1`, `mixer`, `norm2`, `mlp`.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        mixer: nn.Module,
        *,
        layer_scale: float | None,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = mixer
        self.mlp = MLP(dim, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1 = None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))
        self.layer_scale_2 = None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(_scaled(self.mixer(self.norm1(x)), self.layer_scale_1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.layer_scale_2))


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


def _neighbours(joints: int, edges: list[list[int]] | None) -> list[list[int]]:
    """Neighbours of each joint: from the pairs given, else the published table."""
    if edges is None:
        if joints != len(NEIGHBOURS):
            raise ConfigError(
                f"The published graph has {len(NEIGHBOURS)} joints, not {joints}. Say which joints are linked: "
                "model.edges=[[0,1],[1,2],...]."
            )
        return [list(row) for row in NEIGHBOURS]
    found: list[set[int]] = [set() for _ in range(joints)]
    for a, b in edges:
        if a == b or not (0 <= a < joints and 0 <= b < joints):
            raise ConfigError(
                f"The edge [{a}, {b}] links no two of {joints} joints (0 to {joints - 1}). Change model.edges."
            )
        found[a].add(b)
        found[b].add(a)
    lonely = [joint for joint, others in enumerate(found) if not others]
    if lonely:
        raise ConfigError(f"model.edges links nothing to the joints {lonely}. Every joint needs a neighbour.")
    return [sorted(others) for others in found]
