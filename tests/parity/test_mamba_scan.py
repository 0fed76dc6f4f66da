"""Outputs, states and gradients of every backend of the selective scan against the golden cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinema.models.layers.scan import cpp
from kinema.models.layers.selective_scan import selective_scan
from tests.parity.golden import Case, cases

pytestmark = pytest.mark.parity

_INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
_COMPILER = cpp.unavailable(torch.zeros(1))
_BACKENDS = (
    "reference",
    "torch",
    pytest.param("cpp", marks=pytest.mark.skipif(bool(_COMPILER), reason=str(_COMPILER))),
)


@cases("mamba", "selective_scan")
@pytest.mark.parametrize("backend", _BACKENDS)
def test_selective_scan(case: Case, backend: str) -> None:
    for path in sorted(case.path.rglob("*.npz")):
        arrays = case.arrays(str(path.relative_to(case.path)))
        values = {name: arrays[f"in_{name}"] for name in _INPUTS if f"in_{name}" in arrays}
        softplus = bool(arrays["delta_softplus"])
        tensors = {name: torch.tensor(value, dtype=torch.float64).requires_grad_() for name, value in values.items()}
        y, state = selective_scan(**tensors, delta_softplus=softplus, return_last_state=True, backend=backend)
        case.close(f"{path.name} out", y, arrays["out"], atol=1e-9)
        case.close(f"{path.name} last_state", state, arrays["last_state"], atol=1e-9)
        y.backward(torch.tensor(arrays["grad_out"], dtype=torch.float64))
        for name, tensor in tensors.items():
            case.close(f"{path.name} grad of {name}", tensor.grad, arrays[f"grad_{name}"], atol=1e-9)
        single = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
        y = selective_scan(**single, delta_softplus=softplus, backend=backend)
        atol = 1e-5 + 1e-6 * float(np.abs(arrays["out"]).max())
        case.close(f"{path.name} float32", y, arrays["out"], atol=atol)
        case.close(f"{path.name} float32 run of the original", y, arrays["out_f32"], atol=2 * atol)
    case.finish()
