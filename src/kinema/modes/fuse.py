"""mode=fuse: one prediction from the stored scores of several streams, with weights, temperatures and the gain."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kinema import runs
from kinema.callbacks.figures import drawings
from kinema.callbacks.page import report_page
from kinema.callbacks.report import matrices, wide_console
from kinema.errors import ConfigError
from kinema.files import write_atomic
from kinema.protocols.report import Report
from kinema.results import fusion, score_files
from kinema.results.score_files import Scores
from kinema.viz.html import png

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Fuse the streams of `fuse.inputs`, report as a test does, and return `fuse.objective`.

    Raises:
        ConfigError: without two streams, or for options that do not fit them.
    """
    with runs.recorded(config) as run_:
        raw: Any = OmegaConf.to_container(config.fuse, resolve=True)
        inputs = _sources(raw.pop("inputs"), "inputs")
        if not inputs:
            raise ConfigError(
                "mode=fuse fuses stored scores, and none are given. "
                "Use fuse.inputs={joint: RUN, bone: RUN}: directories of tests, .npz or .pkl files."
            )
        held_out = _sources(raw.pop("validation"), "validation")
        files = {key: raw.pop(key) for key in ("names", "split", "validation_names", "validation_split")}
        classes = raw.pop("classes")
        options = fusion.Options(**raw, seed=config.seed)
        streams = _read(inputs, files["names"], files["split"])
        validation = _validation(inputs, held_out, streams, options, files)
        made = fusion.run(streams, validation, options, classes)
        document = _document(made, options, streams, validation)
        write_atomic(run_.folder / "fusion.json", json.dumps(document, indent=1))
        run_.metrics(_metrics(made), {"protocol_versions": {"test": made.report.version}})
        _write(run_.folder, made.report, pictures="figures" in (config.callbacks or {}))
        console = wide_console()
        for table in made.report.to_rich(title=f"fusion ({options.rule})")[:1]:
            console.print(table)
        console.print(fusion.sentence(made, options), markup=False, soft_wrap=True)
        console.print(f"all tables and figures: {run_.folder / 'report.html'}", markup=False, soft_wrap=True)
        return made.value


def _sources(given: Any, key: str) -> dict[str, str]:
    """Streams by name; a list is named by its files and folders."""
    if not given:
        return {}
    if isinstance(given, Mapping):
        return {str(name): str(source) for name, source in given.items()}
    if not isinstance(given, list):
        raise ConfigError(f"fuse.{key}={given} is one file. Use fuse.{key}={{joint: FILE, bone: FILE}}.")
    return {f"{number}": str(source) for number, source in enumerate(given, start=1)}


def _read(sources: Mapping[str, str], names: str | None, split: str | None) -> dict[str, Scores]:
    """Scores by stream; numbers of a list give way to names: the stream of the run, else the file's or folder's."""
    found = {name: score_files.read(source, names=names, split=split) for name, source in sources.items()}
    if not all(name.isdigit() for name in found):
        return found
    better = [one.stream or Path(sources[name]).stem for name, one in found.items()]
    return dict(zip(better, found.values(), strict=True)) if len(set(better)) == len(better) else found


def _validation(
    inputs: Mapping[str, str],
    given: Mapping[str, str],
    streams: Mapping[str, Scores],
    options: fusion.Options,
    files: Mapping[str, Any],
) -> dict[str, Scores] | None:
    """Validation scores by the names of the streams: those given, else those that trainings keep, where needed."""
    if given:
        found = {
            name: score_files.read(source, names=files["validation_names"], split=files["validation_split"])
            for name, source in given.items()
        }
        if not all(name.isdigit() for name in found):
            return found
        if len(found) != len(streams):
            raise ConfigError(
                f"fuse.validation lists {len(found)} sources for {len(streams)} streams. Name one for each."
            )
        return dict(zip(streams, found.values(), strict=True))
    wanted = options.weights == "search" or options.temperature == "fit"
    if not wanted or not all(score_files.has_validation(source) for source in inputs.values()):
        return None
    kept = [score_files.read(source, report="report_val") for source in inputs.values()]
    return dict(zip(streams, kept, strict=True))


def _write(folder: Path, report: Report, *, pictures: bool) -> None:
    """What a test leaves behind: tables, scores and (but for callbacks=none) pictures; the page comes last."""
    write_atomic(folder / "report.md", report.to_markdown("fusion"))
    write_atomic(folder / "report.csv", report.to_csv())
    for ending, text in matrices(report).items():
        write_atomic(folder / f"report_{ending}", text)
    report.save_arrays(folder / "predictions" / "report.npz")
    drawn = {name: png(draw()) for name, draw in drawings(report).items()} if pictures else {}
    for name, data in drawn.items():
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / f"{name}.png").write_bytes(data)
    write_atomic(folder / "report.html", report_page({"test": report}, {"test": drawn}, title="Fusion", folder=folder))


def _metrics(made: fusion.Fusion) -> dict[str, float]:
    """`test/top1` and its kin, and `fuse/...`: weights, temperatures and the gain."""
    found = made.report.to_metrics("test")
    found |= {f"fuse/weight/{name}": weight for name, weight in made.weights.items()}
    found |= {f"fuse/temperature/{name}": value for name, value in made.temperatures.items()}
    if made.gain is not None:
        found |= {"fuse/gain": made.gain.value, "fuse/gain_low": made.gain.low, "fuse/gain_high": made.gain.high}
        found["fuse/p_value"] = made.gain.p_value
    return found


def _document(
    made: fusion.Fusion,
    options: fusion.Options,
    streams: Mapping[str, Scores],
    validation: Mapping[str, Scores] | None,
) -> dict[str, Any]:
    """What a fusion is made of, to repeat it on other clips."""
    gain, found = made.gain, made.found
    return {
        "rule": options.rule,
        "weights": made.weights,
        "temperatures": made.temperatures,
        "inputs": {name: str(one.source) for name, one in streams.items()},
        "validation": {name: str(one.source) for name, one in validation.items()} if validation else None,
        "search": vars(found) if found is not None else None,
        "objective": options.objective,
        "best_stream": made.best,
        "gain": vars(gain) if gain is not None else None,
    }
