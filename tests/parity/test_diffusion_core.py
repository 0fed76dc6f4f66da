"""Golden numbers of the diffusion core: tables, padding, whole sampling runs, evaluation formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kinema
from kinema.core import motion_metrics
from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.diffusion import alpha_hats, betas, padded, to_coeffs, visited
from kinema.core.motion_features import to_joints
from kinema.core.motion_metrics import Groups
from kinema.core.motion_space import MotionSpace
from kinema.core.sampling import Known, sample
from kinema.errors import ConfigError
from kinema.inference.denoise import denoiser
from kinema.inference.motion_sampler import START, KnownMotion, MotionSampler
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

# The published metrics of one window, in the order of the golden arrays.
_NAMES = ("apd", "ade", "fde", "mmade", "mmfde")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


@cases("diffusion", "schedules")
def test_schedules(case: Case) -> None:
    arrays = case.arrays()
    for name in arrays:
        if found := re.fullmatch(r"ddim_(\d+)_(\d+)_used_t_prev", name):
            noise_steps, ddim_timesteps = map(int, found.groups())
            case.close(name, visited(noise_steps, ddim_timesteps, compat=True), arrays[name])
            whole = noise_steps % ddim_timesteps == 0 and 2 * ddim_timesteps <= noise_steps
            with case.check(f"{name}, strictly"):
                if whole:
                    np.testing.assert_array_equal(visited(noise_steps, ddim_timesteps), arrays[name])
                else:
                    with pytest.raises(ConfigError, match="ddim_timesteps="):
                        visited(noise_steps, ddim_timesteps)
            continue
        found = re.fullmatch(r"([A-Za-z]+)_(\d+)_(beta|alpha_hat)", name)
        assert found, f"{name}: not understood"
        table = betas if found[3] == "beta" else alpha_hats
        made = table(_snake(found[1]), int(found[2]))
        with case.check(f"{name}: type"):
            assert made.dtype == torch.float32
        case.close(name, made, arrays[name], atol=1e-6)
    case.finish()


@cases("diffusion", "dct")
def test_dct_and_padding(case: Case) -> None:
    arrays, config = case.arrays(), case.json()
    history, horizon = int(arrays["t_his"]), int(arrays["t_pred"])
    with case.check("config"):
        assert (config["t_his"], config["t_pred"]) == (history, horizon)
    motion = _tensor(arrays["traj"])
    numbers = torch.arange(history + horizon, dtype=torch.float32)[:, None]
    for name in arrays:
        if found := re.fullmatch(r"(i?)dct_(\d+)", name):
            matrix = orthonormal_dct_matrix(int(found[2]))
            case.close(name, matrix.T if found[1] else matrix, arrays[name], atol=1e-12)
            continue
        if name in ("traj", "t_his", "t_pred"):
            continue
        found = re.fullmatch(r"(idx|padded|traj_after)_([A-Za-z]+)", name)
        assert found, f"{name}: not understood"
        padding = _snake(found[2])
        if found[1] == "idx":
            # Zeros are the last frame, repeated, after it was damaged.
            index = padded(numbers, history, "last_frame" if padding == "zero" else padding)
            case.close(name, index[:, 0].long(), arrays[name])
        elif found[1] == "padded":
            before = motion.clone()
            case.close(name, padded(motion, history, padding, compat=True), arrays[name])
            case.close(f"{name}: argument", motion, before)
        else:
            damaged = motion.clone()
            if padding == "zero":
                damaged[:, history - 1] = 0
            case.close(name, damaged, arrays[name])
    case.finish()


class _Plain(nn.Module):
    """A network without its ability to share what samples have in common."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arguments: Any) -> Any:
        return self.model(*arguments)


class _Stored:
    """The noise of a file: the beginning, then one array per call."""

    def __init__(self, beginning: Tensor, injected: Tensor) -> None:
        self.beginning, self.injected, self.calls = beginning, injected, 0

    def __call__(self, ids: Tensor, samples: Tensor, step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        if step == START:
            return self.beginning
        return self.draw(step, part, (len(ids), len(samples), *shape))

    def draw(self, step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        self.calls += 1
        assert self.injected[self.calls - 1].shape == shape
        return self.injected[self.calls - 1]


class _Run:
    """A stored sampling run: windows W and samples K of each in two axes instead of one."""

    def __init__(self, case: Case) -> None:
        self.case, self.arrays, self.config = case, case.arrays(), case.json()
        config = self.config
        self.motion = _tensor(self.arrays["traj"])
        self.space = MotionSpace(config["t_his"], config["t_pred"], config["n_pre"])
        self.steps = config["ddim_timesteps"]
        # Modes that draw several samples of one window repeat it.
        self.samples = len(self.arrays["initial_noise"]) // len(self.motion)
        injected = self.arrays["injected_noise"] if "injected_noise" in self.arrays else np.zeros((0, 1, 1, 1))
        with case.check("number of draws"):
            assert len(injected) == config["n_injected"]
        self.noise = self.split(self.arrays["initial_noise"])
        self.injected = _tensor(injected).unflatten(1, (len(self.motion), -1)) if len(injected) else _tensor(injected)
        self.model = self._network()

    def split(self, array: np.ndarray) -> Tensor:
        return _tensor(array).unflatten(0, (len(self.motion), self.samples))

    def stored(self) -> _Stored:
        return _Stored(self.noise, self.injected)

    def _network(self) -> nn.Module:
        text = (self.case.path / "README.md").read_text()
        named = re.search(r"Weights: (\S+\.pt)", text)
        assert named, "the README names no weights"
        folder, _, name = named[1].rpartition("/")
        heads = re.search(r"num_heads=(\d+)", text)
        if not folder:
            assert heads, "the README names no number of heads"
            return kinema.load(self.case.file(name), num_heads=int(heads[1])).eval()
        sibling = Case((self.case.path / folder).resolve())
        return kinema.load(sibling.path / name, num_heads=sibling.json()["num_heads"]).eval()

    def condition(self) -> Tensor:
        """Coefficients of the padded history, (W, n, F), checked against the file."""
        encoded = self.space.encode_history(self.motion)
        self.close("traj_dct", encoded.known, self.first(self.arrays["traj_dct"]))
        mod = self.arrays["mod"]
        with self.case.check("mod"):
            assert bool(mod.size) == self.config["conditional"]
        if mod.size:
            self.close("mod", encoded.condition, self.first(mod))
        return encoded.condition

    def first(self, array: np.ndarray) -> Tensor:
        """What the samples of a window share."""
        found = self.split(array)
        with self.case.check("samples of a window share it"):
            assert (found == found[:, :1]).all()
        return found[:, 0]

    def known(self) -> list[KnownMotion]:
        """The parts that the run holds, as the mode asks for them."""
        frames, features = self.motion.shape[1:]
        observed = torch.arange(frames) < self.space.history
        mask = self.first(self.arrays["mask"])[0].bool()
        history = padded(self.motion, self.space.history)
        parts: list[KnownMotion] = []
        if self.config["mode"].startswith("fix_"):
            fixed = _tensor(self.arrays["traj_fix"])
            chosen = mask.all(0)
            with self.case.check("mask and traj_fix of control"):
                assert 0 < chosen.sum() < features
                assert torch.equal(mask, observed[:, None] | chosen)
                assert torch.equal(fixed, torch.where(chosen, self.motion, history))
            parts = [KnownMotion(mask, fixed, shared=True)]
        else:
            with self.case.check("mask"):
                assert torch.equal(mask, observed[:, None].expand(-1, features))
            if self.config["complete"]:
                parts = [KnownMotion(observed, history)]
        if self.config["mode"] == "switch":
            aim, end = self.motion[:1].clone(), self.first(self.arrays["mask_end"])[0].bool()
            start = self.space.horizon - self.space.history
            aim[:, :start] = aim[:, start : start + 1]
            with self.case.check("target of switch"):
                assert torch.equal(_tensor(self.arrays["traj_switch"]), aim.expand_as(self.motion))
                assert torch.equal(end, (torch.arange(frames) >= start)[:, None].expand(-1, features))
            parts.append(KnownMotion(end[:, 0], aim, until=2 * self.steps - self.config["n_injected"]))
        return parts

    def close(self, what: str, found: Tensor, expected: Any) -> None:
        expected = np.asarray(expected)
        self.case.close(what, found, expected, atol=1e-4 * float(np.abs(expected).max()))


@cases("diffusion", "ddim_")
def test_sampling(case: Case) -> None:
    """Every step of a run, by the network's own shared form and by the plain one, and the sampler's motion."""
    run = _Run(case)
    config = run.config
    condition, known = run.condition(), run.known()
    dct = orthonormal_dct_matrix(run.space.frames, run.space.kept_coeffs)
    held = [Known(to_coeffs(part.motion, dct)[:, None], part.mask, part.until, part.shared) for part in known]
    timesteps = visited(config["noise_steps"], run.steps, compat=True)
    alpha_hat = alpha_hats(config["scheduler"].lower(), config["noise_steps"])
    expected = run.arrays["steps"]
    for plain in (False, True):
        stored = run.stored()
        denoise = denoiser(run.model, condition if config["conditional"] else None, timesteps[:, 0], plain=plain)
        steps = list(sample(denoise, run.noise, timesteps, alpha_hat, known=held, noise=stored.draw))
        with case.check("every draw is used"):
            assert (len(steps), stored.calls) == (len(expected), len(run.injected))
        for number, (found, wanted) in enumerate(zip(steps, expected, strict=True)):
            run.close(f"step {number}, plain={plain}", found.flatten(0, 1), wanted)
    for model in (run.model, _Plain(run.model).eval()):
        motion = _sampled(run, model, known)
        run.close("final_time", motion.flatten(0, 1), run.arrays["final_time"])
        run.close("post_processed", to_joints(motion).flatten(0, 1), run.arrays["post_processed"])
    case.finish()


def _sampled(run: _Run, model: nn.Module, known: list[KnownMotion]) -> Tensor:
    """Motions of a `MotionSampler` that is given all known parts; its last step and its call are the same."""
    config = run.config
    sampler = MotionSampler(
        model,
        run.space,
        schedule=config["scheduler"].lower(),
        noise_steps=config["noise_steps"],
        ddim_timesteps=run.steps,
        completion=False,
        compat_steps=True,
    )
    conditioned = None if config["conditional"] else 0
    asked: dict[str, Any] = {"conditioned": conditioned, "known": known}
    motion = sampler(run.motion, run.samples, noise=run.stored(), **asked)
    steps: Iterator[Tensor] = sampler.steps(run.motion, run.samples, noise=run.stored(), **asked)
    run.case.close("the last step is the result", list(steps)[-1], motion)
    return motion


@cases("diffusion", "metrics")
def test_metrics(case: Case) -> None:
    """The published numbers per window, and the further ones where the folder has them."""
    arrays = case.arrays()
    if "gt" in arrays:
        _published(case, arrays)
    else:
        _further(case, arrays)
    case.finish()


def _published(case: Case, arrays: Arrays) -> None:
    samples, truth = _tensor(arrays["pred"]).transpose(0, 1), _tensor(arrays["gt"])
    pool, group, rows = _pooled(arrays)
    case.close("the truth is one of the group", pool[rows], truth)
    expected = arrays["per_sample_apd_ade_fde_mmade_mmfde"]
    means = arrays["mean_apd_ade_fde_mmade_mmfde"]
    found = motion_metrics.prediction_errors(samples, pool, group, rows)
    with case.check("names"):
        assert tuple(found) == _NAMES
    for number, name in enumerate(_NAMES):
        case.close(name, found[name], expected[:, number], atol=1e-5, rtol=1e-5)
        case.close(f"mean {name}", found[name].mean(), means[number], atol=1e-5, rtol=1e-5)
    for name, one in zip(("ade", "fde"), motion_metrics.errors(samples, truth), strict=True):
        case.close(f"{name} to the truth", one, expected[:, _NAMES.index(name)], atol=1e-5)


def _pooled(arrays: Arrays) -> tuple[Tensor, Groups, Tensor]:
    """All futures in one pool (M, P, F), groups of those that are a window's own, and their rows."""
    padded_groups, counts = arrays["gt_multi_nanpadded"], arrays["gt_multi_count"]
    truth = arrays["gt"]
    pool: list[np.ndarray] = []
    rows: list[int] = []
    ptr: list[int] = []
    for futures, count, own in zip(padded_groups, counts, truth, strict=True):
        assert np.isnan(futures[count:]).all()
        place = int(np.abs(futures[:count] - own).max((1, 2)).argmin())
        start = sum(len(one) for one in pool)
        rows.append(start + place)
        # Rows before the own one have no group, those after it neither.
        ptr += [start] * (place + 1) + [start + count] * (count - place - 1)
        pool.append(futures[:count])
    flat = _tensor(np.concatenate(pool))
    return flat, Groups(torch.arange(len(flat)), torch.tensor([*ptr, len(flat)])), torch.tensor(rows)


def _further(case: Case, arrays: Arrays) -> None:
    samples = _tensor(arrays["pred_BKTF"])
    motion = motion_metrics.motion_per_frame(samples)
    case.close("motion_per_frame", motion, arrays["motion_per_frame"], rtol=1e-5)
    means, classes = _tensor(arrays["class_mean_motion"]), _tensor(arrays["classes"])
    case.close("cmd", motion_metrics.cmd(motion, classes, means), arrays["cmd"], rtol=1e-5)
    single = re.search(r"M = ([\d.]*\d(?:e[+-]?\d+)?)", (case.path / "README.md").read_text())
    assert single, "the README does not say what cmd_single was measured against"
    one = motion_metrics.cmd(motion[:1], torch.zeros(1, dtype=torch.int64), torch.tensor([float(single[1])]))
    case.close("cmd_single", one, arrays["cmd_single"], rtol=1e-5)
    activations = [_tensor(arrays[name]) for name in ("act1", "act2")]
    fits = [motion_metrics.moments(len(one), one.sum(0), one.T @ one) for one in activations]
    case.close("fid", motion_metrics.frechet_distance(*fits[0], *fits[1]), arrays["fid"], rtol=1e-6)
    diversity, reference = _tensor(arrays["apd"]), _tensor(arrays["apd_gt"])
    case.close("apd", motion_metrics.apd(samples), diversity, rtol=1e-5)
    case.close("apde", motion_metrics.apde(diversity, reference), arrays["apde"], rtol=1e-5)
    # The futures are those of the folder beside.
    pool, group, rows = _pooled(Case(case.sibling(case.name.removesuffix("_extra"))).arrays())
    found = motion_metrics.multimodal(samples, pool, group, rows, skip_single=True)
    for name, values in zip(("mmade", "mmfde"), found, strict=True):
        case.close(f"{name}_skip_single", values, arrays[f"{name}_skip_single"], rtol=1e-5)
