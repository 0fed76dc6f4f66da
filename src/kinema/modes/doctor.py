"""mode=doctor: examine the files of `dataset` and report what is wrong with them."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console

from kinema import composition
from kinema.data import doctor
from kinema.data.findings import faults, table
from kinema.errors import DataError


def run(config: DictConfig) -> float | None:
    """Print the findings on the chosen data set.

    Raises:
        DataError: at least one fault was found; the command line then exits non-zero.
    """
    data = composition.make(config.dataset, _recursive_=False)
    findings = doctor.examine(data)
    Console().print(table(findings, title=f"dataset={config.dataset.name} in {config.dataset.root}"))
    found = faults(findings)
    if found:
        what = "1 fault" if len(found) == 1 else f"{len(found)} faults"
        worst = f"{found[0].check}: {found[0].text} {found[0].remedy}".strip()
        raise DataError(f"doctor found {what} in dataset={config.dataset.name}. First: {worst}")
    return None
