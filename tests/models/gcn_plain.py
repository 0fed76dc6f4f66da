"""The graph networks once more, one small layer and one subset of links at a time, as the papers state them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kinema.models.ctrgcn import CTRGCN
from kinema.models.stgcn import STGCN


def bodies(norm: nn.Module, kind: str | None, pose: Tensor) -> Tensor:
    """(B, M, T, V, C) to (B * M, C, T, V)."""
    batch, persons, frames, joints, channels = pose.shape
    if kind is not None:
        names = [
            (m, v, c) for m in range(persons if kind == "MVC" else 1) for v in range(joints) for c in range(channels)
        ]
        if kind == "MVC":
            signals = torch.stack([pose[:, m, :, v, c] for m, v, c in names], 1)  # (B, M*V*C, T)
        else:
            everybody = pose.flatten(0, 1)
            signals = torch.stack([everybody[:, :, v, c] for _, v, c in names], 1)  # (B*M, V*C, T)
        normed = norm(signals).reshape(batch, persons, joints, channels, frames)
        pose = normed.permute(0, 1, 4, 2, 3)
    return pose.flatten(0, 1).permute(0, 3, 1, 2).contiguous()


def unit(module: Any, x: Tensor) -> Tensor:
    """A TemporalUnit."""
    return module.bn(module.conv(x))


def entry(branch: Any, x: Tensor) -> Tensor:
    """The first three layers of a branch."""
    conv, norm = branch[0], branch[1]
    return torch.relu(norm(conv(x)))


def mixed_temporal(module: Any, x: Tensor) -> Tensor:
    outs = []
    for branch in module.branches:
        if isinstance(branch, nn.Conv2d):
            outs.append(branch(x))
        elif isinstance(branch[3], nn.MaxPool2d):
            outs.append(branch[3](entry(branch, x)))
        else:
            outs.append(unit(branch[3], entry(branch, x)))
    norm, _, conv = module.transform
    return module.bn(conv(torch.relu(norm(torch.cat(outs, 1)))))


def multi_scale_temporal(module: Any, x: Tensor) -> Tensor:
    *dilated, pooled, last = module.branches
    outs = [unit(branch[3], entry(branch, x)) for branch in dilated]
    outs.append(pooled[4](pooled[3](entry(pooled, x))))
    outs.append(last[1](last[0](x)))
    return torch.relu(torch.cat(outs, 1))


def down(module: Any, x: Tensor) -> Tensor:
    return x if isinstance(module, nn.Identity) else module[1](module[0](x))


def joint_graph(module: Any, x: Tensor) -> Tensor:
    links = {
        "offset": lambda: module.A + module.PA,
        "importance": lambda: module.A * module.PA,
    }.get(module.adaptive, lambda: module.A)()
    if module.conv_first:
        parts = module.conv(x).chunk(len(links), 1)
        mixed = torch.stack([part @ link for part, link in zip(parts, links, strict=True)]).sum(0)
    else:
        mixed = module.conv(torch.cat([x @ link for link in links], 1))
    out = module.bn(mixed)
    return torch.relu(out + down(module.down, x) if module.residual else out)


def refined_graph(module: Any, x: Tensor) -> Tensor:
    total = torch.zeros(())
    for conv, link in zip(module.convs, module.A, strict=True):
        p, q = conv.conv1(x).mean(2), conv.conv2(x).mean(2)
        nearness = torch.tanh(p[..., :, None] - q[..., None, :])
        refined = module.alpha * conv.conv4(nearness) + link  # (N, C', U, V)
        total = total + torch.einsum("nctu,ncuv->nctv", conv.conv3(x), refined)
    return torch.relu(module.bn(total) + down(module.down, x))


def logits(model: nn.Module, pose: Tensor) -> Tensor:
    """What `model` gives for clips without a mask of persons; norms in training mode keep statistics as torch does."""
    assert isinstance(model, (STGCN, CTRGCN))
    refined = isinstance(model, CTRGCN)
    kind = "MVC" if refined else model.arguments["data_norm"]
    x = bodies(model.backbone.data_bn, kind, pose)
    for stage in model.backbone.net if refined else model.backbone.gcn:
        if refined:
            out = multi_scale_temporal(stage.tcn1, refined_graph(stage.gcn1, x))
        else:
            temporal = mixed_temporal if model.arguments["tcn_type"] == "mstcn" else unit
            out = temporal(stage.tcn, joint_graph(stage.gcn, x))
        if not stage.first:
            out = out + (x if isinstance(stage.residual, nn.Identity) else unit(stage.residual, x))
        x = torch.relu(out)
    return model.cls_head.fc_cls(x.mean((2, 3)).reshape(*pose.shape[:2], -1).mean(1))
