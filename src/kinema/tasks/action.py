"""Action recognition: a class per clip, or an embedding in which clips of one class are neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core import class_losses
from kinema.core import losses as core_losses
from kinema.core.spec import DataSpec, Signature
from kinema.data.class_list import ClassList
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.inference.flip import mirror_pose
from kinema.protocols.registry import ACTION as PROTOCOLS
from kinema.protocols.report import Protocol
from kinema.tasks.base import Batch, Task, one_of, options_by_protocol
from kinema.tasks.optim import OptimizerRecipe, SchedulerRecipe

# Terms by the kind of output that they are computed from.
_OF_LOGITS = ("cross_entropy", "focal", "coarse")
_OF_EMBEDDING = ("supcon",)


class ActionTask(Task):
    """Train and judge a network that gives class logits, or unit embeddings, of clips.

    Args:
        model: network with output "logits" or "embedding"; called with (pose (B, M, T, J, C), persons (B, M)).
        optimizer: recipe.
        scheduler: recipe or null.
        losses: weight of each term: "cross_entropy", "focal" and "coarse" (cross-entropy of the class groups) of
            logits, "supcon" of embeddings; terms of weight 0 are not computed.
        label_smoothing: share of the target spread over all classes.
        focal_gamma: exponent of the focal loss.
        class_balance: beta of the class-balanced weights (Cui et al. 2019); 0 = all clips weigh the same.
        logit_adjustment: tau of the logit-adjusted loss (Menon et al. 2021); 0 = none.
        temperature: of the supervised contrastive loss.
        flip_average: predict the mirrored clip as well and take the mean of the probabilities.
        protocol: name in `protocols.registry.ACTION`.
        protocol_options: options of each protocol by its name.
        options: those of `Task`.
    """

    name: ClassVar[str] = "action"
    outputs: ClassVar[frozenset[str]] = frozenset({"logits", "embedding"})
    needs: ClassVar[frozenset[str]] = frozenset({"label"})
    modes: ClassVar[frozenset[str]] = frozenset({"submit"})

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerRecipe,
        scheduler: SchedulerRecipe | None = None,
        *,
        losses: Mapping[str, float],
        label_smoothing: float,
        focal_gamma: float,
        class_balance: float,
        logit_adjustment: float,
        temperature: float,
        flip_average: bool,
        protocol: str,
        protocol_options: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, scheduler, **options)
        for name in losses:
            one_of("losses", name, (*_OF_LOGITS, *_OF_EMBEDDING))
        self.weights = {name: float(weight) for name, weight in losses.items() if weight}
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma
        self.class_balance, self.logit_adjustment = class_balance, logit_adjustment
        self.temperature = temperature
        self.flip_average = flip_average
        self.protocol = one_of("protocol", protocol, tuple(PROTOCOLS))
        self.protocol_options = options_by_protocol(protocol_options, tuple(PROTOCOLS))
        self.classes: ClassList | None = None
        self._counts: Tensor | None = None  # training clips of each class, as the order shows them

    def check(self, signature: Signature, spec: DataSpec) -> None:
        """Refuse losses and protocols that do not belong to the network's output or the data's classes."""
        fitting = _OF_LOGITS if signature.output == "logits" else _OF_EMBEDDING
        wrong = [name for name in self.weights if name not in fitting]
        if wrong or not self.weights:
            zeros = " ".join(f"task.losses.{name}=0" for name in wrong)
            raise ConfigError(
                f"The network gives {signature.output}, which the loss {', '.join(wrong) or '(none)'} cannot train. "
                f"Use {zeros} task.losses.{fitting[0]}=1."
            )
        if PROTOCOLS[self.protocol].output != signature.output:
            other = next(name for name, one in PROTOCOLS.items() if one.output == signature.output)
            raise ConfigError(
                f"task.protocol={self.protocol} judges {PROTOCOLS[self.protocol].output}, but the network gives "
                f"{signature.output}. Use task.protocol={other}."
            )
        if "coarse" in self.weights and spec.class_groups is None:
            raise ConfigError("The loss coarse needs groups of classes, which this data set does not name. "
                              "Use task.losses.coarse=0.")  # fmt: skip

    def setup(self, stage: str) -> None:
        self.classes = self._data().classes
        super().setup(stage)
        if stage == "fit":
            self._counts = torch.tensor(self._data().shown_counts(), dtype=torch.float32)

    # Training.

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self._counts is not None:  # the network has reached its device by now, after `setup`
            self._counts = self._counts.to(self.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss of a batch.

        Args:
            batch: `pose` (B, M, T, J, C), `persons` (B, M), `label` (B,); optional `mix` (B,) and `partner` (B,): the
                share of the clip in a blend, and the label of the other.

        Returns:
            `loss`, the weighted sum, every term before its weight, and `top1`, percent of the clips that are right.
        """
        out = self.model(batch["pose"], batch["persons"]).float()
        label = batch["label"]
        terms: dict[str, Tensor] = {}
        if "supcon" in self.weights:
            if "mix" in batch:
                raise ConfigError(
                    "mixup blends clips of two classes, and supcon compares clips of one. "
                    "Use 'dataset.augment=[]', or a list without mixup."
                )
            features, labels = self._of_all_ranks(out, batch)
            terms["supcon"] = core_losses.supcon(features[:, None], labels, temperature=self.temperature)
        else:
            terms = self._of_logits(out, self._target(out, batch))
        total = sum((weight * terms[name] for name, weight in self.weights.items()), start=out.new_zeros(()))
        if "supcon" not in self.weights:
            terms["top1"] = 100 * (out.detach().argmax(-1) == label).float().mean()
        return {"loss": total, **terms}

    def _of_logits(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        counts = self._counts if self._counts is not None else logits.new_ones(logits.shape[-1])
        weight = class_losses.class_balanced_weights(counts, self.class_balance) if self.class_balance else None
        tau = self.logit_adjustment
        adjusted = class_losses.logit_adjusted(logits, counts, tau) if tau else logits
        terms = {}
        if "cross_entropy" in self.weights:
            terms["cross_entropy"] = class_losses.cross_entropy(
                adjusted, target, label_smoothing=self.label_smoothing, weight=weight
            )
        if "focal" in self.weights:
            terms["focal"] = class_losses.focal(adjusted, target, gamma=self.focal_gamma, weight=weight)
        if "coarse" in self.weights:
            assert self.spec is not None and self.spec.class_groups is not None
            groups = class_losses.group_log_probs(logits.log_softmax(-1), self.spec.class_groups)
            coarse = class_losses.group_target(target, self.spec.class_groups)
            terms["coarse"] = class_losses.cross_entropy(groups, coarse, label_smoothing=self.label_smoothing)
        return terms

    @staticmethod
    def _target(logits: Tensor, batch: Batch) -> Tensor:
        """Class numbers (B,), or for blended clips shares of the classes (B, K)."""
        if "mix" not in batch:
            return batch["label"]
        share = batch["mix"][:, None].to(logits)
        own, other = (nn.functional.one_hot(batch[key], logits.shape[-1]).to(logits) for key in ("label", "partner"))
        return share * own + (1 - share) * other

    def _of_all_ranks(self, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings and labels of the whole global batch: a loss that compares samples must see them all.

        Args:
            features: (B, D) of this rank.
            batch: `label` (B,), and on several ranks `index` (B,), -1 for the filler of a rank that has no sample.
        """
        labels = batch["label"]
        if self._trainer is None or self.trainer.world_size == 1:
            return features, labels
        # Ranks may have unequal shares, and only equal shapes can be gathered.
        missing = -(-self._data().batch_size // self.trainer.world_size) - len(features)
        padded = nn.functional.pad(features, (0, 0, 0, missing))
        known = nn.functional.pad(torch.where(batch["index"] < 0, -1, labels), (0, missing), value=-1)
        all_features: Any = self.all_gather(padded, sync_grads=True)
        all_labels: Any = self.all_gather(known)
        there = all_labels.flatten() >= 0
        return all_features.flatten(0, 1)[there], all_labels.flatten()[there]

    # Prediction.

    def predict(self, batch: Batch, *, flip_average: bool | None = None) -> Tensor:  # type: ignore[override]
        """Log-probabilities (B, K) of the classes, or unit embeddings (B, D).

        Args:
            batch: `pose` (B, M, T, J, C), `persons` (B, M).
            flip_average: null follows the task.
        """
        out = self.model(batch["pose"], batch["persons"]).float()
        averaged = self.flip_average if flip_average is None else flip_average
        embeds = self.signature.output == "embedding"
        if not averaged:
            return out if embeds else out.log_softmax(-1)
        assert self.spec is not None and self.spec.skeleton is not None
        other = self.model(mirror_pose(batch["pose"], self.spec.skeleton), batch["persons"]).float()
        if embeds:
            return nn.functional.normalize(out + other, dim=-1)
        both = torch.stack([out.log_softmax(-1), other.log_softmax(-1)])
        return both.logsumexp(0) - math.log(2)

    # Evaluation.

    def protocols(self, windows: Windows) -> dict[str, Protocol]:
        protocol = PROTOCOLS[self.protocol]
        name = protocol.name  # the benchmarks of NTU RGB+D are other names of one protocol
        options = dict(self.protocol_options.get(name, {}))
        if protocol.output == "logits":
            options = {"training_counts": self._data().training_counts(), **options}
        try:
            return {name: protocol(windows, classes=self.classes, **options)}
        except TypeError as error:
            raise ConfigError(f"task.protocol_options.{name}: {error}. See conf/task/action.yaml.") from error

    def scalars(self) -> tuple[str, ...]:
        return tuple(PROTOCOLS[self.protocol].scalars)
