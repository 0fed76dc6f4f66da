"""The protocol of action classification: top-1, top-5, mean class accuracy, macro F1 and calibration of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.core.shapes import expect
from kinema.errors import ConfigError, DataError
from kinema.protocols.class_report import DIGITS, SCALARS, Judged, Scores
from kinema.protocols.report import Protocol, Report

if TYPE_CHECKING:
    from kinema.data.class_list import ClassList
    from kinema.data.windows import Windows

AVERAGES = ("prob", "score", "none")


class ActionProtocol(Protocol):
    """Accuracies in percent over clips, each the mean over its test clips (several windows of one recording).

    `top1` and `top5` (from five classes on) are shares of clips; `mean_class` is the mean recall and `f1_macro` the
    mean F1 of the classes that are present in the truth or among the predictions, `f1_macro_strict` the mean over all
    classes of the list. `top1_low` and `top1_high` are the ends of the 95 % Wilson interval, `ece` is the expected
    calibration error, `nll` the mean negative log-likelihood in nats. With groups in the class list `group_top1` is
    the share of clips whose class lies in the right group, and `coarse_fine_inconsistency` the share whose most
    probable group is not that of the most probable class. Clips with a withheld label (-1) are not judged.

    States are sums and counts per clip, so the result does not depend on batch size, order or number of ranks.

    Args:
        windows: evaluation windows; one row per test clip.
        classes: class list; its length is the number of classes.
        average: of the test clips of a recording: "prob", the mean probability, "score", the mean of the network's
            outputs before the softmax, "none": every test clip counts by itself.
        bins: of the reliability curve and of `ece`.
        training_counts: (K,) clips of each class in training, shown beside the results; null = not known.

    Source: pyskl, models/recognizers (average_clips) and core/evaluation.
    """

    name: ClassVar[str] = "action"
    version: ClassVar[int] = 1
    output: ClassVar[str] = "logits"
    scalars: ClassVar[tuple[str, ...]] = SCALARS
    needs: ClassVar[frozenset[str]] = frozenset({"index"})
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        windows: Windows,
        *,
        classes: ClassList,
        average: str = "prob",
        bins: int = 15,
        training_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if average not in AVERAGES:
            raise ConfigError(
                f"task.protocol_options.{self.name}.average={average} is unknown: prob, score or none. "
                f"Use task.protocol_options.{self.name}.average=prob."
            )
        self.classes = classes
        self.average, self.bins, self.training_counts = average, bins, training_counts
        rows = np.asarray(windows.table)[:, 0].astype(np.int64)
        sequence, clip_of = np.unique(rows, return_inverse=True)
        if average == "none":
            sequence, clip_of = rows, np.arange(len(rows))
        table = windows.sequences.table
        self._names, self._labels = names_of(table)[sequence], labels_of(table, classes)[sequence]
        # No buffer: what averages the weights of a module averages its buffers too.
        self._clip_of = torch.from_numpy(clip_of.astype(np.int64))
        shape = (len(sequence), len(classes.names))
        self.add_state("sums", torch.zeros(*shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(shape[0], dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the scores of a batch of windows.

        Args:
            prediction: (B, K) outputs before the softmax.
            batch: `index` (B,) rows of the windows, -1 = filler.
        """
        index = batch["index"]
        expect(prediction, "B K", "prediction", B=len(index), K=len(self.classes.names))
        self._clip_of = self._clip_of.to(index.device)
        counted = index >= 0
        clip = self._clip_of[index.clamp_min(0)]
        values = prediction.double() if self.average == "score" else prediction.double().softmax(1)
        # where, not a product: what a filler predicts may be NaN
        self.sums.index_add_(0, clip, torch.where(counted[:, None], values, 0))
        self.counts.index_add_(0, clip, counted.double())

    def scores(self) -> Scores:
        """What has been added so far, of the clips that were seen."""
        counts = self.counts.cpu()
        seen = counts > 0
        mean = self.sums.cpu()[seen] / counts[seen, None]
        smallest = torch.finfo(mean.dtype).tiny
        log_probs = mean.log_softmax(1) if self.average == "score" else mean.clamp_min(smallest).log()
        where = seen.numpy()
        return Scores(
            log_probs=log_probs.numpy(),
            labels=self._labels[where],
            names=self._names[where],
            classes=self.classes,
            training_counts=self.training_counts,
            bins=self.bins,
        )

    def compute(self) -> Report:
        """The report: scalars, tables per level, class, group and confused pair, arrays of scores."""
        return report(self.scores())


def report(scores: Scores) -> Report:
    """The report of this protocol for scores from anywhere, such as a fusion."""
    judged = Judged(scores)
    return Report(
        ActionProtocol.name,
        version=ActionProtocol.version,
        scalars=judged.scalars(),
        tables={"level": judged.levels(), **judged.tables()},
        footers=judged.footers(),
        arrays=judged.arrays(),
        digits=DIGITS,
    )


def names_of(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Names of the clips of a store, one per row."""
    return np.asarray(table["clip"] if "clip" in table else table["trial"], dtype=str)


def labels_of(table: Mapping[str, np.ndarray], classes: ClassList) -> np.ndarray:
    """Class of each row of a store, -1 where it is withheld.

    Raises:
        DataError: there are no labels, or one lies outside of the class list.
    """
    if "label" not in table:
        raise DataError("The data has no labels, so nothing can be classified. Use a dataset of actions: dataset=ma52.")
    labels = np.asarray(table["label"], np.int64)
    outside = np.flatnonzero(labels >= len(classes.names))
    if len(outside):
        row = outside[0]
        raise DataError(
            f"Clip {names_of(table)[row]} has label {labels[row]}, the class list ends at {len(classes.names) - 1}. "
            f"Repair the label, or name the right list: dataset.classes=/path/to/classes.txt."
        )
    return labels
