"""Kinema: one platform for 3D human motion.

>>> import kinema
>>> model = kinema.load("FT_MB_lite_MB_ft_h36m_global_lite.bin")   # any official file, or one of Kinema's own
>>> model = kinema.create("dstformer_lite")                        # a fresh network by configuration name
>>> config = kinema.compose(["model=poseformer", "dataset=h36m_cpn"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["compose", "create", "load"]

if TYPE_CHECKING:
    from kinema.checkpoints.load import load
    from kinema.composition import compose, create

_HOMES = {"load": "kinema.checkpoints.load", "create": "kinema.composition", "compose": "kinema.composition"}


def __getattr__(name: str) -> Any:
    """Import torch and Hydra only when something that needs them is used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kinema' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
