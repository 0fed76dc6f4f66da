"""DBMambaPose: spatial and temporal bidirectional Mamba blocks in turn. Our own design, not the authors' code."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.shapes import expect
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.layers.drop_path import DropPath, drop_path_rates
from kinema.models.layers.mamba import BiMamba, Mamba, MambaState
from kinema.models.layers.mlp import MLP
from kinema.models.layers.representation import representation
from kinema.models.layers.ss2d import add_limb_partners, expect_limbs
from kinema.models.layers.stream_mix import StreamMix
from kinema.models.registry import Shapes, depth_of, ratio_of, register

MIXERS = ("v1", "v2", "official")
STREAMS = ("single", "dual")
# One entry per temporal block, in the order in which they run.
StreamState = list[MambaState]


@register("dbmambapose")
class DBMambaPose(nn.Module):
    """Lift a clip of 2D poses to a clip of 3D poses by Mamba blocks alone.

    Input (B, T, J, C) with C = x, y, confidence; output (B, T, J, 3), relative to the root where trained so. Every
    layer scans the joints of each frame in both directions, then the frames of each joint. No embedding of time: any
    number of frames can be lifted, `num_frames` is what a clip of training has.

    With mixer="official" the temporal scan runs forwards only: the model is causal and `advance` and `step` go
    through a video of any length frame by frame, with the same numbers as one long `forward`.

    Args:
        num_frames: longest clip.
        num_joints: joints in and out.
        in_channels: channels of a 2D joint.
        dim: channels of a token.
        dim_rep: channels of the representation that `features` returns.
        depth: layers.
        d_state: numbers that each inner channel of a scan remembers.
        d_conv: taps of the convolution before a scan.
        expand: inner channels of a mixer over `dim`.
        mlp_ratio: width of the MLPs over `dim`.
        dropout: rate after both layers of the MLPs.
        drop_path: stochastic depth of the last layer, rising linearly from 0; a sample is one clip.
        layer_scale: first value of the factors on every residual branch; None = no factors.
        mixer: "v2" or "v1" for bidirectional scans; "official" for causal temporal scans (the spatial ones stay v2).
        divide: halve the sum of both directions.
        streams: "single", or "dual" for two streams per layer, one spatial first and one temporal first, mixed token
            by token as in MotionAGFormer.
        limbs: add to every joint its limb partner before a spatial scan, by the table of PoseMamba (17 joints of H36M).
        scan_backend: one of `kinema.models.layers.selective_scan.BACKENDS`.

    Initialisation: PyTorch's, `pos_embed` 0, Mamba as published, fusion weight 0 and bias 0.5.

    Source: the network of DBMambaPose was never published. Sizes, inputs and constructor keys follow the repository
    (camelliawxq/DBMambaPose, 2025); blocks, order and names are our reading of it, and no released weights fit.
    """

    unknowable: ClassVar[dict[str, Any]] = {
        "num_frames": 243,
        "dropout": 0.0,
        "drop_path": 0.0,
        "divide": True,
        "limbs": False,
        "scan_backend": "auto",
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
        d_state: int,
        d_conv: int,
        expand: float,
        mlp_ratio: float,
        dropout: float,
        drop_path: float,
        layer_scale: float | None,
        mixer: str,
        divide: bool,
        streams: str,
        limbs: bool,
        scan_backend: str,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "in_channels": in_channels,
            "dim": dim,
            "dim_rep": dim_rep,
            "depth": depth,
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
            "mlp_ratio": mlp_ratio,
            "dropout": dropout,
            "drop_path": drop_path,
            "layer_scale": layer_scale,
            "mixer": mixer,
            "divide": divide,
            "streams": streams,
            "limbs": limbs,
            "scan_backend": scan_backend,
        }
        if mixer not in MIXERS:
            raise ConfigError(f"model.mixer={mixer!r} is unknown. Use one of {', '.join(MIXERS)}.")
        if streams not in STREAMS:
            raise ConfigError(f"model.streams={streams!r} is unknown. Use one of {', '.join(STREAMS)}.")
        if limbs:
            expect_limbs(num_joints)
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints,
            frames=num_frames,
            frames_rule="max",
            feature_dim=dim_rep,
        )
        self.causal = mixer == "official"
        sizes: dict[str, Any] = {
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
            "scan_backend": scan_backend,
        }

        def make_mixer(variant: str) -> nn.Module:
            return (
                Mamba(dim, **sizes) if variant == "official" else BiMamba(dim, variant=variant, divide=divide, **sizes)
            )

        block = partial(MambaBlock, dim, int(dim * mlp_ratio), dropout=dropout, layer_scale=layer_scale)
        self.joints_embed = nn.Linear(in_channels, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim))
        self.layers = nn.ModuleList()
        for rate in drop_path_rates(drop_path, depth):
            spatial = [
                block(make_mixer("v2" if self.causal else mixer), drop_path=rate, limbs=limbs)
                for _ in range(STREAMS.index(streams) + 1)
            ]
            temporal = [block(make_mixer(mixer), drop_path=rate, over_time=True) for _ in spatial]
            self.layers.append(DBMambaLayer(dim, spatial, temporal))
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
        return self._represent(pose, None)

    def start(self, batch: int) -> StreamState:
        """The state before the first frame of `batch` videos; causal models only.

        Raises:
            ConfigError: for a bidirectional model, which needs the future.
        """
        if not self.causal:
            raise ConfigError(
                "This DBMambaPose scans time in both directions and cannot stream. Train one with model.mixer=official."
            )
        mixers = [block.mixer for layer in self.layers for block in layer.temporal_blocks()]  # type: ignore[operator]
        return [mixer.start(batch * self.signature.joints) for mixer in mixers]

    def advance(self, pose: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Lift the next frames of videos whose earlier frames are in `state`.

        Args:
            pose: (B, T, J, C), any T from 1 on.
            state: from `start` or from the call before; it is not changed.

        Returns:
            (B, T, J, 3), the same numbers as `forward` on the whole videos, and the new state.
        """
        expect(pose, "B T J C", "pose", J=self.signature.joints, C=self.signature.in_channels)
        state = list(state)
        return self.head(self._represent(pose, state)), state

    def step(self, pose: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Lift one further frame, (B, J, C) to (B, J, 3) and the new state."""
        out, state = self.advance(pose[:, None], state)
        return out[:, 0], state

    def _represent(self, pose: Tensor, state: StreamState | None) -> Tensor:
        """Features of a clip; `state` is brought up to date in place."""
        x = self.joints_embed(pose) + self.pos_embed
        for layer in self.layers:
            x = layer(x, state)
        return self.rep_logit(self.norm(x))

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family.

        The first value of a layer scale is not in the weights: where there is one, 1e-5 is reported.
        """
        mixer = "layers.0.spatial.mixer."
        needed = ("pos_embed", "joints_embed.weight", "rep_logit.fc.weight", "head.weight")
        first = (f"{mixer}in_proj.weight", f"{mixer}A_log", f"{mixer}conv1d.weight", "layers.0.spatial.mlp.fc1.weight")
        if any(name not in shapes for name in (*needed, *first)):
            return None
        dim = shapes["joints_embed.weight"][0]
        inner, d_state = shapes[first[1]]
        return {
            "num_joints": shapes["pos_embed"][1],
            "in_channels": shapes["joints_embed.weight"][1],
            "dim": dim,
            "dim_rep": shapes["rep_logit.fc.weight"][0],
            "depth": depth_of(shapes, "layers"),
            "d_state": d_state,
            "d_conv": shapes[first[2]][2],
            "expand": ratio_of(inner, dim),
            "mlp_ratio": ratio_of(shapes[first[3]][0], dim),
            "layer_scale": 1e-5 if "layers.0.spatial.layer_scale_1" in shapes else None,
            "mixer": _mixer_of(shapes),
            "streams": "dual" if "layers.0.fusion.weight" in shapes else "single",
        }


def _mixer_of(shapes: Shapes) -> str:
    if "layers.0.temporal.mixer.conv1d_b.weight" in shapes:
        return "v2"
    return "v1" if "layers.0.temporal.mixer.A_b_log" in shapes else "official"


class DBMambaLayer(nn.Module):
    """A spatial block, then a temporal one; with two of each also the other way round, and a mix of both streams.

    Parameter names: `spatial`, `temporal`; of a second stream `temporal_first.temporal`, `temporal_first.spatial` and
    `fusion`.

    Args:
        dim: channels of a token.
        spatial: one or two spatial blocks.
        temporal: as many temporal blocks.
    """

    def __init__(self, dim: int, spatial: list[MambaBlock], temporal: list[MambaBlock]) -> None:
        super().__init__()
        self.spatial, self.temporal = spatial[0], temporal[0]
        self.temporal_first: nn.ModuleDict | None = None
        if len(spatial) > 1:
            self.temporal_first = nn.ModuleDict({"temporal": temporal[1], "spatial": spatial[1]})
            self.fusion = StreamMix(dim)
            nn.init.zeros_(self.fusion.weight)
            nn.init.constant_(self.fusion.bias, 0.5)

    def temporal_blocks(self) -> list[MambaBlock]:
        """Blocks that carry a state along a stream, in the order in which they run."""
        return [self.temporal, *([] if self.temporal_first is None else [self.temporal_first["temporal"]])]  # type: ignore[list-item]

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """(B, T, J, dim) to the same. The states of this layer's blocks move from the front of `state` to its end."""
        first = self.temporal(self.spatial(x), state)
        if self.temporal_first is None:
            return first
        return self.fusion(first, self.temporal_first["spatial"](self.temporal_first["temporal"](x, state)))


class MambaBlock(nn.Module):
    """x = x + ls1 * mixer(norm1(x)); x = x + ls2 * mlp(norm2(x)), over the joints of a frame or the frames of a joint.

    Parameter names: `layer_scale_1`, `layer_scale_2`, `norm1`, `norm2`, `mixer`, `mlp`. The stream is (B, T, J, dim).

    Args:
        dim: channels of a token.
        hidden: width of the MLP.
        mixer: module from (batch, L, dim) to the same.
        over_time: mix the frames of every joint; otherwise the joints of every frame.
        limbs: add to every joint its limb partner before mixing.
        dropout: rate after both layers of the MLP.
        drop_path: rate of stochastic depth; a sample is one clip.
        layer_scale: first value of both factors, None = none.
    """

    layer_scale_1: Tensor | None
    layer_scale_2: Tensor | None

    def __init__(
        self,
        dim: int,
        hidden: int,
        mixer: nn.Module,
        *,
        over_time: bool = False,
        limbs: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.over_time, self.limbs = over_time, limbs
        for name in ("layer_scale_1", "layer_scale_2"):
            scale = None if layer_scale is None else nn.Parameter(torch.full((dim,), float(layer_scale)))
            self.register_parameter(name, scale)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = mixer
        self.mlp = MLP(dim, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """(B, T, J, dim) to the same. A temporal block takes its state from the front of `state`, appends the new."""
        tokens = self.norm1(x)
        mixed = self._mix_frames(tokens, state) if self.over_time else self._mix_joints(tokens)
        x = x + self.drop_path(mixed if self.layer_scale_1 is None else mixed * self.layer_scale_1)
        out = self.mlp(self.norm2(x))
        return x + self.drop_path(out if self.layer_scale_2 is None else out * self.layer_scale_2)

    def _mix_joints(self, x: Tensor) -> Tensor:
        x = add_limb_partners(x) if self.limbs else x
        return self.mixer(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _mix_frames(self, x: Tensor, state: StreamState | None) -> Tensor:
        batch, frames, joints, _ = x.shape
        x = x.transpose(1, 2).flatten(0, 1)  # (B * J, T, dim)
        if state is None:
            mixed = self.mixer(x)
        elif frames == 1:
            mixed, new = self.mixer.step(x[:, 0], state.pop(0))  # type: ignore[operator]
            mixed = mixed[:, None]
            state.append(new)
        else:
            mixed, new = self.mixer(x, state.pop(0))
            state.append(new)
        return mixed.unflatten(0, (batch, joints)).transpose(1, 2)
