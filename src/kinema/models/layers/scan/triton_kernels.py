"""Triton kernels of the selective scan; they need Triton to be imported, so only `triton.py` does, when asked.

One work item is one batch row and a block of channels of one group, with all states in registers; it walks through
time, the states being float32 (float64 for float64). u, delta, z, y and their gradients are read and written as
(B, L, D), so that a block of channels is one coalesced access. Every sum over several work items goes through partial
buffers that torch adds up afterwards: the same input gives the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _step_size(raw, SOFTPLUS: tl.constexpr):
    """delta from its raw value; log(1 + e) as e log(w) / (w - 1) keeps the digits of a small e."""
    if SOFTPLUS:
        e = tl.exp(tl.minimum(raw, 20.0))
        w = 1.0 + e
        gap = tl.where(w == 1.0, 1.0, w - 1.0)
        soft = tl.where(w == 1.0, e, tl.log(w) * (e / gap))
        return tl.where(raw > 20.0, raw, soft)
    else:
        return raw


@triton.jit
def forward(
    u,
    delta,
    A,
    B,
    C,
    D,
    z,
    bias,
    initial,
    y,
    last,
    checkpoints,
    length,
    chunks,
    groups,
    per_group,
    states,
    blocks,
    u_batch,
    u_time,
    delta_batch,
    delta_time,
    z_batch,
    z_time,
    y_batch,
    y_time,
    B_batch,
    B_group,
    B_state,
    B_time,
    C_batch,
    C_group,
    C_state,
    C_time,
    B_ratio,
    C_ratio,
    B_VARIES: tl.constexpr,
    C_VARIES: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    SAVE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    STATES: tl.constexpr,
):
    """y and the last state; with SAVE also the state before every CHUNK steps, (B, chunks, D, N)."""
    work = A.dtype.element_ty
    item = tl.program_id(0)
    batch = tl.cast(item // (groups * blocks), tl.int64)  # large tensors: offsets of 64 bits
    slot = item % (groups * blocks)
    group = slot // blocks
    inside = (slot % blocks) * BLOCK + tl.arange(0, BLOCK)
    channel = group * per_group + inside
    n = tl.arange(0, STATES)
    mask = inside < per_group
    real = n < states
    both = mask[:, None] & real[None, :]
    total = groups * per_group
    cell = channel[:, None] * states + n[None, :]

    a_rate = tl.load(A + cell, mask=both, other=0.0)
    state = tl.zeros((BLOCK, STATES), dtype=work)
    if HAS_INITIAL:
        state = tl.load(initial + batch * total * states + cell, mask=both, other=0.0)
    u += batch * u_batch + channel
    delta += batch * delta_batch + channel
    y += batch * y_batch + channel
    if HAS_Z:
        z += batch * z_batch + channel
    skip = tl.zeros((BLOCK,), dtype=work)
    if HAS_D:
        skip = tl.load(D + channel, mask=mask, other=0.0)
    shift = tl.zeros((BLOCK,), dtype=work)
    if HAS_BIAS:
        shift = tl.load(bias + channel, mask=mask, other=0.0)
    if B_VARIES:
        B += batch * B_batch + (group // B_ratio) * B_group + n * B_state
    else:
        b = tl.load(B + cell, mask=both, other=0.0)
    if C_VARIES:
        C += batch * C_batch + (group // C_ratio) * C_group + n * C_state
    else:
        c = tl.load(C + cell, mask=both, other=0.0)

    for chunk in range(chunks):
        if SAVE:
            tl.store(checkpoints + (batch * chunks + chunk) * total * states + cell, state, mask=both)
        for _ in range(tl.minimum(length - chunk * CHUNK, CHUNK)):
            x = tl.load(u, mask=mask, other=0.0).to(work)
            dt = _step_size(tl.load(delta, mask=mask, other=0.0).to(work) + shift, SOFTPLUS)
            if B_VARIES:
                b = tl.load(B, mask=real, other=0.0).to(work)[None, :]
                B += B_time
            if C_VARIES:
                c = tl.load(C, mask=real, other=0.0).to(work)[None, :]
                C += C_time
            state = tl.exp(dt[:, None] * a_rate) * state + (dt * x)[:, None] * b
            out = tl.sum(state * c, axis=1) + skip * x
            if HAS_Z:
                gate = tl.load(z, mask=mask, other=0.0).to(work)
                out = out * (gate * tl.sigmoid(gate))
                z += z_time
            tl.store(y, out.to(y.dtype.element_ty), mask=mask)
            u += u_time
            delta += delta_time
            y += y_time
    tl.store(last + batch * total * states + cell, state, mask=both)


@triton.jit
def backward(
    grad,
    u,
    delta,
    A,
    B,
    C,
    D,
    z,
    bias,
    checkpoints,
    scratch,
    grad_u,
    grad_delta,
    grad_A,
    grad_B,
    grad_C,
    grad_D,
    grad_z,
    grad_bias,
    items,
    length,
    chunks,
    groups,
    per_group,
    states,
    blocks,
    grad_batch,
    grad_time,
    u_batch,
    u_time,
    delta_batch,
    delta_time,
    z_batch,
    z_time,
    B_batch,
    B_group,
    B_state,
    B_time,
    C_batch,
    C_group,
    C_state,
    C_time,
    B_ratio,
    C_ratio,
    B_VARIES: tl.constexpr,
    C_VARIES: tl.constexpr,
    HAS_D: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    STATES: tl.constexpr,
):
    """Gradients, from the last chunk to the first; the states of one chunk are run again into `scratch`.

    A program takes several items in turn, so that `scratch` (programs, CHUNK, BLOCK, STATES) stays in the cache of
    the GPU at any size of input. grad_A (B, D, N), grad_D and grad_bias (B, D) are per batch row; grad_B and grad_C
    (B, groups * blocks, L, N) where they vary in time, (B, D, N) where they are constant.
    """
    work = A.dtype.element_ty
    program = tl.program_id(0)
    n = tl.arange(0, STATES)
    real = n < states
    total = groups * per_group
    tile = tl.arange(0, BLOCK)[:, None] * STATES + n[None, :]
    own = scratch + tl.cast(program, tl.int64) * (CHUNK * BLOCK * STATES) + tile

    for item in range(program, items, tl.num_programs(0)):
        batch = tl.cast(item // (groups * blocks), tl.int64)
        slot = item % (groups * blocks)
        group = slot // blocks
        inside = (slot % blocks) * BLOCK + tl.arange(0, BLOCK)
        channel = group * per_group + inside
        mask = inside < per_group
        both = mask[:, None] & real[None, :]
        cell = channel[:, None] * states + n[None, :]

        a_rate = tl.load(A + cell, mask=both, other=0.0)
        skip = tl.zeros((BLOCK,), dtype=work)
        if HAS_D:
            skip = tl.load(D + channel, mask=mask, other=0.0)
        shift = tl.zeros((BLOCK,), dtype=work)
        if HAS_BIAS:
            shift = tl.load(bias + channel, mask=mask, other=0.0)
        if not B_VARIES:
            b = tl.load(B + cell, mask=both, other=0.0)
        if not C_VARIES:
            c = tl.load(C + cell, mask=both, other=0.0)

        later = tl.zeros((BLOCK, STATES), dtype=work)  # exp(delta A) g of the step after this one
        sum_A = tl.zeros((BLOCK, STATES), dtype=work)
        sum_B = tl.zeros((BLOCK, STATES), dtype=work)
        sum_C = tl.zeros((BLOCK, STATES), dtype=work)
        sum_D = tl.zeros((BLOCK,), dtype=work)
        sum_bias = tl.zeros((BLOCK,), dtype=work)
        for done in range(chunks):
            chunk = chunks - 1 - done
            steps = tl.minimum(length - chunk * CHUNK, CHUNK)
            begin = tl.cast(chunk * CHUNK, tl.int64)
            at_u = u + batch * u_batch + begin * u_time + channel
            at_delta = delta + batch * delta_batch + begin * delta_time + channel
            at_z = z + batch * z_batch + begin * z_time + channel
            at_grad = grad + batch * grad_batch + begin * grad_time + channel
            at_B = B + batch * B_batch + (group // B_ratio) * B_group + begin * B_time + n * B_state
            at_C = C + batch * C_batch + (group // C_ratio) * C_group + begin * C_time + n * C_state
            dense = (batch * length + begin) * total + channel
            partial = ((batch * (groups * blocks) + slot) * length + begin) * states + n

            state = tl.load(checkpoints + (batch * chunks + chunk) * total * states + cell, mask=both, other=0.0)
            tl.debug_barrier()  # the chunk before has been read
            for s in range(steps):
                tl.store(own + s * (BLOCK * STATES), state)
                x = tl.load(at_u + s * u_time, mask=mask, other=0.0).to(work)
                dt = _step_size(tl.load(at_delta + s * delta_time, mask=mask, other=0.0).to(work) + shift, SOFTPLUS)
                if B_VARIES:
                    b = tl.load(at_B + s * B_time, mask=real, other=0.0).to(work)[None, :]
                state = tl.exp(dt[:, None] * a_rate) * state + (dt * x)[:, None] * b
            tl.debug_barrier()

            for r in range(steps):
                s = steps - 1 - r
                x = tl.load(at_u + s * u_time, mask=mask, other=0.0).to(work)
                raw = tl.load(at_delta + s * delta_time, mask=mask, other=0.0).to(work) + shift
                dt = _step_size(raw, SOFTPLUS)
                gy = tl.load(at_grad + s * grad_time, mask=mask, other=0.0).to(work)
                before = tl.load(own + s * (BLOCK * STATES))
                if B_VARIES:
                    b = tl.load(at_B + s * B_time, mask=real, other=0.0).to(work)[None, :]
                if C_VARIES:
                    c = tl.load(at_C + s * C_time, mask=real, other=0.0).to(work)[None, :]
                decay = tl.exp(dt[:, None] * a_rate)
                carried = decay * before
                input_ = dt * x
                state = carried + input_[:, None] * b
                if HAS_Z:
                    gate = tl.load(at_z + s * z_time, mask=mask, other=0.0).to(work)
                    opened = tl.sigmoid(gate)
                    slope = opened * (1.0 + gate * (1.0 - opened))
                    out = tl.sum(state * c, axis=1) + skip * x
                    tl.store(grad_z + dense + s * total, (gy * out * slope).to(grad_z.dtype.element_ty), mask=mask)
                    gy = gy * (gate * opened)
                g = later + gy[:, None] * c
                g_input = tl.sum(g * b, axis=1)
                q = g * carried
                g_dt = tl.sum(q * a_rate, axis=1) + g_input * x
                if SOFTPLUS:
                    g_dt = tl.where(raw > 20.0, g_dt, g_dt * tl.sigmoid(raw))
                tl.store(grad_u + dense + s * total, (g_input * dt + gy * skip).to(grad_u.dtype.element_ty), mask=mask)
                tl.store(grad_delta + dense + s * total, g_dt.to(grad_delta.dtype.element_ty), mask=mask)
                if B_VARIES:
                    tl.store(grad_B + partial + s * states, tl.sum(g * input_[:, None], axis=0), mask=real)
                else:
                    sum_B += g * input_[:, None]
                if C_VARIES:
                    tl.store(grad_C + partial + s * states, tl.sum(state * gy[:, None], axis=0), mask=real)
                else:
                    sum_C += state * gy[:, None]
                sum_A += q * dt[:, None]
                sum_D += gy * x
                sum_bias += g_dt
                later = g * decay

        row = batch * total
        tl.store(grad_A + row * states + cell, sum_A, mask=both)
        if not B_VARIES:
            tl.store(grad_B + row * states + cell, sum_B, mask=both)
        if not C_VARIES:
            tl.store(grad_C + row * states + cell, sum_C, mask=both)
        if HAS_D:
            tl.store(grad_D + row + channel, sum_D, mask=mask)
        if HAS_BIAS:
            tl.store(grad_bias + row + channel, sum_bias, mask=mask)
