"""Numbers by which sampled motions are judged: diversity, best-of-K errors, their multi-modal kin, statistics.

Notation: W windows, K samples of each, P future frames, F features (three per joint), M a pool of true futures. A
distance between two poses is the Euclidean norm over all F features, not a mean over joints; unit of the input.

Distances are differences that are squared and summed, not products of matrices: those lose all digits of a float32
where a sample is close to the truth.

Source: HumanMAC and SMRNet, utils/evaluation.py; CMD, FID, APDE: BeLFusion and CoMusion.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_DIRECT = "donot_use_mm_for_euclid_dist"
# Bytes of distances at a time.
_MEMORY = 2**26


class Groups(NamedTuple):
    """For every window the windows that began alike, itself included: `flat[ptr[w] : ptr[w + 1]]`, ascending.

    Attributes:
        flat: (L,) int64 numbers of windows.
        ptr: (W + 1,) int64.
    """

    flat: Tensor
    ptr: Tensor


def groups(last_pose: Tensor, threshold: float) -> Groups:
    """Windows whose last observed poses are less than a threshold apart.

    Args:
        last_pose: (W, F).
        threshold: exclusive limit of the distance; a window belongs to its own group even at 0.

    Returns:
        Groups on the CPU.
    """
    poses = last_pose.detach().to("cpu", torch.float64)
    count = len(poses)
    rows = max(1, _MEMORY // (8 * max(1, count)))
    near = [torch.arange(count).expand(2, -1)]
    # The upper half is measured, in double precision, and counted both ways.
    for first in range(0, count, rows):
        block = poses[first : first + rows]
        close = torch.cdist(block, poses[first:], compute_mode=_DIRECT) < threshold
        pairs = close.triu(1).nonzero().T + first
        near += [pairs, pairs.flip(0)]
    one, other = torch.cat(near, dim=1)
    order = (one * count + other).argsort()
    sizes = torch.bincount(one, minlength=count)
    return Groups(other[order], torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]))


def apd(samples: Tensor) -> Tensor:
    """Average pairwise distance: mean over the pairs of samples of the norm of their whole difference.

    Args:
        samples: (W, K, P, F).

    Returns:
        (W,); 0 where there is only one sample.
    """
    flat = samples.flatten(2)
    if flat.shape[1] < 2:
        return flat.new_zeros(len(flat))
    # One call per window is faster than one for all: it measures each pair once.
    return torch.stack([torch.pdist(window).mean() for window in flat]) if len(flat) else flat.new_zeros(0)


def errors(samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Errors of the best sample: over all frames and in the last frame.

    Args:
        samples: (W, K, P, F).
        truth: (W, P, F).

    Returns:
        ade (W,), the smallest mean distance over frames, and fde (W,), the smallest distance in the last frame.
    """
    distances = torch.linalg.vector_norm(samples - truth[:, None], dim=-1)  # (W, K, P)
    return distances.mean(-1).amin(1), distances[..., -1].amin(1)


def multimodal(
    samples: Tensor, futures: Tensor, group: Groups, rows: Tensor | None = None, *, skip_single: bool = False
) -> tuple[Tensor, Tensor]:
    """Errors of the best sample to each future of a window's group, averaged over the group.

    Args:
        samples: (W, K, P, F).
        futures: (M, P, F) that the groups point to.
        group: of M windows, on the CPU.
        rows: (W,) which of them the samples are for, None = all in order.
        skip_single: NaN for windows that are alone in their group, as CoMusion counts.

    Returns:
        mmade (W,) and mmfde (W,).
    """
    found = prediction_errors(samples, futures, group, rows, diversity=False)
    if not skip_single:
        return found["mmade"], found["mmfde"]
    sizes = group.ptr.diff() if rows is None else group.ptr.diff()[rows.cpu()]
    alone = (sizes < 2).to(samples.device)
    return found["mmade"].masked_fill(alone, torch.nan), found["mmfde"].masked_fill(alone, torch.nan)


def prediction_errors(
    samples: Tensor, futures: Tensor, group: Groups, rows: Tensor | None = None, *, diversity: bool = True
) -> dict[str, Tensor]:
    """All numbers of the published table for a batch of windows: apd, ade, fde, mmade, mmfde, each (W,).

    The distances of a window to its own future are those of its row in the group and are measured once.

    Args:
        samples: (W, K, P, F).
        futures: (M, P, F) that the groups point to, on the device of the samples.
        group: of M windows, on the CPU; each with its own future in it.
        rows: (W,) which of them the samples are for, None = all in order.
        diversity: whether apd is among them.
    """
    numbers = range(len(samples)) if rows is None else rows.tolist()
    flat = group.flat.to(futures.device)  # at once: a copy per window would wait for the device
    found = []
    for one, row in zip(samples, numbers, strict=True):
        first, last = int(group.ptr[row]), int(group.ptr[row + 1])
        own = int(torch.searchsorted(group.flat[first:last], row))
        found.append(_to_group(one, futures, flat[first:last], own))
    names = ("ade", "fde", "mmade", "mmfde")
    table = torch.stack(found) if found else samples.new_zeros(0, len(names))
    result = dict(zip(names, table.unbind(1), strict=True))
    return {"apd": apd(samples), **result} if diversity else result


def _to_group(samples: Tensor, futures: Tensor, members: Tensor, own: int) -> Tensor:
    """(4,) ade, fde, mmade and mmfde of the samples (K, P, F) of one window; its own future is number `own`."""
    by_frame = samples.transpose(0, 1).contiguous()  # (P, K, F)
    several = max(1, _MEMORY // (by_frame[..., 0].numel() * by_frame.element_size()))
    means, ends = [], []
    for some in members.split(several):
        truth = futures.transpose(0, 1).index_select(1, some)  # one copy, in the order that is read
        distances = torch.cdist(by_frame, truth, compute_mode=_DIRECT)  # (P, K, some)
        means.append(distances.mean(0).amin(0))
        ends.append(distances[-1].amin(0))
    mean, end = torch.cat(means), torch.cat(ends)
    return torch.stack([mean[own], end[own], mean.mean(), end.mean()])


def apde(diversity: Tensor, reference: Tensor) -> Tensor:
    """Difference between the diversity of samples and that of the true futures of the group.

    Args:
        diversity: (W,) apd of the samples.
        reference: (W,) apd of the group's futures, see `group_apd`.

    Returns:
        (W,); NaN where the reference is 0, a window that is alone.
    """
    return (diversity - reference).abs().masked_fill(reference == 0, torch.nan)


def group_apd(futures: Tensor, group: Groups, rows: Tensor | None = None) -> Tensor:
    """`apd` of the true futures of each window's group.

    Equal groups are measured once. Where others overlap so much that pairs would be measured many times (people who
    hardly move), all pairs are measured once, and each group sums its own.

    Args:
        futures: (M, P, F).
        group: of M windows.
        rows: (W,) the windows that are asked for, None = all.

    Returns:
        (W,); 0 for a window that is alone.
    """
    numbers = range(len(group.ptr) - 1) if rows is None else rows.tolist()
    spans = [group.flat[int(group.ptr[row]) : int(group.ptr[row + 1])] for row in numbers]
    if not spans:
        return futures.new_zeros(0)
    places: dict[bytes, int] = {}
    which = [places.setdefault(members.numpy().tobytes(), len(places)) for members in spans]
    first = {place: members for place, members in zip(reversed(which), reversed(spans), strict=True)}
    distinct = [first[place] for place in range(len(places))]
    used, sizes = torch.cat(distinct).unique(), [len(members) for members in distinct]
    few = sum(size**2 for size in sizes) <= len(used) ** 2 and 8 * max(sizes) ** 2 <= _MEMORY
    if few:
        found = torch.cat([apd(futures[members][None]) for members in distinct])
    else:
        found = _mean_distances(futures[used], [torch.searchsorted(used, members) for members in distinct])
    return found[which]


def _mean_distances(futures: Tensor, lists: list[Tensor]) -> Tensor:
    """`apd` of several lists of futures (M, P, F), every pair of futures measured once; (G,)."""
    flat, device = futures.flatten(1), futures.device
    middle = flat.mean(0).double()
    several = max(1, _MEMORY // (8 * len(flat)))
    total = torch.zeros(len(lists), dtype=torch.float64, device=device)
    for first in range(0, len(flat), several):
        last = min(first + several, len(flat))
        block = flat[first:last].double() - middle
        # In double precision a product of matrices keeps the digits, and is far faster.
        distances = torch.cat([
            torch.cdist(rows.double() - middle, block, compute_mode="use_mm_for_euclid_dist")
            for rows in flat[first:].split(several)
        ])  # fmt: skip
        distances[: last - first].fill_diagonal_(0)
        distances[last - first :] *= 2  # pairs with later ones come once, those inside the block both ways
        for start in range(0, len(lists), several):
            some = lists[start : start + several]
            rows = torch.arange(len(some)).repeat_interleave(torch.tensor([len(members) for members in some]))
            members = torch.zeros(len(some), len(flat), dtype=torch.float64, device=device)
            members[rows.to(device), torch.cat(some).to(device)] = 1
            total[start : start + several] += ((members[:, first:] @ distances) * members[:, first:last]).sum(1)
    sizes = torch.tensor([len(members) for members in lists], dtype=torch.float64, device=device)
    return (total / (sizes * (sizes - 1)).clamp_min(1)).to(futures)


def motion_per_frame(samples: Tensor) -> Tensor:
    """Mean way of a joint from each frame to the next, over samples and joints: (W, K, P, F) to (W, P - 1)."""
    steps = samples.diff(dim=2).unflatten(-1, (-1, 3))
    return torch.linalg.vector_norm(steps, dim=-1).mean((1, 3))


def cmd(motion: Tensor, classes: Tensor, mean_motion: Tensor) -> Tensor:
    """Cumulative motion distance: how far the motion per frame is from the mean of the class's real motions.

    Every frame counts as often as frames follow it: a surplus at the beginning is carried on to the end.

    Args:
        motion: (W, P - 1) as `motion_per_frame` gives it.
        classes: (W,) int64.
        mean_motion: (C,) mean way of a joint per frame in real motions of each class.

    Returns:
        Scalar: mean over classes, weighted by their windows.
    """
    motion = motion.double()
    sizes = torch.bincount(classes, minlength=len(mean_motion)).to(motion)
    sums = motion.new_zeros(len(mean_motion), motion.shape[1]).index_add(0, classes, motion)
    means = sums / sizes[:, None].clamp_min(1)
    follow = torch.arange(motion.shape[1], 0, -1, device=motion.device)
    distances = ((means - mean_motion.to(motion)[:, None]).abs() * follow).sum(1)
    present = sizes > 0
    return (distances[present] * sizes[present]).sum() / sizes.sum()


def moments(count: int | Tensor, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance (of a sample: by count - 1) from sums over features.

    Args:
        count: of the features.
        total: (D,) their sum.
        outer: (D, D) the sum of their outer products.

    Returns:
        (D,) and (D, D) float64.
    """
    total, outer = total.double(), outer.double()
    mean = total / count
    return mean, (outer - torch.outer(total, mean)) / (count - 1)


def frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """Frechet distance of two normal distributions, |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), in float64.

    Args:
        mean: (D,).
        covariance: (D, D), symmetric, may be singular.
        other_mean: (D,).
        other_covariance: (D, D).

    Returns:
        Scalar, not below 0.
    """
    covariance, other_covariance = covariance.double(), other_covariance.double()
    # The root's trace is that of the symmetric (C^(1/2) C' C^(1/2))^(1/2).
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp_min(0).sqrt().sum()
    way = (mean.double() - other_mean.double()).square().sum()
    return (way + covariance.trace() + other_covariance.trace() - 2 * cross).clamp_min(0)
