"""Backends of the selective scan and of the causal convolution, one file each.

A backend module offers `scan` and `unavailable`, both called with the same ten positional arguments
(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state): `unavailable` gives the reason why the
backend cannot run on them, or None; `scan` gives (y, last_state), differentiable in all tensors but
initial_state. A backend with a convolution of its own offers `conv` and `conv_unavailable` as well, called
with (x, weight, bias, activation, initial_state).
"""

from __future__ import annotations


class Logged(str):
    """A reason that its backend has put into the log already, so that nobody says it again."""
