"""The scan backends that depend on the machine: the build of the C++ library and the CUDA packages."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.models.layers.scan import build, cpp, cuda, reference, triton

_COMPILER = cpp.unavailable(torch.zeros(1))
needs_compiler = pytest.mark.skipif(bool(_COMPILER), reason=str(_COMPILER))


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of its own."""
    monkeypatch.setenv("KINEMA_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    yield tmp_path / "extensions"
    build._library.cache_clear()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_the_library_is_built_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.library()
    path, size = sorted(cache_folder.iterdir(), key=lambda file: file.suffix, reverse=True)  # nothing temporary is left
    assert (path.suffix, size.suffix) == (".so", ".size") and first is build.library()
    monkeypatch.setattr(build, "_compile", lambda command: pytest.fail("compiled again"))
    build._library.cache_clear()
    assert build.library()._name == str(path)


@needs_compiler
def test_a_damaged_library_is_built_again(cache_folder: Path) -> None:
    cache_folder.mkdir()
    path = cache_folder / f"scan-{build._key(build._compiler())}.so"
    path.write_bytes(b"\x7fELF of a full disk")
    assert build.library().kinema_scan_forward_f32
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("text", "reason"),
    (
        ("echo 'scan.cpp: unknown register' >&2; exit 1", "failed: scan.cpp: unknown register"),
        ("sleep 60", "was stopped after 1 s"),
    ),
)
def test_a_failing_compiler_is_a_reason_and_one_warning(
    cache_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
    reason: str,
) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "compiler", text))
    monkeypatch.setattr(build, "TIMEOUT", 1.0)
    start = time.monotonic()
    for _ in range(2):
        found = cpp.unavailable(torch.zeros(1))
        assert found is not None and reason in found
    assert time.monotonic() - start < 30  # a child of the compiler is stopped with it
    assert len([r for r in caplog.records if "cpp backend" in r.message]) == 1
    assert list(cache_folder.iterdir()) == []


def test_a_missing_compiler_is_named(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler found (looked for no-such-compiler)" in str(cpp.unavailable(torch.zeros(1)))


def test_a_cache_that_cannot_be_written_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KINEMA_EXTENSIONS_DIR", str(tmp_path / "file" / "extensions"))
    monkeypatch.setenv("CXX", sys.executable)
    assert "could not be written or loaded" in str(cpp.unavailable(torch.zeros(1)))
    build._library.cache_clear()


def test_an_account_without_a_home_is_a_reason_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(build, "folder", no_home)
    for _ in range(2):
        assert "Set KINEMA_EXTENSIONS_DIR" in str(cpp.unavailable(torch.zeros(1)))
    build._library.cache_clear()
    assert len(caplog.records) == 1


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINEMA_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert build.folder() == Path("/somewhere/kinema/extensions")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.folder() == Path.home() / ".cache" / "kinema" / "extensions"


def test_cpp_takes_cpu_tensors_only() -> None:
    assert "works on CPU tensors" in str(cpp.unavailable(torch.zeros(1, device="meta")))


def fake_scan(factor: float) -> Any:
    def selective_scan_fn(*tensors: Tensor, delta_softplus: bool, return_last_state: bool) -> tuple[Tensor, Tensor]:
        assert return_last_state
        y, state = reference.scan(*tensors, delta_softplus=delta_softplus)
        return factor * y, state

    return selective_scan_fn


def fake_conv(x: Tensor, weight: Tensor, bias: Tensor, *wrong: object, activation: str | None = None) -> Tensor:
    assert not wrong, "the fourth positional argument is seq_idx"
    return reference.conv(x, weight, bias, activation, None)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that pretends an installation: module name -> attributes, an error to raise, or None for missing."""

    def install(**modules: dict[str, Any] | BaseException | None) -> None:
        class Finder:
            @staticmethod
            def find_spec(name: str, path: object = None, target: object = None) -> None:
                made = modules.get(name.replace(".", "__"))
                if isinstance(made, BaseException):
                    raise made

        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
        for name in ("selective_scan_cuda", "mamba_ssm", "mamba_ssm__ops", "mamba_ssm__ops__selective_scan_interface",
                     "causal_conv1d"):  # fmt: skip
            made = modules.get(name)
            monkeypatch.delitem(sys.modules, name.replace("__", "."), raising=False)
            if isinstance(made, dict):
                fake = ModuleType(name.replace("__", "."))
                fake.__dict__.update({"__path__": [], **made})
                monkeypatch.setitem(sys.modules, fake.__name__, fake)

    def forget() -> None:
        cuda._reason.cache_clear()
        cuda._import_failure.cache_clear()
        cuda._warned.clear()

    forget()
    yield install
    forget()


def _mamba(factor: float = 1.0) -> dict[str, Any]:
    interface = {"selective_scan_fn": fake_scan(factor)}
    return {"mamba_ssm": {}, "mamba_ssm__ops": {}, "mamba_ssm__ops__selective_scan_interface": interface}


def test_the_packages_are_not_imported_with_ours() -> None:
    code = (
        "import sys, kinema.models.layers.selective_scan, kinema.models.layers.scan.cuda; "
        "print([n for n in sys.modules if n.startswith(('mamba_ssm', 'causal_conv1d', 'selective_scan_cuda'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_good_installation_is_used(packages: Any) -> None:
    packages(selective_scan_cuda={}, causal_conv1d={"causal_conv1d_fn": fake_conv}, **_mamba())
    assert cuda.fast_scan_available("cpu")
    assert cuda.fast_conv_reason("cpu") is None
    u = torch.randn(2, 3, 5, dtype=torch.bfloat16)
    small = torch.randn(3, 4)
    y, state = cuda.scan(u, u, -small.exp(), small, small)
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    x, weight, initial = torch.randn(2, 3, 5), torch.randn(3, 4), torch.randn(2, 3, 3)
    torch.testing.assert_close(
        cuda.conv(x, weight, None, "silu", initial), reference.conv(x, weight, None, "silu", initial)
    )


def test_an_absent_package_is_no_warning(packages: Any, caplog: pytest.LogCaptureFixture) -> None:
    missing = {
        "selective_scan_cuda": ModuleNotFoundError("No module named 'selective_scan_cuda'", name="selective_scan_cuda"),
        "mamba_ssm": ModuleNotFoundError("No module named 'mamba_ssm'", name="mamba_ssm"),
        "causal_conv1d": ModuleNotFoundError("No module named 'causal_conv1d'", name="causal_conv1d"),
    }
    packages(**missing)
    assert "mamba-ssm is not installed" in str(cuda.fast_scan_reason("cpu"))
    assert "causal-conv1d is not installed" in str(cuda.fast_conv_reason("cpu"))
    assert not cuda.fast_scan_available("cpu")
    assert not caplog.records


@pytest.mark.parametrize(
    ("installed", "reason"),
    (
        ({"selective_scan_cuda": OSError("undefined symbol: _ZN3c104cuda9SetDeviceEi")}, "undefined symbol"),
        ({"selective_scan_cuda": NameError("name 'bare_metal_version' is not defined")}, "bare_metal_version"),
        ({"selective_scan_cuda": SystemExit("built for another GPU")}, "SystemExit: built for another GPU"),
        ({"selective_scan_cuda": ModuleNotFoundError("No module named 'selective_scan_cuda'",
                                                     name="selective_scan_cuda")}, "without selective_scan_cuda"),
        ({"selective_scan_cuda": {}, "mamba_ssm__ops__selective_scan_interface": {}}, "has no attribute"),
        ({"selective_scan_cuda": {}, **_mamba(1.01)}, "is off by"),
        ({"selective_scan_cuda": {}, **_mamba(float("nan"))}, "is off by nan"),
    ),
    ids=("undefined_symbol", "setup_error", "exit", "no_kernel", "no_function", "wrong_numbers", "nan"),
)  # fmt: skip
def test_a_broken_installation_is_one_clear_warning(
    packages: Any, caplog: pytest.LogCaptureFixture, installed: dict[str, Any], reason: str
) -> None:
    packages(**{**_mamba(), **installed})
    for _ in range(2):
        assert reason in str(cuda.fast_scan_reason("cpu"))
    (record,) = caplog.records
    assert reason in record.message and "docs/scan_backends.md" in record.message


def _exits(*tensors: object, **options: object) -> None:
    raise SystemExit("no kernel image")


def test_names_of_a_device_share_one_warning(packages: Any, caplog: pytest.LogCaptureFixture) -> None:
    interface = {"mamba_ssm__ops__selective_scan_interface": {"selective_scan_fn": _exits}}
    packages(**{**_mamba(), **interface}, selective_scan_cuda={}, causal_conv1d=OSError("undefined symbol"))
    for device in ("cpu", "cuda", "cuda:0"):
        assert "mamba-ssm fails on a small case" in str(cuda.fast_scan_reason(device))
        assert "undefined symbol" in str(cuda.fast_conv_reason(device))
    assert sorted(r.message.split(":")[1].split()[0] for r in caplog.records) == ["causal-conv1d", "mamba-ssm"]
    assert "SystemExit: no kernel image" in str(cuda.fast_scan_reason("cpu"))


def test_a_device_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [cuda._full(name) for name in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]


def test_an_interruption_is_no_broken_installation(packages: Any) -> None:
    packages(**_mamba(), selective_scan_cuda=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        cuda.fast_scan_reason("cpu")


def test_a_convolution_that_loses_its_activation_is_found(packages: Any, caplog: pytest.LogCaptureFixture) -> None:
    packages(causal_conv1d={"causal_conv1d_fn": lambda x, w, b, activation=None: reference.conv(x, w, b, None, None)})
    assert "causal-conv1d is off by" in str(cuda.fast_conv_reason("cpu"))


def test_a_triton_that_exits_at_import_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name.endswith("scan.triton_kernels"):
                raise SystemExit("no driver")

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "kinema.models.layers.scan.triton_kernels", raising=False)
    triton._import_failure.cache_clear()
    assert "Triton does not import (SystemExit: no driver)" in str(triton.unavailable(torch.zeros(1, 1, 1)))
    triton._import_failure.cache_clear()


def test_limits_of_the_kernels() -> None:
    u, A = torch.zeros(1, 2, 3), torch.zeros(2, 4)
    assert cuda._limits(u, A, None) is None
    assert "float64" in str(cuda._limits(u.double(), A, None))
    assert "at most 256 state entries, not 257" in str(cuda._limits(u, torch.zeros(2, 257), None))
    assert "continue from a state" in str(cuda._limits(u, A, torch.zeros(1, 2, 4)))
    assert cuda._conv_limits(u, torch.zeros(2, 4)) is None
    assert "float64" in str(cuda._conv_limits(u.double(), torch.zeros(2, 4)))
    assert "widths 2 to 4, not 5" in str(cuda._conv_limits(u, torch.zeros(2, 5)))
    assert "at most 65535 channels" in str(cuda._conv_limits(u, torch.zeros(65536, 2)))
