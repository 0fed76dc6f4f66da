"""Small action and lifting networks in files, with what a training run would have written beside the weights."""

from __future__ import annotations

from pathlib import Path

import torch

from kinema import composition
from kinema.composition import compose
from tests.checkpoints import tiny

CLASSES = ("nodding", "waving", "sitting")
SMALL = (
    "model=stgcnpp", "model.dim=8", "model.depth=2", "model.inflate_stages=[2]", "model.down_stages=[2]",
    "dataset.frames=8", "model.num_frames=8", "dataset=clip_folder", f"dataset.classes=[{','.join(CLASSES)}]",
    "dataset.num_classes=3",
)  # fmt: skip


def trained(path: Path, *words: str, seed: int = 0) -> Path:
    """A checkpoint as training writes it, of random weights."""
    config = compose(["task=action", *SMALL, f"paths.data_dir={path.parent / 'nowhere'}", *words])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = composition.build_model(config)
        last = model.cls_head.fc_cls
        torch.nn.init.normal_(last.weight, std=1.0)  # not all classes alike
    data = composition.build_data(config, model.signature)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tiny.lightning(model, task="action", spec=data.spec, config=composition.plain(config))
    return tiny.save(content, path)


def lifter(path: Path, *words: str) -> Path:
    """A lifting checkpoint as training writes it, of random weights."""
    config = compose(["dataset=custom", "dataset.skeleton2d=h36m17", *words])
    model = tiny.build("videopose3d", num_joints=17, num_joints_out=17)
    data = composition.build_data(config, model.signature)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tiny.lightning(model, task="lifting", spec=data.spec, config=composition.plain(config))
    return tiny.save(content, path)
