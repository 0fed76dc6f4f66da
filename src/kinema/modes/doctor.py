"""mode=doctor: examine the files of `dataset`, or the keypoints of `input=`, and report what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from kinema import composition
from kinema.data import doctor
from kinema.data.findings import Finding, faults, from_error, table
from kinema.data.readers import detections
from kinema.errors import DataError
from kinema.inference.lifter import conversion_of, reading_of


def run(config: DictConfig) -> float | None:
    """Print the findings on the chosen data set, or on a keypoint file as mode=predict would read it.

    Raises:
        DataError: at least one fault was found; the command line then exits non-zero.
    """
    data = composition.make(config.dataset, _recursive_=False)
    if config.input:
        what, title = f"input={config.input}", f"{config.input} for networks of dataset={config.dataset.name}"
        findings = _keypoints(config, data)
    else:
        what, title = f"dataset={config.dataset.name}", f"dataset={config.dataset.name} in {config.dataset.root}"
        findings = doctor.examine(data)
    Console().print(table(findings, title=title))
    found = faults(findings)
    if found:
        count = "1 fault" if len(found) == 1 else f"{len(found)} faults"
        end = "" if found[0].text.endswith((".", "?", "!")) else "."
        worst = f"{found[0].check}: {found[0].text}{end} {found[0].remedy}".strip()
        raise DataError(f"doctor found {count} in {what}. First: {worst}")
    return None


def _keypoints(config: DictConfig, data: Any) -> list[Finding]:
    """Every track of a keypoint file: what it is, and what the checks say."""
    made = []
    try:
        looks = detections.findings(Path(config.input), conversion_of(config, data), reading_of(config, data))
        for text, verdicts in looks:
            made.append(Finding("ok", "track", text))
            for verdict in verdicts:
                severity = "fault" if verdict.fault else "warning"
                made.append(Finding(severity, verdict.check, verdict.text, verdict.remedy))
    except DataError as error:
        made.append(from_error("file", error))
    return made
