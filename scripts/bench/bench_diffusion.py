"""Motion prediction by diffusion: sampling, one evaluation of a network, completion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.diffusion import alpha_hats, visited
from kinema.core.motion_masks import held_joints, joints_of, observed
from kinema.core.motion_space import MotionSpace
from kinema.core.sampling import Completion, Known
from kinema.inference.motion_sampler import START, MotionSampler
from kinema.models.humanmac import HumanMAC
from kinema.models.smrnet import SMRNet
from scripts.bench import reference_diffusion as reference
from scripts.bench.measure import Pair
from scripts.bench.rows import bench
from scripts.bench.stores import BODY, distance

# Human3.6M: half a second to two.
WINDOW = {"history": 25, "horizon": 100, "kept": 20}
SMRNET = {"family": "smrnet", "dim": 512, "depth": 8, "heads": 8}
SMALL_NET = {"history": 4, "horizon": 6, "kept": 5, "dim": 16, "depth": 2, "heads": 2}
FEATURES = 3 * (len(BODY) - 1)
_PER_SAMPLE = "published network, a pass per sample"


def network(
    *, family: str, kept: int, dim: int, depth: int, heads: int, features: int = FEATURES
) -> tuple[nn.Module, reference.Network]:
    """A network of published widths in eval mode, and its plain form on the same weights."""
    sizes = {"kept_coeffs": kept, "num_features": features, "dim": dim, "depth": depth, "num_heads": heads}
    torch.manual_seed(0)
    model: nn.Module = (
        SMRNet(**sizes, dropout=0.3) if family == "smrnet" else HumanMAC(**sizes, ff_dim=2 * dim, dropout=0.2)
    )
    fill(model)
    return model.eval(), partial(getattr(reference, family), model)


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Weights of a size that keeps signals alive: matrices by the root of their width, norms around 1.

    As they begin, the last layers are zero and adjacencies nearly so, and errors before them would stay unseen.
    """
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.named_parameters():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1:
            tensor.copy_(drawn / tensor.shape[-1] ** 0.5)
        else:
            tensor.copy_(0.1 * drawn + float("norm" in name and name.endswith("weight")))


@dataclass(frozen=True)
class Given:
    """Noise made beforehand, so that both forms have the same and neither is charged for it.

    Attributes:
        start: (W, K, n, F).
        fresh: (S, W, K, n, F).
    """

    start: Tensor
    fresh: Tensor

    @classmethod
    def drawn(cls, windows: int, samples: int, steps: int, kept: int, features: int = FEATURES) -> Given:
        generator = torch.Generator().manual_seed(2)
        shape = (1 + steps, windows, samples, kept, features)
        start, *fresh = torch.randn(shape, generator=generator)
        return cls(start, torch.stack(fresh))

    def __call__(self, ids: Tensor, samples: Tensor, step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        noise = self.start if step == START else self.fresh[step]
        return noise[ids.to(noise.device)[:, None], samples.to(noise.device)]

    def to(self, device: str) -> Given:
        return Given(self.start.to(device), self.fresh.to(device))


def histories(windows: int, frames: int) -> Tensor:
    """Wandering poses (W, frames, F) of some tenths of a metre."""
    generator = torch.Generator().manual_seed(3)
    way = torch.randn(windows, frames, FEATURES, generator=generator).cumsum(1) * 0.01
    return way + 0.3 * torch.randn(windows, 1, FEATURES, generator=generator)


def build_ddim(
    *,
    family: str,
    history: int,
    horizon: int,
    kept: int,
    dim: int,
    depth: int,
    heads: int,
    windows: int,
    samples: int,
    steps: int,
) -> Pair:
    """Samples of whole motions, from histories to metres; hard cases: one sample of one window, and samples of which
    only some, or none, see the condition.
    """
    model, plain_network = network(family=family, kept=kept, dim=dim, depth=depth, heads=heads)
    space = MotionSpace(history=history, horizon=horizon, kept_coeffs=kept)
    sampler = MotionSampler(model, space, ddim_timesteps=steps, chunk=1000)
    levels: list[tuple[int, int]] = [(int(a), int(b)) for a, b in visited(1000, steps)]
    alpha_hat = alpha_hats("cosine", 1000)
    seen, noise = histories(windows, history), Given.drawn(windows, samples, steps, kept)

    def plain(count: int = windows, number: int = samples, conditioned: int = samples) -> Tensor:
        passes = [
            reference.ddim(
                plain_network, seen[:count], space.frames, levels, alpha_hat, noise.start[:count, k],
                noise.fresh[:, :count, k], conditional=k < conditioned,
            )
            for k in range(number)
        ]  # fmt: skip
        return torch.stack(passes, dim=1)

    def ours(count: int = windows, number: int = samples, conditioned: int | None = None) -> Tensor:
        return sampler(seen[:count], number, conditioned=conditioned, noise=noise)

    def difference() -> float:
        hard = [(1, 1, 1), (2, 3, 2), (2, 2, 0)]
        return distance((ours(), plain()), *((ours(*case), plain(*case)) for case in hard))

    return Pair(plain, ours, difference)


for _name, _sizes, _bound, _goal in (
    ("8x8", {"windows": 8, "samples": 8, "steps": 2}, 1.4, 1.7),
    ("2x50", {"windows": 2, "samples": 50, "steps": 1}, 1.9, 2.6),
):
    bench(
        build_ddim,
        f"smrnet_ddim_{_name}",
        operation="SMRNet DDIM, {windows} windows x {samples} samples, steps: {steps}".format(**_sizes),
        reference=_PER_SAMPLE,
        sizes={**SMRNET, **WINDOW, **_sizes},
        small={**SMALL_NET, "windows": 2, "samples": 3},
        bound=_bound,
        goal=_goal,
        tolerance=1e-5 * _sizes["steps"],
        rounds=3,
    )


@torch.no_grad()
def build_evaluation(*, family: str, kept: int, dim: int, depth: int, heads: int, windows: int, samples: int) -> Pair:
    """The network once for all samples of some windows, as in every step of sampling; what a whole run prepares once
    (the folded weights, the encoded history) is prepared. Hard cases as in `build_ddim`.
    """
    model, plain_network = network(family=family, kept=kept, dim=dim, depth=depth, heads=heads)
    steps = torch.tensor([991, 501, 1])
    known, x = torch.randn(windows, kept, FEATURES), torch.randn(windows, samples, kept, FEATURES)
    make: Any = model.denoiser
    denoise = make(known, steps)

    @torch.no_grad()
    def plain(x: Tensor = x, step: int = 1, *, blind: bool = False) -> Tensor:
        count = x.shape[1]
        condition = None if blind else known[: len(x)].repeat_interleave(count, dim=0)
        t = torch.full((len(x) * count,), int(steps[step]))
        return plain_network(x.flatten(0, 1), t, condition).reshape(x.shape)

    def ours() -> Tensor:
        made: Tensor = denoise(x, 1)
        return made

    def difference() -> float:
        mixed = torch.cat([plain(x[:, :1], 0), plain(x[:, 1:], 0, blind=True)], dim=1)
        single = make(known[:1], steps)(x[:1, :1], 2)
        return distance((ours(), plain()), (make(known, steps, 1)(x, 0), mixed), (single, plain(x[:1, :1], 2)))

    return Pair(plain, ours, difference)


bench(
    build_evaluation,
    "smrnet_evaluation_200",
    operation="SMRNet, one evaluation, 4 windows x 50 samples",
    reference="published network at equal batch",
    sizes={**SMRNET, "kept": 20, "windows": 4, "samples": 50},
    small={"kept": 5, "dim": 16, "depth": 2, "heads": 2, "windows": 2, "samples": 3},
    bound=1.4,
    goal=1.6,
    tolerance=1e-5,
)
bench(
    build_ddim,
    "humanmac_ddim",
    operation="HumanMAC DDIM, 8 windows x 8 samples, steps: 2",
    reference=_PER_SAMPLE,
    sizes={**SMRNET, **WINDOW, "family": "humanmac", "windows": 8, "samples": 8, "steps": 2},
    small={**SMALL_NET, "windows": 2, "samples": 3},
    bound=1,
    goal=1.1,
    tolerance=2e-5,
    rounds=3,
)


def build_completion(*, history: int, horizon: int, kept: int, sequences: int, part: str | None) -> Pair:
    """Known parts put into samples: the history, and where `part` is named some joints to the end.

    Hard cases: one sequence, nothing known, everything known.
    """
    frames = history + horizon
    mask = observed(history, frames)
    if part is not None:
        mask = held_joints(joints_of([part], BODY), history, frames, BODY)
    tables = reference.transforms(frames)
    x, known = torch.randn(2, sequences, kept, FEATURES)

    def plain(mask: Tensor = mask, x: Tensor = x, known: Tensor = known) -> Tensor:
        return reference.complete(x, known, (mask if mask.dim() == 2 else mask[:, None]).float(), tables)

    def ours(mask: Tensor) -> Callable[..., Tensor]:
        completion = Completion([Known(known, mask)], kept)
        return lambda x=x, known=known: completion(x, [known], 0)

    fast = ours(mask)

    def difference() -> float:
        hard = [(torch.full_like(mask, value), x, known) for value in (False, True)] + [(mask, x[:1], known[:1])]
        return distance((fast(), plain()), *((ours(mask)(*rest), plain(mask, *rest)) for mask, *rest in hard))

    return Pair(plain, fast, difference)


for _name, _part, _bound, _goal in (("completion", None, 8, 12), ("completion_part", "right_arm", 3, 6)):
    bench(
        build_completion,
        _name,
        operation=f"completion of {'the history' if _part is None else 'history and right arm'}, 100 sequences",
        reference="two inverse DCTs, mask, DCT",
        sizes={**WINDOW, "sequences": 100, "part": _part},
        small={"history": 4, "horizon": 6, "kept": 5, "sequences": 3},
        bound=_bound,
        goal=_goal,
        tolerance=1e-5,
        rounds=50,
    )
