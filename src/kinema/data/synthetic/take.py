"""One take of an action: who moves, where, and the draws that make it unlike the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinema.data.synthetic.skeleton import Body, Motion

OTHER = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Take:
    """Who moves, for how long, and the draws that make this take unlike the next.

    Attributes:
        body: of the subject.
        rng: the take's own generator.
        time: (T,) seconds.
        place: (2,) where the take happens, metres.
        heading: direction faced at the start, radians.
        side: the hand or foot preferred in this take.
    """

    body: Body
    rng: np.random.Generator
    time: np.ndarray
    place: np.ndarray
    heading: float
    side: str

    @property
    def sign(self) -> float:
        """+1 where the preferred side is the left, -1 where it is the right."""
        return 1.0 if self.side == "left" else -1.0

    @property
    def facing(self) -> np.ndarray:
        """Unit vector (2,) of the heading."""
        return np.array((np.cos(self.heading), np.sin(self.heading)))

    def between(self, low: float, high: float) -> float:
        """Draw one style value."""
        return float(self.rng.uniform(low, high))

    def stand(self, width: float = 1.0) -> Motion:
        """Begin from standing."""
        return Motion.standing(self.body, self.place, self.heading, len(self.time), width)

    def cycle(self, low: float, high: float) -> tuple[np.ndarray, float]:
        """Draw a period in seconds; return the time (T,) since a cycle running at the start began, and the period."""
        period = self.between(low, high)
        return self.time + self.between(0.0, 1.0) * period, period
