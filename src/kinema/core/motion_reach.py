"""Whether sampled motions have the size of a body: a network that does not belong to the data gives any numbers."""

from __future__ import annotations

from torch import Tensor

# Samples whose farthest joint is on average so many times farther from the root than in real motion are no body.
_TIMES = 3.0


def reach(motion: Tensor) -> Tensor:
    """Distance (...) of the joint that is farthest from the root, of features (..., F) in metres."""
    return motion.unflatten(-1, (-1, 3)).norm(dim=-1).amax(-1)


def told(samples: float, body: float) -> str:
    """A sentence where samples reach much farther than the bodies of the data, else "".

    Args:
        samples: mean `reach` of samples, NaN where there are none.
        body: the same of real motion.
    """
    if not samples > _TIMES * body:
        return ""
    return (
        f"Samples reach {samples:.1f} m from the root, bodies of this data {body:.1f} m: the network does not belong "
        "to this data, or is not trained."
    )
