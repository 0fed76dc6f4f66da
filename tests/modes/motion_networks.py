"""Small motion networks in files, with what a training run would have written beside the weights."""

from __future__ import annotations

from pathlib import Path

import torch

from kinema import composition
from kinema.composition import compose
from tests.checkpoints import tiny

HISTORY, HORIZON = 5, 15
SMALL = (
    "task=prediction", "model=humanmac_tiny", "model.dim=8", "model.ff_dim=16", "model.kept_coeffs=6",
    "dataset=synthetic_motion", "dataset.reader_options.frames=40", "dataset.reader_options.actions=[walk,wave,kick]",
    "dataset.cache_dir=null", f"dataset.history={HISTORY}", f"dataset.horizon={HORIZON}",
    "task.ddim_timesteps=10", "task.prediction=x0",
)  # fmt: skip


def trained(path: Path, *words: str, seed: int = 0) -> Path:
    """A checkpoint as training writes it, of random weights."""
    config = compose([*SMALL, *words])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = composition.build_model(config)
        torch.nn.init.normal_(model.out.weight, std=0.05)  # a fresh network says 0
    data = composition.build_data(config, model.signature)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tiny.lightning(model, task="prediction", spec=data.spec, config=composition.plain(config))
    return tiny.save(content, path)
