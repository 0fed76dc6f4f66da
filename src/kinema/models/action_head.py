"""ActionNet: a backbone and a head that names the action of a clip, or embeds it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.layers.exporting import traced
from kinema.models.registry import Shapes, from_record, recognised, record, register

_BACKBONE = "backbone."
_FC1 = ("head.fc1.weight", "head.fc1.bias")
_BN = tuple(f"head.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))
_FC2 = ("head.fc2.weight", "head.fc2.bias")
_COARSE = ("head.fc_group.weight", "head.fc_group.bias")
# Names in a state dict by the kind of head.
_NAMES = {"class": {*_FC1, *_BN, *_FC2}, "embed": {*_FC1}, "coarse_fine": {*_FC1, *_BN, *_FC2, *_COARSE}}
HEADS = tuple(_NAMES)


@register("action")
class ActionNet(nn.Module):
    """Recognise the action of a clip of one or several persons, or embed the clip.

    Input (B, M, T, J, C): M persons, T frames up to what the backbone takes. Output by `head`:

    - "class": (B, K) logits. Features -> dropout -> mean over frames -> joints and channels in one vector -> mean over
      persons -> linear, batch norm, ReLU, linear.
    - "embed": (B, H) embeddings of length 1, from the same pooling and one linear layer.
    - "coarse_fine": (B, K) log-probabilities, log P(group) + log P(class | group), from two linear layers on the
      trunk of "class". Their sums over the classes of a group are P(group).

    Args:
        backbone: a model with `features`, or its record {"model": registered name, "args": its arguments}. Its own
            `head` has no part in the output; it stays under its official name, frozen, so that official files load
            and distributed training waits for no gradient of it.
        head: "class", "embed" or "coarse_fine".
        hidden: channels between the layers of the head; the length of an embedding.
        num_classes: K; an embedding has none.
        dropout: rate on the backbone's features.
        groups: group of each class, for "coarse_fine"; null otherwise.
        persons: M.
        mask_persons: take the mean over the persons that `forward` is told of. False = over all M, absent ones as
            zeros (published behaviour).

    Initialisation: head as PyTorch does, backbone as it does itself.

    Source: Zhu et al. 2023, lib/model/model_action.py, whose parameter names are kept; "coarse_fine" is ours.
    """

    # The published code ignores its option `hidden_dim` for "class" and takes 2048; here it stands in the weights.
    unknowable: ClassVar[dict[str, Any]] = {"dropout": 0.0, "groups": None, "persons": 2, "mask_persons": False}

    def __init__(
        self,
        *,
        backbone: nn.Module | Mapping[str, Any],
        head: str,
        hidden: int,
        num_classes: int | None,
        dropout: float,
        groups: Sequence[int] | None,
        persons: int,
        mask_persons: bool,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            backbone = from_record(backbone)
        num_classes = None if head == "embed" else num_classes
        groups = None if groups is None else [int(group) for group in groups]
        _check(backbone, head, num_classes, groups)
        self.arguments: dict[str, Any] = {
            "backbone": record(backbone),
            "head": head,
            "hidden": hidden,
            "num_classes": num_classes,
            "dropout": dropout,
            "groups": groups,
            "persons": persons,
            "mask_persons": mask_persons,
        }
        inside: Signature = backbone.signature  # type: ignore[assignment]
        self.signature = Signature(
            output="embedding" if head == "embed" else "logits",
            in_channels=inside.in_channels,
            joints=inside.joints,
            joints_out=inside.joints,
            frames=inside.frames,
            frames_rule=inside.frames_rule,
            persons=persons,
            classes=num_classes,
            feature_dim=hidden if head == "embed" else None,
        )
        self.mask_persons = mask_persons
        self.backbone = backbone
        unused = getattr(backbone, "head", None)
        if isinstance(unused, nn.Module):
            unused.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.head = ActionHead(head, inside.joints * int(inside.feature_dim or 0), hidden, num_classes, groups)

    def forward(self, pose: Tensor, persons: Tensor | None = None) -> Tensor:
        """Recognise or embed a batch of clips.

        Args:
            pose: (B, M, T, J, C).
            persons: (B, M) bool, who is present; None = everybody. With `mask_persons` only these are looked at.

        Returns:
            (B, K) logits or log-probabilities, or (B, H) embeddings.
        """
        expect_pose(pose, self.signature)
        return self.head(self.pool(pose, persons))

    def pool(self, pose: Tensor, persons: Tensor | None = None) -> Tensor:
        """Return what the head sees, (B, J*R): the mean of the features over frames and persons."""
        count = pose.shape[1]
        if persons is None or not self.mask_persons or count == 1:
            return self._describe(pose.flatten(0, 1)).unflatten(0, (-1, count)).mean(1)
        weights = persons.to(pose.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1)  # (B, M); a clip without anybody stays 0
        present = None if traced() else pose[persons]
        if present is None or not len(present):
            pooled = self._describe(pose.flatten(0, 1)).unflatten(0, (-1, count))
        else:  # absent persons cost nothing: most clips of two-person data sets have one
            each = self._describe(present)
            pooled = each.new_zeros(*persons.shape, each.shape[1])
            pooled[persons] = each
        return (pooled * weights[:, :, None]).sum(1)

    def _describe(self, clips: Tensor) -> Tensor:
        """One vector for each one-person clip, (N, T, J, C) to (N, J*R)."""
        features = self.backbone.features(clips)  # type: ignore[operator]  # _check asked for it
        return self.dropout(features).mean(1).flatten(1)

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        own = {name for name in shapes if not name.startswith(_BACKBONE)}
        head = next((kind for kind, names in _NAMES.items() if names == own), None)
        if head is None:
            return None
        below = {name[len(_BACKBONE) :]: shape for name, shape in shapes.items() if name.startswith(_BACKBONE)}
        answers = recognised(below)
        if len(answers) != 1:
            return None
        family, arguments = next(iter(answers.items()))
        hidden, _ = shapes["head.fc1.weight"]
        return {
            "backbone": {"model": family, "args": arguments},
            "head": head,
            "hidden": hidden,
            "num_classes": None if head == "embed" else shapes["head.fc2.weight"][0],
        }


class ActionHead(nn.Module):
    """From a pooled vector (B, F) to logits, log-probabilities or embeddings; see `ActionNet`."""

    outside: Tensor
    group_of: Tensor

    def __init__(
        self, kind: str, channels: int, hidden: int, num_classes: int | None, groups: Sequence[int] | None
    ) -> None:
        super().__init__()
        self.kind = kind
        if kind != "embed":
            self.bn = nn.BatchNorm1d(hidden)
        self.fc1 = nn.Linear(channels, hidden)
        if kind != "embed":
            self.fc2 = nn.Linear(hidden, int(num_classes or 0))
        if kind == "coarse_fine":
            group_of = torch.tensor(groups)
            count = len(set(groups or ()))
            member = group_of[:, None] == torch.arange(count)  # (K, G)
            self.fc_group = nn.Linear(hidden, count)
            self.register_buffer("group_of", group_of, persistent=False)
            outside = torch.zeros(member.shape).masked_fill(~member, float("-inf"))
            self.register_buffer("outside", outside, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.kind == "embed":
            return F.normalize(_single(x), dim=-1)
        x = F.relu(self._normalised(x))
        if self.kind == "class":
            return self.fc2(x)
        coarse, fine = _single(self.fc_group(x)).log_softmax(-1), _single(self.fc2(x))
        inside = (fine[:, :, None] + self.outside).logsumexp(1)  # (B, G), what makes P(class | group) add up to 1
        return fine + (coarse - inside)[:, self.group_of]

    def _normalised(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1 and not _across_ranks(self.bn):
            # One clip has no spread: the last, uneven batch of an epoch would stop the published training here.
            return F.batch_norm(
                x, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias, eps=self.bn.eps
            )
        return self.bn(x)


def _across_ranks(norm: nn.Module) -> bool:
    """Whether a norm's statistics are those of several processes, which all wait for each other in it."""
    distributed = torch.distributed
    shared = isinstance(norm, nn.SyncBatchNorm) and distributed.is_available() and distributed.is_initialized()
    return shared and distributed.get_world_size() > 1


def _single(x: Tensor) -> Tensor:
    """Half precision, as autocast leaves it, is too coarse for lengths of 1 and sums of probabilities."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check(backbone: nn.Module, head: str, num_classes: int | None, groups: Sequence[int] | None) -> None:
    """Refuse what no action network can be made of."""
    signature: Signature | None = getattr(backbone, "signature", None)
    if not hasattr(backbone, "features") or signature is None or signature.feature_dim is None:
        raise ConfigError(
            f"{type(backbone).__name__} gives no features, so it cannot be a backbone. "
            "Use model@model.backbone=dstformer_lite."
        )
    if head not in _NAMES:
        near = difflib.get_close_matches(head, HEADS, n=1)
        raise ConfigError(f"model.head={head} is unknown. Use model.head={near[0] if near else '|'.join(HEADS)}.")
    if head == "embed":
        return
    if num_classes is None or num_classes < 1:
        raise ConfigError(
            f"model.num_classes={num_classes} is no number of classes, which model.head={head} needs. "
            "Use a data set with classes, model.num_classes=60, or model.head=embed."
        )
    if head != "coarse_fine":
        return
    if groups is None or len(groups) != num_classes or set(groups) != set(range(max(groups) + 1)):
        raise ConfigError(
            f"model.head=coarse_fine needs the group of each of its {num_classes} classes, numbered from 0 without "
            f"gaps, but model.groups={groups}. Use dataset.classes with groups (ma52), or model.head=class."
        )
