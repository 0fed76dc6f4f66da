"""The scan backends on a CUDA device, alone, in half precision, and inside a training step of DBMambaPose L.

`pytest tests/models/test_scan_gpu.py -m gpu -s` prints the steps per second and the peak of memory.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

import kinema
from kinema.errors import ConfigError
from kinema.models.layers.mamba import Mamba
from kinema.models.layers.scan import reference
from kinema.models.layers.selective_scan import selective_scan
from tests.models.test_scan_triton import agree, draw_scan, run

pytestmark = pytest.mark.gpu
BACKENDS = ("torch", "triton", "cuda")


def scan_by(backend: str, **arguments: Any) -> tuple[Tensor, Tensor]:
    return selective_scan(**arguments, return_last_state=True, backend=backend)


def skip_where_it_cannot_run(backend: str) -> None:
    try:
        scan_by(backend, **draw_scan(dtype=torch.float32, device="cuda"))
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"batch": 3, "channels": 256, "length": 243, "states": 4},
        {"batch": 243, "channels": 64, "length": 17, "states": 16},
        {"batch": 2, "channels": 48, "length": 70, "states": 8, "groups": (4, 1), "missing": ("z",)},
        {"batch": 2, "channels": 40, "length": 33, "states": 5, "groups": (0, 0), "missing": ("D", "delta_bias")},
    ],
    ids=["temporal", "spatial", "groups", "constant"],
)
def test_a_backend_agrees_with_the_reference(backend: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    skip_where_it_cannot_run(backend)
    arguments = draw_scan(**options, dtype=dtype, device="cuda")
    found = run(lambda **x: scan_by(backend, **x), arguments)
    double = {
        name: x.double() if isinstance(x, Tensor) else x for name, x in arguments.items()
    }  # of the rounded inputs
    agree(found, run(reference.scan, double), 2e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps)
    assert found["y"].dtype == dtype


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_leaves_the_scan_in_float32(backend: str) -> None:
    skip_where_it_cannot_run(backend)
    torch.manual_seed(0)
    block = Mamba(64, d_state=16, d_conv=4, expand=2, scan_backend=backend).cuda()
    x = torch.randn(4, 81, 64, device="cuda", requires_grad=True)
    plain = block(x)
    (expected,) = torch.autograd.grad(plain.sum(), x)
    with torch.autocast("cuda", torch.bfloat16):
        half = block(x)
    (found,) = torch.autograd.grad(half.float().sum(), x)
    assert float((half.float() - plain).abs().mean() / plain.abs().mean()) < 2e-2
    assert float((found - expected).abs().mean() / expected.abs().mean()) < 3e-2


def training_steps(
    name: str, *, backend: str, batch: int, frames: int, half: bool, device: str = "cuda", **sizes: Any
) -> list[float]:
    """Losses of three steps of AdamW on one random batch; prints what they took, the first step left out."""
    torch.manual_seed(0)
    model = kinema.create(name, scan_backend=backend, **sizes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    pose = torch.randn(batch, frames, model.signature.joints, model.signature.in_channels, device=device)
    target = torch.randn(batch, frames, model.signature.joints_out, 3, device=device)
    losses, seconds = [], []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            out = model(pose)
        loss = torch.linalg.vector_norm(out.float() - target, dim=-1).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))  # waits for the device
        seconds.append(time.perf_counter() - started)
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    rate = (len(seconds) - 1) / sum(seconds[1:])
    print(f"\n{name} {backend} {'bf16' if half else 'float32'}: {rate:.2f} steps/s at batch {batch}, {peak:.1f} GiB")
    return losses


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_of_the_large_model(backend: str, half: bool) -> None:
    skip_where_it_cannot_run(backend)
    losses = training_steps("dbmambapose_l", backend=backend, batch=1, frames=243, half=half)
    assert losses[-1] < losses[0]
