"""One thread for every library, decided before any of them is imported."""

from __future__ import annotations

import os
import sys


def limit(count: int = 1) -> None:
    """Set the thread counts of OpenMP and MKL in the environment, and torch's own."""
    if "torch" not in sys.modules:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(count)
    import torch

    torch.set_num_threads(count)
