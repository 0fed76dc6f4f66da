"""The protocol of one-shot recognition: every clip gets the class of its most similar exemplar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.core import class_metrics
from kinema.core.retrieval import cosine_similarity
from kinema.core.shapes import expect
from kinema.errors import DataError
from kinema.protocols.action import labels_of, names_of
from kinema.protocols.class_report import DIGITS, class_rows, pair_rows
from kinema.protocols.report import Protocol, Report, Row

if TYPE_CHECKING:
    from kinema.data.class_list import ClassList
    from kinema.data.windows import Windows


class OneShotProtocol(Protocol):
    """Accuracy in percent of the nearest exemplar by cosine similarity of embeddings.

    The windows hold exemplars and queries; which is which the column `split` of the data says. `top1` is the share of
    queries whose nearest exemplar has their class (MotionBERT prints it as a fraction), `top5` the share that have one
    among the five nearest, `mean_class` the mean recall of the classes. Embeddings of several test clips of one
    recording are added up before they are compared. Queries without label are not judged.

    Args:
        windows: evaluation windows, one row per test clip.
        classes: class list; labels of exemplars and queries are its ids.
        exemplar_split: in the column `split`, what exemplars are called. All others are queries.

    Source: MotionBERT, train_action_1shot.py (validate), with the network in evaluation mode.
    """

    name: ClassVar[str] = "oneshot"
    version: ClassVar[int] = 1
    output: ClassVar[str] = "embedding"
    scalars: ClassVar[tuple[str, ...]] = ("top1", "top1_low", "top1_high", "top5", "mean_class")
    needs: ClassVar[frozenset[str]] = frozenset({"index"})
    sums: Tensor
    counts: Tensor

    def __init__(self, windows: Windows, *, classes: ClassList, exemplar_split: str = "exemplar") -> None:
        super().__init__()
        table = windows.sequences.table
        sequence, clip_of = np.unique(np.asarray(windows.table)[:, 0].astype(np.int64), return_inverse=True)
        self.classes = classes
        self._names, self._labels = names_of(table)[sequence], labels_of(table, classes)[sequence]
        self._exemplar = np.asarray(table["split"], dtype=str)[sequence] == exemplar_split
        _check(self._names, self._labels, self._exemplar, classes, exemplar_split)
        # No buffer: what averages the weights of a module averages its buffers too.
        self._clip_of = torch.from_numpy(clip_of.astype(np.int64))
        # One column until the first batch tells how long an embedding is.
        self.add_state("sums", torch.zeros(len(sequence), 1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(len(sequence), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the embeddings of a batch of windows.

        Args:
            prediction: (B, D) embeddings.
            batch: `index` (B,) rows of the windows, -1 = filler.
        """
        index = batch["index"]
        expect(prediction, "B D", "prediction", B=len(index))
        if self.sums.shape[1] != prediction.shape[1]:
            self.sums = self.sums.new_zeros(len(self.sums), prediction.shape[1])
        self._clip_of = self._clip_of.to(index.device)
        counted = index >= 0
        clip = self._clip_of[index.clamp_min(0)]
        # where, not a product: what a filler predicts may be NaN
        self.sums.index_add_(0, clip, torch.where(counted[:, None], prediction.double(), 0))
        self.counts.index_add_(0, clip, counted.double())

    def compute(self) -> Report:
        """The report: scalars, tables per class and confused pair, similarities of the queries.

        Classes are those of the exemplars: `classes` (E,) their names, `class_ids` (E,) their ids in the class list;
        `labels` (N,), -1 where withheld, `predictions` (N,) and `confusion` (E, E) count in them. `similarity`
        (N, exemplars) has one column for each of `exemplars`, whose classes are `exemplar_labels`.
        """
        seen = self.counts.cpu().numpy() > 0
        exemplar, query = seen & self._exemplar, seen & ~self._exemplar
        if not (exemplar.any() and query.any()):
            return Report(self.name, version=self.version, scalars={})
        novel, known = np.unique(self._labels[exemplar], return_inverse=True)
        truth = np.where(self._labels[query] < 0, -1, np.searchsorted(novel, self._labels[query]))
        sums = self.sums.cpu()
        similarity = cosine_similarity(sums[torch.from_numpy(query)], sums[torch.from_numpy(exemplar)])
        nearest = known[similarity.topk(min(5, len(known)), dim=1).indices.numpy()]
        judged = truth >= 0
        names = [self.classes.names[label] for label in novel]
        counts = class_metrics.confusion(truth[judged], nearest[judged, 0], len(novel))
        scalars = _scalars(counts, nearest[judged], truth[judged])
        return Report(
            self.name,
            version=self.version,
            scalars=scalars,
            tables=_tables(counts, names, scalars, len(known)),
            arrays={
                "names": self._names[query],
                "labels": truth,
                "predictions": nearest[:, 0],
                "similarity": similarity.numpy().astype(np.float32),
                "exemplars": self._names[exemplar],
                "exemplar_labels": known,
                "classes": np.asarray(names, dtype=str),
                "class_ids": novel,
                "confusion": counts,
            },
            digits=DIGITS,
        )


def _scalars(counts: np.ndarray, nearest: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Percents of the labelled queries, whose nearest exemplars have the classes `nearest` (N, up to 5)."""
    total = len(truth)
    if not total:
        return {}
    low, high = class_metrics.wilson_interval(np.trace(counts), total)
    found = {"top1": class_metrics.accuracy(counts), "top1_low": float(low), "top1_high": float(high)}
    if nearest.shape[1] == 5:
        found["top5"] = float((nearest == truth[:, None]).any(1).mean())
    found["mean_class"] = class_metrics.mean_class_accuracy(counts)
    return {name: 100 * value for name, value in found.items()}


def _tables(counts: np.ndarray, names: list[str], scalars: dict[str, float], exemplars: int) -> dict[str, list[Row]]:
    if not scalars:
        return {}
    level: Row = {
        "level": "one-shot", "queries": int(counts.sum()), "exemplars": exemplars, "top1": scalars["top1"],
        "low": scalars["top1_low"], "high": scalars["top1_high"], "top5": scalars.get("top5"),
        "mean_class": scalars["mean_class"],
    }  # fmt: skip
    tables = {
        "level": [level],
        "class": class_rows("class", names, class_metrics.per_class(counts)),
        "confused_pair": pair_rows(counts, names),
    }
    return {name: rows for name, rows in tables.items() if rows}


def _check(names: np.ndarray, labels: np.ndarray, exemplar: np.ndarray, classes: ClassList, split: str) -> None:
    """Refuse windows in which a query cannot find its class."""
    if not exemplar.any():
        raise DataError(
            f"No evaluated clip stands in split {split!r}, so there is nothing to compare with. "
            f"Use dataset=ntu120_oneshot, or write {split!r} into the column split."
        )
    if (labels[exemplar] < 0).any():
        name = names[exemplar][labels[exemplar] < 0][0]
        raise DataError(f"Exemplar {name} has no label. Give it one: an exemplar shows what its class looks like.")
    strangers = ~exemplar & (labels >= 0) & ~np.isin(labels, labels[exemplar])
    if strangers.any():
        row = np.flatnonzero(strangers)[0]
        raise DataError(
            f"Query {names[row]} is of class {classes.names[labels[row]]!r}, which has no exemplar. "
            f"Give the class an exemplar, or leave its clips out of the evaluated split."
        )
