"""What the selective scan refuses, how a backend is chosen, and the transforms of torch.func."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.errors import ConfigError, DataError
from kinema.models.dbmambapose import DBMambaPose
from kinema.models.layers import selective_scan as module
from kinema.models.layers.scan import build, cpp, reference, torch_backend
from kinema.models.layers.selective_scan import BACKENDS, causal_conv1d, check_backend, selective_scan
from kinema.models.posemamba import PoseMamba
from tests.models import test_dbmambapose, test_posemamba
from tests.models.test_selective_scan import problem

_COMPILER = cpp.unavailable(torch.zeros(1))


def test_wrong_shapes_are_named() -> None:
    good = {k: v.detach() for k, v in problem().items()}
    for change, message in (
        ({"u": good["u"][0]}, "u has shape .* expected B D L"),
        ({"delta": good["delta"][..., :-1]}, "delta has shape"),
        ({"A": good["A"][:-1]}, "A has shape"),
        ({"B": good["B"][:, :-1]}, "B has shape"),
        ({"C": good["C"][0, 0]}, r"C has shape .* constant \(D, N\)"),
        ({"B": good["B"][:, None].expand(2, 3, 3, 5)}, "3 groups, which do not divide the 4 channels"),
        ({"D": good["D"][:-1]}, "D has shape"),
        ({"z": good["z"][:, :-1]}, "z has shape"),
        ({"initial_state": torch.zeros(2, 4, 4)}, "initial_state has shape"),
        ({"A": good["A"].to(torch.complex64)}, "real floating-point numbers only"),
        ({"u": good["u"].long()}, "real floating-point numbers only"),
        ({"D": good["D"].to("meta")}, "different devices"),
        ({"u": good["u"][..., :0], "delta": good["u"][..., :0]}, "no time steps"),
    ):
        with pytest.raises(DataError, match=message):
            selective_scan(**{**good, **change})
    x = torch.zeros(2, 3, 5)
    with pytest.raises(DataError, match="weight has shape"):
        causal_conv1d(x, torch.zeros(4, 3))
    with pytest.raises(DataError, match="initial_state has shape"):
        causal_conv1d(x, torch.zeros(3, 4), initial_state=torch.zeros(2, 3, 2))
    with pytest.raises(ConfigError, match="no activation 'relu'"):
        causal_conv1d(x, torch.zeros(3, 4), activation="relu")


def test_unknown_backends_are_refused() -> None:
    assert [check_backend(name) for name in BACKENDS] == list(BACKENDS)
    with pytest.raises(ConfigError, match=r"'cuba' is no backend .* Use model.scan_backend=auto\."):
        selective_scan(**problem(), backend="cuba")


def test_a_forced_backend_that_cannot_run_says_why() -> None:
    values = problem(dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"scan_backend=cuda cannot run: .* on cpu\. Use model.scan_backend=auto\."):
        selective_scan(**values, backend="cuda")
    with pytest.raises(ConfigError, match=r"scan_backend=cuda cannot run: .* on cpu\."):
        causal_conv1d(values["u"], torch.zeros(4, 3), backend="cuda")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Forget what was logged and imported before, and again afterwards."""
    for function in (module._module, module._tell_once):
        function.cache_clear()
    yield monkeypatch
    for function in (module._module, module._tell_once):
        function.cache_clear()


def test_auto_takes_the_fastest_and_says_so_once(fresh: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    values = problem(dtype=torch.float32)
    expected = selective_scan(**values, backend="reference")
    if not _COMPILER:
        with caplog.at_level("INFO", module.__name__):
            torch.testing.assert_close(selective_scan(**values), expected)
            selective_scan(**values)
        assert [r.message for r in caplog.records] == ["selective scan on cpu: cpp backend"]
        caplog.clear()
    fresh.setattr(cpp, "unavailable", lambda *_: "no compiler found.")
    fresh.setattr(cpp, "conv_unavailable", lambda *_: "no compiler found.")
    with caplog.at_level("INFO", module.__name__):
        torch.testing.assert_close(selective_scan(**values), expected)
        x, weight = torch.randn(2, 4, 5), torch.randn(4, 3)
        torch.testing.assert_close(causal_conv1d(x, weight), causal_conv1d(x, weight, backend="reference"))
    assert [r.message for r in caplog.records] == [
        "selective scan on cpu: torch backend (not cpp: no compiler found)",
        "causal convolution on cpu: torch backend (not cpp: no compiler found)",
    ]


def test_a_backend_whose_module_breaks_counts_as_unavailable(fresh: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        if name.endswith((".cpp", ".triton")):
            raise RuntimeError("0 active drivers")
        return torch_backend if name.endswith("torch_backend") else reference

    fresh.setattr(module.importlib, "import_module", broken)
    values = problem(dtype=torch.float32)
    torch.testing.assert_close(selective_scan(**values), selective_scan(**values, backend="reference"))
    with pytest.raises(ConfigError, match=r"does not import \(RuntimeError: 0 active drivers\)"):
        selective_scan(**values, backend="triton")
    x, weight = torch.randn(2, 4, 5), torch.randn(4, 3)
    torch.testing.assert_close(causal_conv1d(x, weight), causal_conv1d(x, weight, backend="reference"))


def test_a_failed_build_is_one_line_and_its_reason_is_said_once(
    fresh: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    fresh.setenv("KINEMA_EXTENSIONS_DIR", str(tmp_path))
    fresh.setenv("CXX", "no-such-compiler")
    values = problem(dtype=torch.float32)
    with caplog.at_level("INFO", "kinema"):
        for _ in range(2):
            selective_scan(**values)
            causal_conv1d(torch.randn(2, 4, 5), torch.randn(4, 3))
    build._library.cache_clear()
    assert caplog.text.count("no C++ compiler found") == 1
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "The cpp backend of the selective scan is off: no C++ compiler found (looked for no-such-compiler). "
        "Install g++ or set CXX."
    ]
    assert [r.message for r in caplog.records if r.levelname == "INFO"] == [
        "selective scan on cpu: torch backend (not cpp)",
        "causal convolution on cpu: torch backend (not cpp)",
    ]


# torch.func.


def _scanned(u: Tensor, values: dict[str, Any], backend: str) -> Tensor:
    u = causal_conv1d(u, torch.ones(4, 2, dtype=u.dtype), activation="silu", backend=backend)
    return selective_scan(**{**values, "u": u}, delta_softplus=True, backend=backend).square().sum()


@pytest.mark.parametrize("backend", ("auto", "reference"))
def test_transforms_of_torch_func(backend: str) -> None:
    values = {name: x.detach() for name, x in problem().items()}
    batches = torch.randn(3, *values["u"].shape, dtype=torch.float64)

    def loss(u: Tensor) -> Tensor:
        return _scanned(u, values, backend)

    expected = []
    for u in batches:
        leaf = u.clone().requires_grad_()
        expected += torch.autograd.grad(_scanned(leaf, values, "reference"), leaf)
    per_sample = torch.vmap(torch.func.grad(loss))(batches)
    torch.testing.assert_close(per_sample, torch.stack(expected))
    torch.testing.assert_close(torch.func.jacrev(loss)(batches[0]), expected[0])
    _, slope = torch.func.jvp(loss, (batches[0],), (batches[1],))
    torch.testing.assert_close(slope, (expected[0] * batches[1]).sum())
    state = torch.randn(2, 4, 3, dtype=torch.float64)
    later = torch.func.grad(lambda u: selective_scan(**{**values, "u": u}, initial_state=state, backend=backend).sum())
    assert later(batches[0]).isfinite().all()


@pytest.mark.parametrize("backend", ("torch", "cpp"))
def test_a_forced_backend_under_torch_func_says_what_to_do(backend: str) -> None:
    if backend == "cpp" and _COMPILER:
        pytest.skip(_COMPILER)
    values = {name: x.detach() for name, x in problem().items()}
    with pytest.raises(ConfigError, match=rf"scan_backend={backend} cannot run: .*torch\.func.*scan_backend=auto\."):
        torch.func.grad(lambda u: _scanned(u, values, backend))(values["u"])
    with pytest.raises(ConfigError, match=r"torch\.func"):
        torch.vmap(lambda u: _scanned(u, values, backend))(values["u"][None])
    if backend == "cpp":
        with pytest.raises(ConfigError, match=r"causal convolution .*torch\.func"):
            torch.vmap(lambda u: causal_conv1d(u, torch.ones(4, 2).to(u), backend=backend))(values["u"][None])


@pytest.mark.parametrize(
    "make",
    (
        lambda: DBMambaPose(**test_dbmambapose.small(scan_backend="auto")),
        lambda: PoseMamba(**test_posemamba.small(scan_backend="auto")),
    ),
    ids=("dbmambapose", "posemamba"),
)
def test_networks_give_gradients_per_sample(make: Any) -> None:
    torch.manual_seed(0)
    model = make().double().eval()
    signature = model.signature
    poses = torch.randn(2, signature.frames, signature.joints, signature.in_channels, dtype=torch.float64)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights: dict[str, Tensor], pose: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, (pose[None],)).square().mean()

    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, poses)
    for number, pose in enumerate(poses):
        model.zero_grad()
        model(pose[None]).square().mean().backward()
        for name, weight in model.named_parameters():
            expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
            torch.testing.assert_close(found[name][number], expected, rtol=1e-7, atol=1e-10)
