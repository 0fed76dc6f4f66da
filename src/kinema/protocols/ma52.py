"""The protocol of MA-52 micro-actions: F1 of actions and body parts, macro and micro, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kinema.core import class_metrics
from kinema.errors import ConfigError
from kinema.protocols.action import ActionProtocol
from kinema.protocols.class_report import DIGITS, Judged, Scores
from kinema.protocols.report import Report

if TYPE_CHECKING:
    from kinema.data.class_list import ClassList
    from kinema.data.windows import Windows

BODIES = ("map", "marginal")
_FAMILY = ("f1_mean", "f1_macro_body", "f1_micro_body", "f1_macro_action", "f1_micro_action")
_STRICT = ("f1_mean_strict", "f1_macro_body_strict", "f1_macro_action_strict")


class MA52Protocol(ActionProtocol):
    """The official scores of the MA-52 benchmark in percent, beside those of the action protocol.

    `f1_mean` is the mean of `f1_macro_body`, `f1_micro_body`, `f1_macro_action` and `f1_micro_action`. Macro means go
    over the classes present in the truth or among the predictions (official; all 52 on the full test set), `*_strict`
    ones over the whole list, absent classes as 0. Micro F1 is accuracy, so `f1_micro_action` equals `top1` and
    `f1_micro_body` equals `body_top1`. Test clips of a recording are averaged as in the action protocol.

    Args:
        windows, classes, average, bins, training_counts: as in `ActionProtocol`; the classes must have groups.
        body: where the predicted body part comes from: "map" = that of the predicted action, as official; "marginal" =
            the most probable one when its actions are added up, which is the coarse head of a network that has one.

    Source: Guo et al. 2024 (MA-52), section 5.1. The program of the official server is not public; the formula
    reproduces the published rows.
    """

    name: ClassVar[str] = "ma52"
    version: ClassVar[int] = 1
    scalars: ClassVar[tuple[str, ...]] = (
        *_FAMILY, *_STRICT, "top1", "top1_low", "top1_high", "top5", "mean_class", "body_top1",
        "coarse_fine_inconsistency", "ece", "nll",
    )  # fmt: skip

    def __init__(
        self,
        windows: Windows,
        *,
        classes: ClassList,
        average: str = "prob",
        bins: int = 15,
        training_counts: Sequence[int] | None = None,
        body: str = "map",
    ) -> None:
        super().__init__(windows, classes=classes, average=average, bins=bins, training_counts=training_counts)
        if body not in BODIES:
            raise ConfigError(
                f"task.protocol_options.ma52.body={body} is neither map nor marginal. "
                f"Use task.protocol_options.ma52.body=map."
            )
        if classes.groups is None:
            raise ConfigError(
                "The ma52 protocol needs the body part of every class, and the class list has no groups. "
                "Use task.protocol=action, or dataset.classes=ma52."
            )
        self.body = body

    def compute(self) -> Report:
        """The report: the official scores, tables per level, class, body part and confused pair, arrays of scores."""
        return report(self.scores(), self.body)


def report(scores: Scores, body: str = "map") -> Report:
    """The report of this protocol for scores from anywhere, such as a fusion; the classes have groups."""
    judged = Judged(scores, group_from=body)
    scalars = judged.scalars()
    footers = judged.footers()
    if scalars:
        official = class_metrics.f1_family(judged.confusion, judged.group_confusion)
        strict = class_metrics.f1_family(judged.confusion, judged.group_confusion, over="all")
        named = {"body_top1": scalars["group_top1"]}
        named |= {name: 100 * official[name] for name in _FAMILY}
        named |= {name: 100 * strict[name.removesuffix("_strict")] for name in _STRICT}
        scalars = {name: (named | scalars)[name] for name in MA52Protocol.scalars if name in named | scalars}
        footers["level"] = [
            {
                "level": "F1 mean (macro and micro of both)",
                "f1_macro": scalars["f1_mean"],
                "f1_macro_strict": scalars["f1_mean_strict"],
            }
        ]
    return Report(
        MA52Protocol.name,
        version=MA52Protocol.version,
        scalars=scalars,
        tables={"level": judged.levels(coarse="body"), **judged.tables()},
        footers=footers,
        arrays=judged.arrays(),
        digits={**dict.fromkeys((*_FAMILY, *_STRICT, "body_top1"), 2), **DIGITS},
    )
