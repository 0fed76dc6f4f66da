"""The Triton scan against the published recurrence: on a GPU, or with TRITON_INTERPRET=1 on the CPU.

tests/models/test_scan_triton.py runs this file a second time with the interpreter (a slow test).
"""

from __future__ import annotations

import pytest
import torch

from kinema.models.layers.scan import triton as backend
from tests.models.test_scan_triton import DEVICE, kernels
from tests.parity.golden import Case, cases

pytestmark = [pytest.mark.parity, kernels]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


@cases("mamba", "selective_scan")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_selective_scan(case: Case, dtype: torch.dtype) -> None:
    for path in sorted(case.path.glob("*.npz")):
        arrays = case.arrays(path.name)
        inputs = {
            name: torch.from_numpy(arrays[f"in_{name}"]).to(DEVICE, dtype).requires_grad_()
            for name in NAMES
            if f"in_{name}" in arrays
        }
        y, last = backend.scan(*(inputs.get(name) for name in NAMES), bool(arrays["delta_softplus"]))
        y.backward(torch.from_numpy(arrays["grad_out"]).to(DEVICE, dtype))
        found = {"out": y, "last_state": last, **{f"grad_{name}": x.grad for name, x in inputs.items()}}
        for name, value in found.items():
            size = float(abs(arrays[name]).max())
            atol = 1e-9 if dtype == torch.float64 else 1e-5 + 1e-6 * size
            case.close(f"{path.stem}/{name}", value.double(), arrays[name], atol=atol)
        size = float(abs(arrays["out"]).max())
        case.close(f"{path.stem}/out_f32", y.float(), arrays["out_f32"], atol=2e-5 + 2e-6 * size)
    case.finish()
