"""How a motion prediction task samples: the options of its variants, their checks, and numbers for windows."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.core import diffusion
from kinema.core.sampling import SAMPLERS
from kinema.data.windows import SEQUENCE, START, Windows
from kinema.errors import ConfigError
from kinema.inference.motion_baselines import BASELINES

# Published tables are sampled in a tenth of the noise steps, 100 of 1000; faster samplers are reported beside it.
_REFERENCE = 10

Variants = Mapping[str, Mapping[str, Any] | None] | None


@dataclass(frozen=True)
class Sampling:
    """Options of sampling, as the keys of the task's yaml.

    Attributes:
        num_samples: futures K of each window.
        ddim_timesteps: steps from noise to motion.
        sampler: a name in `core.sampling.SAMPLERS`.
        completion: the observed frames are put back at every step.
        mod_test: share of the samples of a window that see the condition.
        compat_rng: random numbers in the order of the released code.
    """

    num_samples: int
    ddim_timesteps: int
    sampler: str
    completion: bool
    mod_test: float
    compat_rng: bool

    def changed(self, options: Mapping[str, Any]) -> Sampling:
        """The same with other values; those that are None, and options of other things, are passed over."""
        known = {key: value for key, value in options.items() if key in asdict(self) and value is not None}
        return replace(self, **known)

    @property
    def conditioned(self) -> int | None:
        """How many samples of a window see the condition; None = all."""
        count = int(self.mod_test * self.num_samples + 0.5)
        return None if count == self.num_samples else count

    def check(self, where: str, noise_steps: int) -> None:
        """Refuse values that cannot work.

        Raises:
            ConfigError: its last sentence is an override that works.
        """
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"{where}: no sampler is called {self.sampler!r}. Use one of {', '.join(SAMPLERS)}.")
        if self.num_samples < 1:
            raise ConfigError(f"{where}: {self.num_samples} samples predict nothing. Use task.num_samples=50.")
        if not 0 <= self.mod_test <= 1:
            raise ConfigError(f"{where}: mod_test={self.mod_test} is no share of the samples. Use task.mod_test=1.0.")
        diffusion.visited(noise_steps, self.ddim_timesteps, compat=self.compat_rng)


def with_reference(variants: Variants, plain: Sampling, noise_steps: int) -> dict[str, dict[str, Any]]:
    """Variants without those set to null; beside a faster sampler ddim in a tenth of the steps is added, if missing."""
    chosen = {name: dict(options) for name, options in (variants or {"default": {}}).items() if options is not None}
    sampled = [plain.changed(options) for options in chosen.values() if not options.get("baseline")]
    steps = plain.ddim_timesteps if noise_steps % _REFERENCE else noise_steps // _REFERENCE
    published = any((one.sampler, one.ddim_timesteps) == ("ddim", steps) for one in sampled)
    if not published and any(one.sampler != "ddim" for one in sampled):
        name = "ddim" if "ddim" not in chosen else f"ddim_{steps}"
        chosen[name] = {"sampler": "ddim", "ddim_timesteps": steps}
    return chosen


def steps_of(task: Any) -> dict[str, int]:
    """Steps from noise to motion of every variant of a test that samples, by the name of its report."""
    plain = getattr(task, "sampling", None)
    if not isinstance(plain, Sampling):
        return {}
    steps = {}
    for number, (name, options) in enumerate(task.variants.items()):
        if not options.get("baseline"):
            steps["test" if number == 0 else f"test/{name}"] = plain.changed(options).ddim_timesteps
    return steps


def check_variants(
    variants: Mapping[str, Mapping[str, Any]], known: frozenset[str], plain: Sampling, noise_steps: int
) -> None:
    """Refuse options that no prediction has, and values that cannot work, before a training finds out at its end.

    Args:
        variants: options by their key in yaml ("variants.fast", "validation").
        known: options of a prediction.
        plain: what is not named.
        noise_steps: T.

    Raises:
        ConfigError: for an unknown option, with the nearest one, or a value.
    """
    for name, options in variants.items():
        where = f"task.{name}"
        for key in set(options) - known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
            raise ConfigError(f"{where}: {key!r} is no option of a prediction. {hint}")
        baseline = options.get("baseline")
        if baseline is not None and baseline not in BASELINES:
            raise ConfigError(f"{where}: no baseline is called {baseline!r}. Use one of {', '.join(BASELINES)}.")
        plain.changed(options).check(where, noise_steps)


def numbered(windows: Windows) -> Tensor:
    """A number (W,) below 2^31 for each window by its recording and first frame: the same in any subset and folder."""
    columns = windows.sequences.table
    names = columns.get("trial", columns["action"])
    firsts = [
        int.from_bytes(hashlib.sha256(f"{subject}/{name}".encode()).digest()[:4], "little")
        for subject, name in zip(columns["subject"], names, strict=True)
    ]
    made = np.asarray(firsts, np.int64)[windows.table[:, SEQUENCE]] + windows.table[:, START]
    return torch.from_numpy(made & 0x7FFFFFFF)


@contextmanager
def published_generators(seed: int) -> Iterator[None]:
    """The global generators as after the published `seed_set(seed)`; afterwards they go on where they were."""
    before = np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
