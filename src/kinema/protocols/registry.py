"""Protocols by the names that `task.protocol` takes, per kind of task."""

from __future__ import annotations

from typing import Any

from kinema.protocols.motionagformer import MotionAGFormerProtocol
from kinema.protocols.motionbert import MotionBERTProtocol
from kinema.protocols.mpi_inf_3dhp import MPIINF3DHPProtocol
from kinema.protocols.videopose3d import VideoPose3DProtocol

# A lifting protocol states, beside what `kinema.protocols.report.Protocol` asks, the `space` of the poses that it
# measures and `root_options(root_relative)`: its options for networks of root-relative targets, or of others.
LIFTING: dict[str, Any] = {
    "videopose3d": VideoPose3DProtocol,
    "motionbert": MotionBERTProtocol,
    "motionagformer": MotionAGFormerProtocol,
    "mpi_inf_3dhp": MPIINF3DHPProtocol,
}
