"""Diffusion in the frequency domain, as small pure functions: schedules, visited steps, noise, targets, padding, DCT.

Notation: T noise steps, S visited steps, N frames of which H are observed, n kept DCT coefficients, F features. The
sampler that is built from them stands in `core.sampling`.

Source: HumanMAC (ICCV 2023), repo LinghaoChan/HumanMAC, utils/ and config.py; SMRNet uses the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kinema.core.dct import product
from kinema.errors import ConfigError

PREDICTIONS = ("noise", "x0", "v")
PADDINGS = ("last_frame", "repeat", "zero")
# No step destroys more than this share of the variance.
_LARGEST_BETA = 0.999


def _cosine(tau: Tensor) -> Tensor:
    return torch.cos((tau + 0.008) / 1.008 * math.pi / 2) ** 2


def _sqrt(tau: Tensor) -> Tensor:
    return 1 - torch.sqrt(tau + 0.0001)


def _sigmoid(tau: Tensor) -> Tensor:
    # A logistic curve from -3 to 3, sharpened by 1 / 0.7.
    low, high = (torch.sigmoid(torch.tensor(end / 0.7)) for end in (-3.0, 3.0))
    return (high - torch.sigmoid((tau * 6 - 3) / 0.7)) / (high - low)


# What is left of the variance of the motion after a share tau of the noise steps, up to a factor.
_LEFT: dict[str, Callable[[Tensor], Tensor]] = {"cosine": _cosine, "sqrt": _sqrt, "sigmoid": _sigmoid}
SCHEDULES = (*_LEFT, "linear")


def betas(schedule: str, noise_steps: int) -> Tensor:
    """Share of the variance that each noise step replaces.

    Args:
        schedule: cosine, sqrt, sigmoid or linear.
        noise_steps: T.

    Returns:
        (T,) float32 on the CPU.

    Raises:
        ConfigError: an unknown schedule, or so few linear steps that one would replace everything.
    """
    if schedule == "linear":
        # The ends are meant for 1000 steps.
        scale = 1000 / noise_steps
        if scale * 0.02 >= 1:
            raise ConfigError(
                f"schedule=linear with {noise_steps} noise steps would destroy the motion in one of them. Use "
                "task.noise_steps=1000."
            )
        return torch.linspace(scale * 0.0001, scale * 0.02, noise_steps)
    if schedule not in _LEFT:
        raise ConfigError(f"No noise schedule is called {schedule!r}. Use one of {', '.join(SCHEDULES)}.")
    left = _LEFT[schedule](torch.linspace(0, noise_steps, noise_steps + 1) / noise_steps)
    left = left / left[0]
    return (1 - left[1:] / left[:-1]).clip(0, _LARGEST_BETA)


def alpha_hats(schedule: str, noise_steps: int) -> Tensor:
    """Share of the motion's variance that is left at each noise step, (T,) float32; the first is not quite 1."""
    return torch.cumprod(1 - betas(schedule, noise_steps), dim=0)


def visited(noise_steps: int, ddim_timesteps: int, *, compat: bool = False) -> Tensor:
    """Steps (t, t') that DDIM takes, in the order in which it takes them: from noise level t to t'.

    The grid is 1, 1 + stride, ... and ends at level 0: 1000 steps of noise visited in 100 give (991, 981), ...,
    (11, 1), (1, 0).

    Args:
        noise_steps: T.
        ddim_timesteps: S.
        compat: the published list for any S below T. Where S does not divide T it leaves the highest noise levels out.

    Returns:
        (S, 2) int64 on the CPU.

    Raises:
        ConfigError: S does not divide T or is more than half of it, with the nearest number that works; with `compat`
            only where the published program fails too.
    """
    asked = f"ddim_timesteps={ddim_timesteps} of noise_steps={noise_steps}"
    if compat:
        if not 1 <= ddim_timesteps < noise_steps:
            raise ConfigError(f"{asked} cannot be visited, fewer are needed. Use {_working(noise_steps, 100)}.")
    elif ddim_timesteps < 1 or noise_steps % ddim_timesteps or 2 * ddim_timesteps > noise_steps:
        raise ConfigError(
            f"{asked}: the visited steps must divide the noise steps and be at most half of them. Use "
            f"{_working(noise_steps, ddim_timesteps)}."
        )
    stride = noise_steps // ddim_timesteps
    # published behaviour: a stride that was rounded down gives a longer grid, whose first S points are taken.
    now = 1 + stride * torch.arange(ddim_timesteps)
    return torch.stack([now, torch.cat([now.new_zeros(1), now[:-1]])], dim=1).flip(0)


def _working(noise_steps: int, wanted: int) -> str:
    """Override for the number of visited steps that works and is nearest to the wanted one."""
    counts = [count for count in range(1, noise_steps // 2 + 1) if noise_steps % count == 0]
    if not counts:
        return "task.noise_steps=1000"
    return f"task.ddim_timesteps={min(counts, key=lambda count: abs(count - wanted))}"


def levels(alpha_hat: Tensor, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of motion and noise at levels t: sqrt(a) and sqrt(1 - a).

    Args:
        alpha_hat: (T,).
        t: (B,) of a batch, or one level.
        like: (B, ...), what they are multiplied with.

    Returns:
        Two tensors, (B, 1, ..., 1) or without axes, of the type of `like`.
    """
    share = alpha_hat[t].to(like.dtype)
    if share.dim():
        share = share.reshape(-1, *[1] * (like.dim() - 1))
    return share.sqrt(), (1 - share).sqrt()


def q_sample(x0: Tensor, t: Tensor | int, noise: Tensor, alpha_hat: Tensor) -> Tensor:
    """Noisy version of x0 at levels t: sqrt(a) x0 + sqrt(1 - a) noise.

    Args:
        x0: (B, ...).
        t: (B,) int64, or one level for all.
        noise: like x0 (or what broadcasts to it), standard normal.
        alpha_hat: (T,).
    """
    signal, spread = levels(alpha_hat, t, x0)
    return signal * x0 + spread * noise


def target(prediction: str, x0: Tensor, noise: Tensor, t: Tensor | int, alpha_hat: Tensor) -> Tensor:
    """What a network of a kind is to give for `q_sample(x0, t, noise, alpha_hat)`.

    Args:
        prediction: noise, x0, or v = sqrt(a) noise - sqrt(1 - a) x0.
        x0: (B, ...).
        noise: like x0.
        t: (B,) int64, or one level.
        alpha_hat: (T,).
    """
    _check_prediction(prediction)
    if prediction == "noise":
        return noise
    if prediction == "x0":
        return x0
    signal, spread = levels(alpha_hat, t, x0)
    return signal * noise - spread * x0


def to_start(prediction: str, output: Tensor, x: Tensor, t: Tensor | int, alpha_hat: Tensor) -> Tensor:
    """Motion x0 that a network's output means for its input x at levels t; arguments as in `to_noise`."""
    _check_prediction(prediction)
    if prediction == "x0":
        return output
    signal, spread = levels(alpha_hat, t, x)
    return (x - spread * output) / signal if prediction == "noise" else signal * x - spread * output


def to_noise(prediction: str, output: Tensor, x: Tensor, t: Tensor | int, alpha_hat: Tensor) -> Tensor:
    """Noise that a network's output means for its input x at levels t.

    Args:
        prediction: what the network gives: noise, x0 or v.
        output: (B, ...).
        x: (B, ...).
        t: (B,) int64, or one level.
        alpha_hat: (T,).
    """
    _check_prediction(prediction)
    if prediction == "noise":
        return output
    signal, spread = levels(alpha_hat, t, x)
    return (x - signal * output) / spread if prediction == "x0" else signal * output + spread * x


def _check_prediction(prediction: str) -> None:
    if prediction not in PREDICTIONS:
        raise ConfigError(f"No network predicts {prediction!r}. Use task.prediction={' or '.join(PREDICTIONS)}.")


def padded(
    motion: Tensor, history: int, padding: str = "last_frame", *, frames: int | None = None, compat: bool = False
) -> Tensor:
    """Motion whose future is replaced by what the history alone says; the argument is left as it is.

    Args:
        motion: (..., T, F) with at least `history` frames, of which the others are not read.
        history: H.
        padding: last_frame repeats frame H - 1, repeat the whole history, zero stands for the mean pose of a
            root-relative motion (the root).
        frames: N of the result, None = as many as `motion` has.
        compat: zero as published: frame H - 1 is lost as well.

    Returns:
        (..., N, F), a new tensor.

    Raises:
        ConfigError: an unknown padding, or a history that cannot be repeated to N frames.
    """
    length = motion.shape[-2] if frames is None else frames
    if padding not in PADDINGS:
        raise ConfigError(f"No padding of the history is called {padding!r}. Use task.padding={PADDINGS[0]}.")
    if padding == "repeat" and length % history:
        raise ConfigError(
            f"padding=repeat fills {length} frames with whole histories of {history}, which does not come out. Use "
            "task.padding=last_frame."
        )
    index = torch.arange(length, device=motion.device)
    index = index % history if padding == "repeat" else index.clamp(max=history - 1)
    result = motion.index_select(-2, index)
    if padding == "zero":
        # published behaviour: the last observed frame is zeroed first, and then repeated.
        result[..., history - compat :, :] = 0
    return result


def to_coeffs(motion: Tensor, dct: Tensor) -> Tensor:
    """Coefficients of a motion: (..., N, F) and a matrix (n, N) of rows of length 1 to (..., n, F)."""
    return product(dct.to(motion), motion)


def from_coeffs(coeffs: Tensor, dct: Tensor) -> Tensor:
    """Motion of the given coefficients, the others being 0: (..., n, F) and the same (n, N) to (..., N, F)."""
    return product(dct.to(coeffs).T, coeffs)
