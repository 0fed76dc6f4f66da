"""A fusion from beginning to end: streams and what they are weighted by, and its report beside the single streams."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinema.data.class_list import ClassList, class_list
from kinema.errors import ConfigError, DataError
from kinema.protocols import action, class_report, ma52
from kinema.protocols.report import Report, Row
from kinema.results import fuse
from kinema.results.score_files import Scores, align, in_class_order

log = logging.getLogger(__name__)
_VALIDATE = (
    "Trainings with dataset.selection=val keep them (predictions/report_val.npz); for other streams test on the "
    "validation clips (mode=test dataset.split_test=val) and name these: 'fuse.validation={joint: RUN, ...}'."
)
_LIST = "Give one number per stream, such as fuse.{key}=[{example}]."


@dataclass(frozen=True)
class Options:
    """How streams are fused; the keys of `fuse` in `conf/config.yaml`, where each is explained."""

    weights: Any = "equal"
    rule: str = "prob"
    temperature: Any = None
    search: str = "auto"
    step: float = 0.1
    objective: str = "top1"
    bootstrap: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for key, known in (("rule", fuse.RULES), ("search", fuse.SEARCHES), ("objective", fuse.OBJECTIVES)):
            value = getattr(self, key)
            if value not in known:
                raise ConfigError(f"fuse.{key}={value} is unknown. Use one of {', '.join(known)}.")
        if not 0 < self.step <= 1:
            raise ConfigError(f"fuse.step={self.step} is no step between 0 and 1. Use fuse.step=0.1.")
        if self.bootstrap < 100:
            raise ConfigError(f"fuse.bootstrap={self.bootstrap} draws make no interval. Use fuse.bootstrap=2000.")


@dataclass(frozen=True)
class Fusion:
    """What a fusion found.

    Attributes:
        report: of the fused scores, as a test reports; its first table compares the streams.
        weights: per stream, summing to 1.
        temperatures: per stream, and of the "fused" scores where temperatures are fitted.
        best: name of the best single stream on the judged clips.
        gain: over the best single stream in the objective; None without labels.
        value: of the objective; None without labels.
        found: the search, where there was one.
    """

    report: Report
    weights: dict[str, float]
    temperatures: dict[str, float]
    best: str
    gain: fuse.Gain | None
    value: float | None
    found: fuse.Found | None


def run(
    streams: Mapping[str, Scores], validation: Mapping[str, Scores] | None, options: Options, classes: str | None = None
) -> Fusion:
    """Fuse the scores of some streams.

    Args:
        streams: scores of the clips that are judged, by name; two or more.
        validation: scores of the same streams on other clips, which weights and temperatures are fitted on.
        options: how.
        classes: class list for scores that hold none.

    Raises:
        ConfigError: weights or temperatures that do not fit the streams, or need validation scores.
        DataError: streams that do not belong together.
    """
    if len(streams) < 2:
        raise ConfigError("A fusion needs two streams or more. Use fuse.inputs={joint: RUN, bone: RUN}.")
    named = {name: _named(one, classes) for name, one in streams.items()}
    aligned = align(named)
    held_out = None if validation is None else _validation(aligned, validation, classes)
    first = next(iter(aligned.values()))
    labels = np.maximum.reduce([one.labels for one in aligned.values()])
    measure = fuse.objective(options.objective, first.values.shape[1], first.groups)

    temperatures = _temperatures(aligned, held_out, options)
    logits = _scaled(aligned, temperatures)
    calibrated = None if held_out is None else (_scaled(held_out[0], temperatures), held_out[1])
    weights, found = _weights(aligned, calibrated, options, measure)
    if found is not None and calibrated is not None:
        log.info(
            "searched %d weightings on %d validation clips: %s %.2f", found.tried, len(calibrated[1]),
            options.objective, found.value,
        )  # fmt: skip
    fused = fuse.combine(logits, weights, options.rule)
    if options.temperature == "fit" and calibrated is not None:
        # A mean of calibrated streams is too modest; a last temperature changes no ranking (Rahaman and Thiery 2021).
        temperatures["fused"] = _fitted("fused", fuse.combine(calibrated[0], weights, options.rule), calibrated[1])
        fused = fuse.log_softmax(fused / temperatures["fused"])

    singles = {name: fuse.log_softmax(one) for name, one in zip(aligned, logits, strict=True)}
    best = _best(singles, labels, measure)
    known = labels >= 0
    gain = value = None
    if known.any():
        value = measure(*fuse.judged(fused[known], labels[known]))
        gain = fuse.gain(
            fused[known], singles[best][known], labels[known], objective=measure, draws=options.bootstrap,
            seed=options.seed,
        )  # fmt: skip
    report = _report(aligned, labels, fused)
    judge = _Judge(labels, first, options.rule, None if options.temperature is None else list(aligned.values()))
    rows = [
        judge.row(name, one, _alone(i, len(logits)), weight, temperatures[name])
        for i, ((name, one), weight) in enumerate(zip(singles.items(), weights, strict=True))
    ]
    rows.append(judge.row("fused", fused, weights, None, temperatures.get("fused")))
    if len(set(weights)) > 1:
        equal = [1.0] * len(logits)
        rows.append(judge.row("fused, equal weights", fuse.combine(logits, equal, options.rule), equal))
    report.tables = {"stream": rows, **report.tables}
    report.digits = {**report.digits, "weight": 3, "temperature": 3}
    shares = dict(zip(aligned, weights, strict=True))
    return Fusion(report, shares, temperatures, best, gain, value, found)


def _best(singles: Mapping[str, np.ndarray], labels: np.ndarray, measure: fuse.Objective) -> str:
    """The best single stream on the judged clips: chosen by hindsight, which can only make the gain look smaller."""
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        return next(iter(singles))
    values = {name: measure(*fuse.judged(one[known], labels[known])) for name, one in singles.items()}
    return max(values, key=lambda name: values[name])


def sentence(fusion: Fusion, options: Options) -> str:
    """The gain in words."""
    gain = fusion.gain
    if gain is None:
        return "The labels of these clips are withheld: nothing is measured."
    unit = "nats" if options.objective == "nll" else "points"
    verdict = "" if gain.low > 0 or gain.high < 0 else "; not distinguishable from no gain"
    return (
        f"Gain over {fusion.best} in {options.objective}: {gain.value:+.2f} {unit}, 95 % interval {gain.low:+.2f} to "
        f"{gain.high:+.2f} (paired bootstrap over clips){verdict}. Only the fusion is right on {gain.better} clips, "
        f"only {fusion.best} on {gain.worse} (McNemar p = {gain.p_value:.2g})."
    )


def _named(scores: Scores, classes: str | None) -> Scores:
    """Scores with class names, groups and group names, where the class list has them."""
    if classes is None:
        return scores
    known = class_list(classes)
    if len(known.names) != scores.values.shape[1]:
        raise DataError(
            f"{scores.source} scores {scores.values.shape[1]} classes, fuse.classes={classes} has {len(known.names)}. "
            "Name the list that the networks were trained with."
        )
    if scores.classes is not None:
        return scores
    return dataclasses.replace(
        scores, classes=np.array(known.names),
        groups=None if known.groups is None else np.array(known.groups, np.int64),
        group_names=None if known.group_names is None else np.array(known.group_names),
    )  # fmt: skip


def _validation(
    aligned: Mapping[str, Scores], validation: Mapping[str, Scores], classes: str | None
) -> tuple[dict[str, Scores], np.ndarray]:
    """Labelled validation clips of the same streams, in the same order of streams and classes."""
    if set(validation) != set(aligned):
        raise ConfigError(
            f"fuse.inputs names {', '.join(aligned)}, fuse.validation {', '.join(validation)}. Name the same streams."
        )
    first = next(iter(aligned.values()))
    name = next(iter(aligned))
    mine = {
        key: in_class_order(first, _named(validation[key], classes), name, f"validation of {key}") for key in aligned
    }
    mine = align(mine)
    _refuse_same(first, mine[name])
    labels = np.maximum.reduce([one.labels for one in mine.values()])
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise DataError("No validation clip has a label, so nothing can be fitted on them. Use a labelled split.")
    return {key: one.take(rows) for key, one in mine.items()}, labels[rows]


def _refuse_same(judged: Scores, held_out: Scores) -> None:
    """Weights that are fitted on the clips they are judged on make an optimistic number.

    Names decide, not scores: another epoch of the same stream scores the same clips otherwise.
    """
    shared = sorted(set(judged.names) & set(held_out.names))
    if shared:
        raise DataError(
            f"fuse.validation scores {len(shared)} of the clips that are judged (first {shared[0]}, {held_out.source})."
            " Weights fitted on them would be judged too well. Use clips that are cut from training "
            "(dataset.selection=val); different clips need different names."
        )


def _temperatures(
    aligned: Mapping[str, Scores], held_out: tuple[dict[str, Scores], np.ndarray] | None, options: Options
) -> dict[str, float]:
    given = options.temperature
    if given is None:
        return dict.fromkeys(aligned, 1.0)
    if given == "fit":
        if held_out is None:
            raise ConfigError(f"fuse.temperature=fit needs validation scores. {_VALIDATE}")
        return {name: _fitted(name, one.logits(), held_out[1]) for name, one in held_out[0].items()}
    values = _numbers(given, aligned, "temperature", "1.2,0.9")
    if min(values) <= 0:
        raise ConfigError(f"fuse.temperature={given} holds a temperature that is not above 0. {_fit('temperature')}")
    return dict(zip(aligned, values, strict=True))


def _fitted(name: str, logits: np.ndarray, labels: np.ndarray) -> float:
    """A temperature, with a warning where it is none: the likelihood would have it beyond the range."""
    found = fuse.fit_temperature(logits, labels)
    if not fuse.COLDEST * 1.01 < found < fuse.HOTTEST / 1.01:
        reason = "all of them are right" if found < 1 else "they tell nothing of the classes"
        log.warning(
            "%s: the temperature fitted on %d validation clips is %.3g, an end of its range: %s there. Use more "
            "validation clips, or give a temperature: fuse.temperature=null for none.",
            name, len(labels), found, reason,
        )  # fmt: skip
    return found


def _fit(key: str) -> str:
    return f"Use fuse.{key}=fit." if key == "temperature" else f"Use fuse.{key}=search."


def _scaled(streams: Mapping[str, Scores], temperatures: Mapping[str, float]) -> list[np.ndarray]:
    return [one.logits() / temperatures[name] for name, one in streams.items()]


def _weights(
    aligned: Mapping[str, Scores],
    held_out: tuple[list[np.ndarray], np.ndarray] | None,
    options: Options,
    measure: fuse.Objective,
) -> tuple[list[float], fuse.Found | None]:
    """Weights that sum to 1, and the search where there was one."""
    given, found = options.weights, None
    if given == "search":
        if held_out is None:
            raise ConfigError(f"fuse.weights=search needs validation scores. {_VALIDATE}")
        found = fuse.search(*held_out, rule=options.rule, objective=measure, way=options.search, step=options.step)
        values = list(found.weights)
    elif given == "equal":
        values = [1.0] * len(aligned)
    elif given == "published":
        values = fuse.published_weights([one.stream for one in aligned.values()], list(aligned))
    else:
        values = _numbers(given, aligned, "weights", "2,1")
    if min(values) < 0 or sum(values) <= 0:
        raise ConfigError(f"fuse.weights={given}: weights are 0 or more, one of them above 0. {_fit('weights')}")
    total = sum(values)
    return [value / total for value in values], found


def _numbers(given: Any, aligned: Mapping[str, Scores], key: str, example: str) -> list[float]:
    """Numbers per stream: a list in the order of the streams, a ratio 2:1, or a mapping by their names."""
    ask = _LIST.format(key=key, example=example)
    if isinstance(given, Mapping):
        if set(given) != set(aligned):
            raise ConfigError(f"fuse.{key} names {', '.join(given)}, the streams are {', '.join(aligned)}. {ask}")
        given = [given[name] for name in aligned]
    parts: list[Any] = given.split(":") if isinstance(given, str) else given if isinstance(given, list) else [given]
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        raise ConfigError(f"fuse.{key}={given} is unknown. {ask}") from None
    if len(numbers) != len(aligned):
        raise ConfigError(f"fuse.{key} has {len(numbers)} numbers for {len(aligned)} streams. {ask}")
    return numbers


def _report(aligned: Mapping[str, Scores], labels: np.ndarray, fused: np.ndarray) -> Report:
    """The report that a test of the same scores would give, by the protocol of the streams."""
    first = next(iter(aligned.values()))
    counts = None if first.training_counts is None else first.training_counts.tolist()
    scores = class_report.Scores(fused, labels, first.names, _classes(first), counts)
    official = {one.protocol for one in aligned.values()} == {"ma52"}
    return ma52.report(scores) if official else action.report(scores)


def _classes(scores: Scores) -> ClassList:
    names = [str(i) for i in range(scores.values.shape[1])] if scores.classes is None else scores.classes
    if scores.groups is None:
        return ClassList(tuple(str(name) for name in names))
    count = int(scores.groups.max()) + 1
    groups = [str(i) for i in range(count)] if scores.group_names is None else scores.group_names
    return ClassList(
        tuple(str(name) for name in names), tuple(int(group) for group in scores.groups),
        tuple(str(group) for group in groups),
    )  # fmt: skip


def _alone(chosen: int, count: int) -> list[float]:
    return [float(i == chosen) for i in range(count)]


@dataclass(frozen=True)
class _Judge:
    """Lines of the table of streams: how good each of them is by itself.

    Attributes:
        labels: (N,) class ids.
        first: the stream whose clips and classes all others have.
        rule: of the fusion.
        streams: as stored, before any temperature; None where there are no temperatures.
    """

    labels: np.ndarray
    first: Scores
    rule: str
    streams: Sequence[Scores] | None

    def row(
        self,
        name: str,
        log_probs: np.ndarray,
        weights: Sequence[float],
        weight: float | None = None,
        temperature: float | None = None,
    ) -> Row:
        """One line.

        Args:
            name: first cell.
            log_probs: (N, K), after temperatures.
            weights: of all streams in these scores, for the calibration error without temperatures.
            weight: shown.
            temperature: shown.
        """
        scalars = self._scalars(log_probs)
        if self.streams is not None:
            before = fuse.combine([one.logits() for one in self.streams], weights, self.rule)
            scalars["ece_before"] = self._scalars(before).get("ece")
        shown = ("top1", "top5", "mean_class", "f1_macro", *(["ece_before"] if self.streams else []), "ece", "nll")
        values = {key: scalars.get(key) for key in shown}
        return {"stream": name, "weight": weight, "temperature": temperature, **values}

    def _scalars(self, log_probs: np.ndarray) -> dict[str, float | None]:
        scores = class_report.Scores(log_probs, self.labels, self.first.names, _classes(self.first))
        return dict(class_report.Judged(scores).scalars())
