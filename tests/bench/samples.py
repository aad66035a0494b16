"""Figures out of many measurements."""

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: a value that was really measured."""
    if not samples:
        raise ValueError("no samples")
    if not 0 < share <= 1:
        raise ValueError("a share lies above 0 and up to 1")
    return sorted(samples)[math.ceil(share * len(samples)) - 1]


def median(samples: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def added(samples: Sequence[float], baseline: Sequence[float], share: float) -> float:
    """How much later the ``share`` percentile lies than the baseline's."""
    return percentile(samples, share) - percentile(baseline, share)
