"""What the scan refuses, and what must not depend on the backend that computes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kinema.errors import DataError
from kinema.models.layers.scan import build, torch_backend
from kinema.models.layers.selective_scan import causal_conv1d, selective_scan

BACKENDS = ("reference", "torch", "auto")


def _inputs(batch: int, channels: int, length: int, states: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    u, delta = torch.randn(2, batch, channels, length, generator=draw)
    delta = delta.sigmoid()
    A = -torch.rand(channels, states, generator=draw)
    B, C = torch.randn(2, batch, states, length, generator=draw)
    return u, delta, A, B, C


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_groups_no_channels_no_time(backend: str) -> None:
    u, delta, A, *_ = _inputs(2, 4, 5, 3)
    nothing = torch.zeros(2, 0, 3, 5)
    with pytest.raises(DataError, match="0 groups"):
        selective_scan(u, delta, A, nothing, nothing, backend=backend)
    for channels, length in ((0, 5), (4, 0)):
        with pytest.raises(DataError, match="no channels or no time steps"):
            selective_scan(*_inputs(2, channels, length, 3), backend=backend)
        with pytest.raises(DataError, match="no channels or no time steps"):
            causal_conv1d(torch.zeros(2, channels, length), torch.zeros(channels, 3), backend=backend)


def test_torch_keeps_nothing_of_one_long_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "BLOCK", 1000)
    inputs = [x.requires_grad_() for x in _inputs(1, 8, 64, 16)]
    kept = 0

    def count(x: Tensor) -> Tensor:
        nonlocal kept
        kept += x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        y = selective_scan(*inputs, backend="torch")
    assert isinstance(y, Tensor)
    assert kept < 8 * 64 * 16  # one (L, B, D, N) tensor
    found = torch.autograd.grad(y.square().sum(), inputs)
    expected = torch.autograd.grad(selective_scan(*inputs, backend="reference").square().sum(), inputs)  # type: ignore[union-attr]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_convolution_under_autocast_keeps_the_dtype(backend: str) -> None:
    for kind in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 4, 5, dtype=kind)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = causal_conv1d(x, torch.randn(4, 3), torch.randn(4), activation="silu", backend=backend)
        assert y.dtype == kind


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_of_inference_mode_serves_training(backend: str) -> None:
    inputs = _inputs(2, 4, 5, 3)
    with torch.inference_mode():
        _, state = selective_scan(*inputs, return_last_state=True, backend=backend)
        past = torch.randn(2, 4, 2)
    u = inputs[0].clone().requires_grad_()
    y = selective_scan(u, *inputs[1:], initial_state=state, backend=backend)
    assert isinstance(y, Tensor)
    weight = torch.randn(4, 3, requires_grad=True)
    (y.sum() + causal_conv1d(u, weight, initial_state=past, backend=backend).sum()).backward()
    assert u.grad is not None and u.grad.isfinite().all()


def test_compiler_with_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nprintf 'bad \\351\\377' >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"{compiler} -O1")
    assert build._compiler() == (str(compiler), "-O1")
    with pytest.raises(build.BuildError, match="failed: bad"):  # not UTF-8, still a sentence
        build._build(build._compiler(), tmp_path / "scan.so")


def test_a_shortened_library_is_not_loaded(tmp_path: Path) -> None:
    library = tmp_path / "scan-1.so"
    library.write_bytes(b"0123456789")
    assert not build._whole(library)  # no record of its size
    build._size(library).write_text("10")
    assert build._whole(library)
    library.write_bytes(b"01234")
    assert not build._whole(library)
