"""Protocols by the names that `task.protocol` takes, per kind of task."""

from __future__ import annotations

from typing import Any

from kinema.protocols.action import ActionProtocol
from kinema.protocols.ma52 import MA52Protocol
from kinema.protocols.motionagformer import MotionAGFormerProtocol
from kinema.protocols.motionbert import MotionBERTProtocol
from kinema.protocols.mpi_inf_3dhp import MPIINF3DHPProtocol
from kinema.protocols.oneshot import OneShotProtocol
from kinema.protocols.prediction import PredictionProtocol
from kinema.protocols.videopose3d import VideoPose3DProtocol

# A lifting protocol states, beside what `kinema.protocols.report.Protocol` asks, the `space` of the poses that it
# measures and `root_options(root_relative)`: its options for networks of root-relative targets, or of others.
LIFTING: dict[str, Any] = {
    "videopose3d": VideoPose3DProtocol,
    "motionbert": MotionBERTProtocol,
    "motionagformer": MotionAGFormerProtocol,
    "mpi_inf_3dhp": MPIINF3DHPProtocol,
}

# A protocol of actions states the `output` of a network that it judges: "logits" (B, K), or "embedding" (B, D). Beside
# the windows it takes `classes`, a ClassList.
ACTION: dict[str, Any] = {"action": ActionProtocol, "ma52": MA52Protocol, "oneshot": OneShotProtocol}
# The benchmarks of NTU RGB+D, as `dataset.protocol` names them, differ in their training clips alone.
ACTION |= {name: ActionProtocol for name in ("xsub", "xview", "xset")}

# A protocol of motion prediction takes, beside the windows, how many frames of each are observed: `history`.
PREDICTION: dict[str, Any] = {"prediction": PredictionProtocol}
