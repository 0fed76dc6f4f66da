"""HMSFT, our own open design: joints, body parts and frequencies of a 2D window to the 3D pose of its centre frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.skeleton import Skeleton
from kinema.core.skeleton import skeleton as skeleton_named
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.layers.attention import Attention
from kinema.models.layers.block import NORM_EPS, TransformerBlock
from kinema.models.layers.dct import ConstantProduct
from kinema.models.layers.drop_path import DropPath, drop_path_rates
from kinema.models.layers.mlp import MLP
from kinema.models.registry import Shapes, depth_of, ratio_of, register

# Frames whose mean is a token of the middle and of the coarse time scale.
MIDDLE, COARSE = 3, 9


@register("hmsft")
class HMSFT(nn.Module):
    """Lift the centre frame of a window by a hierarchical multi-scale spatial and frequency-temporal transformer.

    **Our own design, not the authors' network.** The repository zhh157/HMSFT names a network of this contract and gives
    training commands and results, but its network was never published and no weights of it exist; not even the
    expansion of the name is known. What is claimed there does not speak for this class, and files that circulate under
    its name (`cpn81f.bin`, `gt81f.bin`) are PoseFormer V1.

    Three levels: joints (attention over the joints of a frame, with a learnt bias by the number of bones between them,
    then over the frames of a joint), body parts (the same on a token per part and frame), and whole bodies, as tokens
    of three time scales around the centre frame and of the lowest frequencies of the input.

    Input (B, F, J, C), exactly F = `num_frames` frames; output (B, 1, J', 3), metres relative to the root (the root
    itself is predicted as well and not forced to zero).

    Args:
        num_frames: length of the window, an odd multiple of 9.
        num_joints: joints in.
        num_joints_out: joints out. The residual from the features of single joints is left out where it differs.
        in_channels: channels of a 2D joint.
        skeleton: name of the skeleton of the input, from which body parts and distances come; weights fit other orders
            of the joints as well, so a bare state dict cannot tell it.
        dim: channels of a joint; a body has num_joints * dim.
        depth: blocks of the body level.
        num_heads: attention heads of every level.
        mlp_ratio: width of the MLPs over their input.
        joint_depth: blocks of the joint level.
        part_depth: blocks of the part level.
        part_ratio: channels of a body part over `dim`.
        kept_frames: frames around the centre that are tokens of their own, odd; not more than there are.
        kept_coeffs: lowest frequencies of the input that are tokens; not more than there are frames.
        dropout: rate after the embeddings, attention projections and MLP layers.
        drop_path: stochastic depth of the last block of each level, rising linearly from 0. A sample is a frame or the
            track of a joint on the lower levels, a window on the highest.
        skeleton_out: name of the skeleton of the joints out, None = that of the input; only joints of one skeleton get
            the residual from the features of the same joint.

    Initialisation: PyTorch's default for every layer, zeros for position embeddings and distance biases. The latter
    are not decayed.
    """

    joints_by_part: Tensor

    # The README of the repository zhh157/HMSFT linked PoseFormer V1's published weights as its own, under these names.
    lent_files: ClassVar[frozenset[str]] = frozenset({"cpn81f.bin", "gt81f.bin"})
    lent: ClassVar[dict[str, str]] = {
        "poseformer": "%s holds PoseFormer V1 and is used as such: the README of HMSFT linked PoseFormer's weights, "
        "its own were never published."
    }
    unknowable: ClassVar[dict[str, Any]] = {
        "skeleton": ..., "dropout": 0.0, "drop_path": 0.0, "skeleton_out": None,
    }  # fmt: skip

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        num_joints_out: int,
        in_channels: int,
        skeleton: str,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        joint_depth: int,
        part_depth: int,
        part_ratio: int,
        kept_frames: int,
        kept_coeffs: int,
        dropout: float,
        drop_path: float,
        skeleton_out: str | None = None,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "num_joints_out": num_joints_out,
            "in_channels": in_channels,
            "skeleton": skeleton,
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "joint_depth": joint_depth,
            "part_depth": part_depth,
            "part_ratio": part_ratio,
            "kept_frames": kept_frames,
            "kept_coeffs": kept_coeffs,
            "dropout": dropout,
            "drop_path": drop_path,
            "skeleton_out": skeleton_out,
        }
        _check_sizes(num_frames, kept_frames, {"joint_depth": joint_depth, "part_depth": part_depth, "depth": depth})
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints_out,
            frames=num_frames,
            frames_rule="exact",
            context=(num_frames // 2, num_frames // 2),
        )
        body = _body(skeleton, num_joints)
        parts = body.partition()
        self.part_sizes = [len(part) for part in parts.values()]
        # Tokens of the groups: frames around the centre, middle and coarse means, frequencies.
        self.group_sizes = [
            min(kept_frames, num_frames), num_frames // MIDDLE, num_frames // COARSE, min(kept_coeffs, num_frames)
        ]  # fmt: skip
        part_dim, wide = dim * part_ratio, dim * num_joints

        self.dropout = nn.Dropout(dropout)
        self.joint_embed = nn.Linear(in_channels, dim)
        self.joint_pos = nn.Parameter(torch.zeros(1, 1, num_joints, dim))
        self.joint_time_pos = nn.Parameter(torch.zeros(1, num_frames, 1, dim))
        self.joint_blocks = _level(dim, joint_depth, num_heads, mlp_ratio, body.hops, dropout, drop_path)
        self.joint_norm = nn.LayerNorm(dim, eps=NORM_EPS)

        order = torch.tensor([joint for part in parts.values() for joint in part])
        self.register_buffer("joints_by_part", order, persistent=False)
        self.part_embed = nn.ModuleDict({name: nn.Linear(len(part) * dim, part_dim) for name, part in parts.items()})
        self.part_pos = nn.Parameter(torch.zeros(1, 1, len(parts), part_dim))
        self.part_time_pos = nn.Parameter(torch.zeros(1, num_frames, 1, part_dim))
        apart = [[int(a != b) for b in parts] for a in parts]
        self.part_blocks = _level(part_dim, part_depth, num_heads, mlp_ratio, apart, dropout, drop_path)
        self.part_norm = nn.LayerNorm(part_dim, eps=NORM_EPS)

        self.part_to_body = nn.Linear(len(parts) * part_dim, wide)
        self.freq_embed = nn.Linear(num_joints * in_channels, wide)
        self.spectrum = ConstantProduct(partial(orthonormal_dct_matrix, num_frames, self.group_sizes[3]))
        self.token_pos = nn.Parameter(torch.zeros(1, sum(self.group_sizes), wide))
        self.scale_dct = ScaleDCT(self.group_sizes[:3])
        self.body_blocks = nn.ModuleList(
            FrequencyTemporalBlock(wide, num_heads, int(wide * mlp_ratio), dropout=dropout, drop_path=rate)
            for rate in drop_path_rates(drop_path, depth)
        )
        self.body_norm = nn.LayerNorm(wide, eps=NORM_EPS)

        names = ("fine", "mid", "coarse", "freq")
        self.pools = nn.ModuleDict(
            {name: nn.Conv1d(size, 1, kernel_size=1) for name, size in zip(names, self.group_sizes, strict=True)}
        )
        self.body_head = nn.Sequential(nn.LayerNorm(4 * wide), nn.Linear(4 * wide, 3 * num_joints_out))
        # Joints of another order must not be added to those of the same number.
        reordered = skeleton_out not in (None, skeleton) and len(skeleton_named(str(skeleton_out))) == num_joints
        self.joint_head = nn.Linear(dim, 3) if num_joints_out == num_joints and not reordered else None

    def forward(self, pose: Tensor) -> Tensor:
        """Lift the centre frame of each window.

        Args:
            pose: (B, F, J, C).

        Returns:
            (B, 1, J', 3).
        """
        expect_pose(pose, self.signature)
        joints = self.joints(pose)
        tokens = self.tokens(pose, joints.flatten(2) + self.part_to_body(self.parts(joints).flatten(2)))
        for block in self.body_blocks:
            tokens = block(tokens, self.scale_dct)
        groups = self.body_norm(tokens).split(self.group_sizes, dim=1)
        # Tokens are the channels of these convolutions: (B, 1, J * dim) each.
        means = [pool(group) for pool, group in zip(self.pools.values(), groups, strict=True)]
        pose3d = self.body_head(torch.cat(means, dim=2)).unflatten(2, (-1, 3))
        if self.joint_head is None:
            return pose3d
        centre = pose.shape[1] // 2
        return pose3d + self.joint_head(joints[:, centre : centre + 1])

    def joints(self, pose: Tensor) -> Tensor:
        """Features of every joint in every frame: (B, F, J, C) to (B, F, J, dim)."""
        x = self.dropout(self.joint_embed(pose) + self.joint_pos + self.joint_time_pos)
        for block in self.joint_blocks:
            x = block(x)
        return self.joint_norm(x)

    def parts(self, joints: Tensor) -> Tensor:
        """Features of every body part in every frame: (B, F, J, dim) to (B, F, parts, dim * part_ratio)."""
        members = joints.index_select(2, self.joints_by_part).split(self.part_sizes, dim=2)
        embedded = [embed(part.flatten(2)) for embed, part in zip(self.part_embed.values(), members, strict=True)]
        x = self.dropout(torch.stack(embedded, dim=2) + self.part_pos + self.part_time_pos)
        for block in self.part_blocks:
            x = block(x)
        return self.part_norm(x)

    def tokens(self, pose: Tensor, body: Tensor) -> Tensor:
        """The four groups of tokens of the body level, from the input and bodies (B, F, J * dim): (B, N, J * dim)."""
        kept = self.group_sizes[0]
        first = (body.shape[1] - kept) // 2
        fine = body[:, first : first + kept]
        middle = body.unflatten(1, (-1, MIDDLE)).mean(2)
        coarse = middle.unflatten(1, (-1, COARSE // MIDDLE)).mean(2)
        frequencies = self.freq_embed(self.spectrum(pose.flatten(2)))
        return self.dropout(torch.cat([fine, middle, coarse, frequencies], dim=1) + self.token_pos)

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        bias, hidden = "joint_blocks.0.hop_bias", "body_blocks.0.mlp_time.fc1.weight"
        embeddings = ("joint_embed.weight", "joint_pos", "joint_time_pos", "part_pos", "token_pos")
        ends = ("pools.fine.weight", "pools.freq.weight", "body_head.1.weight")
        if any(name not in shapes for name in (bias, hidden, *embeddings, *ends)):
            return None
        dim, in_channels = shapes["joint_embed.weight"]
        width, wide = shapes[hidden]
        return {
            "num_frames": shapes["joint_time_pos"][1],
            "num_joints": shapes["joint_pos"][2],
            "num_joints_out": shapes["body_head.1.weight"][0] // 3,
            "in_channels": in_channels,
            "dim": dim,
            "depth": depth_of(shapes, "body_blocks"),
            "num_heads": shapes[bias][0],
            "mlp_ratio": ratio_of(width, wide),
            "joint_depth": depth_of(shapes, "joint_blocks"),
            "part_depth": depth_of(shapes, "part_blocks"),
            "part_ratio": shapes["part_pos"][3] // dim,
            "kept_frames": shapes["pools.fine.weight"][1],
            "kept_coeffs": shapes["pools.freq.weight"][1],
        }


class GraphBlock(nn.Module):
    """Attention over the tokens of each frame, then over the frames of each token, each with its MLP.

    The logits of the first one get a bias for each head and distance. Input and output (B, F, N, dim).

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        hidden: width of the MLPs.
        hops: (N, N) distances between the tokens of a frame.
        dropout: rate after attention projections and MLP layers.
        drop_path: rate of stochastic depth.
    """

    hops: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        hops: Sequence[Sequence[int]],
        *,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.register_buffer("hops", torch.tensor([list(row) for row in hops]), persistent=False)
        self.hop_bias = nn.Parameter(torch.zeros(num_heads, 1 + max(max(row) for row in hops)))
        self.hop_bias._no_weight_decay = True  # type: ignore[attr-defined]  # a prior, which decay would wear away
        self.spatial, self.temporal = (
            TransformerBlock(dim, num_heads, hidden, dropout=dropout, drop_path=drop_path, sample_axes=2)
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.spatial(x, self.hop_bias[:, self.hops])
        # Copied, because norms and products of 32 channels are slower on a view than the copy is.
        return self.temporal(x.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()


class FrequencyTemporalBlock(nn.Module):
    """Attention over all tokens, then an MLP on the spectrum of each time scale and another on the frequency tokens.

    Input and output (B, N, dim), the tokens of the time scales first. The time scales share their MLP; a sample of
    stochastic depth is a window.

    Parameter names: `norm1`, `attn`, `norm2`, `mlp_time`, `norm3`, `mlp_freq`.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, *, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp_time = MLP(dim, hidden, dropout=dropout)
        self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp_freq = MLP(dim, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, dct: ScaleDCT) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        time, frequencies = x.tensor_split([dct.count], dim=1)
        spectrum = self.mlp_time(dct(self.norm2(time)))
        time = time + self.drop_path(dct.inverse(spectrum))
        frequencies = frequencies + self.drop_path(self.mlp_freq(self.norm3(frequencies)))
        return torch.cat([time, frequencies], dim=1)


class ScaleDCT(nn.Module):
    """The orthonormal DCT-II along the tokens of each time scale of (B, N, dim), and back."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.count = sum(sizes)
        self.scales = nn.ModuleList(ConstantProduct(partial(orthonormal_dct_matrix, size)) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to spectra."""
        parts = zip(self.scales, x.split(self.sizes, dim=1), strict=True)
        return torch.cat([scale(part) for scale, part in parts], dim=1)

    def inverse(self, x: Tensor) -> Tensor:
        """Spectra to tokens."""
        parts = zip(self.scales, x.split(self.sizes, dim=1), strict=True)
        return torch.cat([_back(scale, part) for scale, part in parts], dim=1)


def _level(
    dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    hops: Sequence[Sequence[int]],
    dropout: float,
    drop_path: float,
) -> nn.ModuleList:
    rates = drop_path_rates(drop_path, depth)
    hidden = int(dim * mlp_ratio)
    return nn.ModuleList(GraphBlock(dim, num_heads, hidden, hops, dropout=dropout, drop_path=rate) for rate in rates)


def _check_sizes(num_frames: int, kept_frames: int, depths: dict[str, int]) -> None:
    if num_frames % (2 * COARSE) != COARSE:
        near = max(0, num_frames - 1) // (2 * COARSE) * 2 * COARSE + COARSE
        raise ConfigError(
            f"hmsft averages frames by nines around a centre frame, and {num_frames} is no odd multiple of 9. "
            f"Use model.num_frames={near}."
        )
    if kept_frames % 2 == 0:
        raise ConfigError(f"{kept_frames} kept frames have no centre. Use model.kept_frames={kept_frames + 1}.")
    for name, depth in depths.items():
        if depth < 1:
            raise ConfigError(f"model.{name}={depth} leaves out a level of hmsft. Use model.{name}=1.")


def _body(name: str, num_joints: int) -> Skeleton:
    body = skeleton_named(name)
    if len(body) != num_joints:
        raise ConfigError(
            f"model.skeleton={name} has {len(body)} joints, not {num_joints}. "
            f"Use model.num_joints={len(body)}, or drop model.skeleton to follow the data set."
        )
    return body


def _back(scale: nn.Module, part: Tensor) -> Tensor:
    assert isinstance(scale, ConstantProduct)
    return scale.transposed(part)
