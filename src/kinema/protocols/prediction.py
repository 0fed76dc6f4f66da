"""The protocol of motion prediction: diversity and best-of-K errors of sampled futures, as in HumanMAC and SMRNet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.core import motion_metrics, motion_reach
from kinema.core.shapes import expect
from kinema.data.windows import SEQUENCE, START
from kinema.errors import ConfigError
from kinema.inference.motion_features import MotionFeatures
from kinema.protocols.prediction_truth import truth_of
from kinema.protocols.report import Protocol, Report, Row
from kinema.viz.figures import error_bars
from kinema.viz.prediction_figures import error_over_time

if TYPE_CHECKING:
    from kinema.data.windows import Windows

# The columns of the papers' tables, and what BeLFusion and CoMusion add.
PUBLISHED = ("apd", "ade", "fde", "mmade", "mmfde")
FURTHER = ("cmd", "apde")
# The released programs write their table under this name, whatever the network.
_COLUMN = "HumanMAC"


class PredictionProtocol(Protocol):
    """Judge K sampled futures of every window; metres of the feature vector (all joints but the root together).

    `apd` is the mean distance between two samples of a window, `ade` and `fde` the errors of the best sample over all
    frames and in the last one, `mmade` and `mmfde` the same to every true future of the window's group (windows whose
    last observed poses are less than `threshold` apart, the window itself included), averaged over the group; all are
    plain means over windows. `cmd` compares how far joints move per frame with `mean_motion`, `apde` the diversity with
    that of the group's true futures, and `fid_<data>` features that a recogniser of actions finds in predictions and
    truths.

    Groups are those among all windows, also where only some of them are judged (`limit_windows`): the numbers of a
    window do not depend on which others are judged beside it. A prediction of NaN means that there is none, such as
    that of a baseline without training data: every number is then missing.

    States have one row per window or are sums, so the result does not depend on batch size, order or number of ranks.

    Args:
        windows: evaluation windows of history + horizon frames.
        history: observed frames H of each.
        threshold: of the groups, metres of the feature vector.
        mean_motion: action to mean way of a joint per frame in real motions, metres, see `core.motion_metrics.cmd`;
            null = not known, `cmd` is missing then.
        feature_network: checkpoint of task=action that gives the features of `fid_<data>`; null = no FID.

    Source: HumanMAC, utils/evaluation.py (compute_stats); BeLFusion and CoMusion (cmd, FID, apde).
    """

    name: ClassVar[str] = "prediction"
    version: ClassVar[int] = 1
    scalars: ClassVar[tuple[str, ...]] = (*PUBLISHED, *FURTHER)
    needs: ClassVar[frozenset[str]] = frozenset({"index"})
    values: Tensor
    motion: Tensor
    seen: Tensor
    curves: Tensor
    reach: Tensor
    feature_count: Tensor
    feature_sum: Tensor
    feature_products: Tensor

    def __init__(
        self,
        windows: Windows,
        *,
        history: int,
        threshold: float = 0.5,
        mean_motion: Mapping[str, float] | None = None,
        feature_network: str | None = None,
    ) -> None:
        super().__init__()
        length = windows.targets
        if length is None or not 0 < history < length:
            raise ConfigError(
                f"Windows of {length} frames cannot show {history} and ask for the rest. "
                "Use dataset.history and dataset.horizon of at least 1 frame."
            )
        self.windows, self.history = windows, history
        self._truth = truth_of(windows, history, float(threshold))
        rows = np.asarray(windows.table)[:, SEQUENCE]
        self._actions = np.asarray(windows.sequences.table["action"], dtype=str)[rows]
        self._mean_motion = self._known(mean_motion)
        self._samples = 0
        count, horizon = len(windows), length - history
        sizes: dict[str, tuple[int, ...]] = {
            "values": (count, len(PUBLISHED)), "motion": (count, horizon - 1), "seen": (count,), "curves": (2, horizon),
            "reach": (),
        }  # fmt: skip
        self._network: MotionFeatures | None = None
        if feature_network is not None:
            body = windows.sequences.skeleton
            assert body is not None
            self._network = MotionFeatures(str(feature_network), body)
            width = self._truth.features(self._network).shape[1]
            sizes |= {"feature_count": (), "feature_sum": (width,), "feature_products": (width, width)}
        for state, shape in sizes.items():
            self.add_state(state, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def _known(self, mean_motion: Mapping[str, float] | None) -> dict[str, float]:
        known = {str(action): float(way) for action, way in (mean_motion or {}).items()}
        absent = sorted(set(self._actions.tolist()) - set(known))
        if known and absent:
            self._truth.tell(f"cmd leaves out actions whose mean motion is not known: {', '.join(absent)}.")
        return known

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the futures of a batch of windows.

        Args:
            prediction: (B, K, P, F) metres, joints relative to the root, without the root.
            batch: `index` (B,) rows of the windows, -1 = filler.
        """
        index = batch["index"]
        horizon, features = self._truth.futures.shape[1:]
        expect(prediction, "B K P F", "prediction", B=len(index), P=horizon, F=features)
        self._samples = prediction.shape[1]
        judged = (index >= 0).nonzero()[:, 0]
        index, samples = index[judged], prediction[judged].float()
        if not len(index):
            return
        rows, futures = self._truth.rows[index.cpu()], self._truth.on(samples.device)
        found = motion_metrics.prediction_errors(samples, futures, self._truth.group, rows)
        self.values[index] = torch.stack([found[name] for name in PUBLISHED], dim=1).double()
        self.motion[index] = motion_metrics.motion_per_frame(samples).double()
        self.seen[index] = 1
        self.reach += motion_reach.reach(samples).double().mean((1, 2)).sum()
        distances = torch.linalg.vector_norm(samples - futures[rows.to(samples.device)][:, None], dim=-1)  # (B, K, P)
        self.curves += torch.stack([distances.amin(1), distances.mean(1)]).double().sum(1)
        if self._network is not None:
            told = self._network(samples.flatten(0, 1)).to(self.feature_sum)
            self.feature_count += len(told)
            self.feature_sum += told.sum(0)
            self.feature_products += told.T @ told

    def compute(self) -> Report:
        """The report: scalars, a table per action, arrays per window, errors over time, the files of the originals."""
        seen = self.seen.cpu().numpy() > 0
        columns = dict(zip(PUBLISHED, self.values.cpu().numpy().T, strict=True))
        reference = self._truth.diversity(self.values.device)
        columns["apde"] = motion_metrics.apde(torch.from_numpy(columns["apd"]), reference).numpy()
        whole = self._row(columns, seen)
        scalars: dict[str, float] = {name: whole[name] for name in self.scalars}
        if self._network is not None:
            scalars[self._network.metric] = self._fid(self._network)
        count, total = int(seen.sum()), self.windows.total
        which = f"all {count}" if count == total else f"{count} of {total}"
        official = _official(scalars)
        size = {"windows": count} if count == total else {"windows": count, "of": total}
        return Report(
            self.name,
            version=self.version,
            scalars={name: value for name, value in scalars.items() if name in PUBLISHED or not np.isnan(value)},
            tables={"action": self._by_action(columns, seen)},
            footers={"action": [{"action": f"{which} windows", **whole}]},
            arrays=self._arrays(columns, seen),
            figures=self._figures(columns, seen, which),
            digits=dict.fromkeys(scalars, 3),
            note=self._note(
                seen, "" if count == total else f"{which} windows, evenly spaced: published tables are of all of them."
            ),
            missing="-",
            summary={"samples": self._samples, **size, **scalars},
            official={"stats_latest.csv": lambda _: official, "stats.csv": partial(_appended, official)},
        )

    # Parts of the report.

    def _note(self, seen: np.ndarray, subset: str) -> str:
        rows = self._truth.rows[torch.from_numpy(seen)]
        body = float(motion_reach.reach(self._truth.futures[rows]).mean())
        size = motion_reach.told(float(self.reach) / max(int(seen.sum()), 1), body)
        return " ".join(text for text in (size, subset) if text)

    def _row(self, columns: Mapping[str, np.ndarray], where: np.ndarray) -> Row:
        """Number of windows and the means over them."""
        row: Row = {"windows": int(where.sum())}
        row |= {name: _mean(columns[name][where]) for name in PUBLISHED}
        return row | {"cmd": self._cmd(where), "apde": _mean(columns["apde"][where], without_nan=True)}

    def _by_action(self, columns: Mapping[str, np.ndarray], seen: np.ndarray) -> list[Row]:
        names = sorted(set(self._actions[seen].tolist()))
        return [{"action": name, **self._row(columns, seen & (self._actions == name))} for name in names]

    def _cmd(self, where: np.ndarray) -> float:
        """Over the windows whose action has a known mean motion."""
        known = list(self._mean_motion)
        rows = np.flatnonzero(where & np.isin(self._actions, known))
        if not len(rows):
            return float("nan")
        classes = torch.tensor([known.index(name) for name in self._actions[rows].tolist()])
        means = torch.tensor(list(self._mean_motion.values()), dtype=torch.float64)
        return float(motion_metrics.cmd(self.motion.cpu()[rows], classes, means))

    def _fid(self, network: MotionFeatures) -> float:
        truth = self._truth.features(network).cpu()
        count = int(self.feature_count)
        if min(count, len(truth)) < 2 or not bool(self.feature_sum.isfinite().all()):
            return float("nan")
        real = motion_metrics.moments(len(truth), truth.sum(0), truth.T @ truth)
        made = motion_metrics.moments(count, self.feature_sum.cpu(), self.feature_products.cpu())
        return float(motion_metrics.frechet_distance(*made, *real))

    def _arrays(self, columns: Mapping[str, np.ndarray], seen: np.ndarray) -> dict[str, np.ndarray]:
        """Per judged window: where it begins, and its numbers."""
        table = self.windows.sequences.table
        rows = np.asarray(self.windows.table)[seen]
        sequence = rows[:, SEQUENCE]
        trial = "trial" if "trial" in table else "action"
        return {
            "subject": np.asarray(table["subject"], dtype=str)[sequence],
            "trial": np.asarray(table[trial], dtype=str)[sequence],
            "action": self._actions[seen],
            "start": rows[:, START].astype(np.int64),
            "group": self._truth.group.ptr.diff()[self._truth.rows].numpy()[seen],
            **{name: column[seen] for name, column in columns.items()},
        }

    def _figures(self, columns: Mapping[str, np.ndarray], seen: np.ndarray, which: str) -> dict[str, Any]:
        """None where nothing was predicted."""
        if np.isnan(columns["ade"][seen]).all():
            return {}
        bars = {row["action"]: row["ade"] for row in self._by_action(columns, seen)}
        return {
            "error_over_time": partial(self._over_time, which),
            "error_per_action": partial(error_bars, bars, title="ADE per action", unit="m", digits=3),
        }

    def _over_time(self, which: str) -> Any:
        curves = self.curves.cpu().numpy() / max(float(self.seen.sum()), 1.0)
        names = ("nearest sample of each frame", "mean of the samples") if self._samples > 1 else ("prediction", "")
        rates = np.unique(np.asarray(self.windows.sequences.table["fps"], np.float64))
        fps = float(rates[0]) if len(rates) == 1 and np.isfinite(rates[0]) else None
        lines = {name: curve for name, curve in zip(names, curves, strict=True) if name}
        return error_over_time(lines, fps=fps, title=f"Distance to the truth, m ({which} windows)")


def _mean(values: np.ndarray, *, without_nan: bool = False) -> float:
    """Mean of the values; NaN where there are none."""
    if without_nan:
        values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _official(scalars: Mapping[str, float]) -> str:
    """The table of the released programs: `stats_latest.csv`, float32 values."""
    lines = [f"{name.upper()},{np.float32(scalars[name])!s}" for name in PUBLISHED]
    return "\n".join([f"Metric,{_COLUMN}", *lines]) + "\n"


def _appended(latest: str, before: str | None) -> str:
    """`stats.csv` with a further column; from the second one on its columns are numbered, as the originals do it."""
    if before is None:
        return latest
    old, new = (list(csv.reader(io.StringIO(text))) for text in (before, latest))
    body = [[*row, fresh[-1]] for row, fresh in zip(old[1:], new[1:], strict=True)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([[str(number) for number in range(len(body[0]))], *body])
    return file.getvalue()
