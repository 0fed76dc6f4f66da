"""Peak memory of one form of one bench in this process: python -m scripts.bench.memory ROW reference|fast."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path

from scripts.bench import threads

threads.limit()

from scripts.bench.rows import rows  # noqa: E402

_STATUS = Path("/proc/self/status")


def main() -> None:
    """Print the peak resident bytes above those before the call."""
    name, form = sys.argv[1:]
    row = rows()[name]
    pair = row.build(**row.sizes)
    gc.collect()
    base = resident("VmRSS")
    with contextlib.suppress(OSError):  # without it the peak may be that of the imports
        Path("/proc/self/clear_refs").write_text("5")
    (pair.reference if form == "reference" else pair.fast)()
    print(resident("VmHWM") - base)


def resident(field: str) -> int:
    """A size of this process from Linux's /proc, bytes: VmRSS now, VmHWM at its peak."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
