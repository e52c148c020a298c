"""Shares of a blend by rule: by tokens, by temperature, or as evenly as epoch caps allow.

By temperature T a source of n tokens has a share proportional to n^(1/T) (Conneau et al. 2020,
arXiv 1911.02116, with α = 1/T); T = 1 is by tokens. UniMax (Chung et al. 2023, arXiv 2304.09151)
gives all sources the same share, but none more than its cap on epochs allows: what a small source
cannot fill is dealt evenly to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rewarm.order.blend import CYCLE

__all__ = ["EvenDeal", "by_temperature", "deal_evenly", "parts_of_caps", "units_within"]


def by_temperature(num_tokens: Sequence[int], temperature: float) -> list[float]:
    """Return sizes in proportion to tokens^(1/temperature); at 1 the tokens themselves.

    >>> by_temperature([1, 4], 2)
    [0.5, 1.0]
    """
    if temperature == 1:
        return [float(count) for count in num_tokens]
    largest = max(num_tokens, default=1)  # parts of it: no power overflows
    return [(count / largest) ** (1 / temperature) for count in num_tokens]


@dataclass(frozen=True, slots=True)
class EvenDeal:
    """Units dealt as evenly as caps allow; those of `num_short` found no place."""

    units: tuple[int, ...]
    num_short: int


def deal_evenly(num_units: int, caps: Sequence[int]) -> EvenDeal:
    """Deal whole units so that no one has more than its cap, and none could be dealt more evenly.

    Whoever has at least two fewer than another is at its cap. Units that divide unevenly go to the
    first ones. Closed form: with the caps in rising order, the k smallest bind where the k-th is at
    most an even part of what the ones before it leave.

    >>> deal_evenly(10, [2, 9, 9])
    EvenDeal(units=(2, 4, 4), num_short=0)
    """
    left, num_left = num_units, len(caps)
    units = list(caps)
    for index in sorted(range(len(caps)), key=lambda index: caps[index]):
        if caps[index] * num_left > left:
            break
        left -= caps[index]
        num_left -= 1
    if num_left == 0:
        return EvenDeal(tuple(units), left)
    even, rest = divmod(left, num_left)
    # Those below are the ones whose cap is above an even part, hence at least one unit above it.
    for index, cap in enumerate(caps):
        if cap * num_left > left:
            units[index] = even + (1 if rest > 0 else 0)
            rest -= 1
    return EvenDeal(tuple(units), 0)


def units_within(num_samples: int, num_slots: int) -> int:
    """Return the largest share, in 1/65,536 of a phase, that is dealt no more than `num_samples`.

    A share of w units of n slots is dealt at most ⌈n·w / 65,536⌉ samples (`order.blend`).

    >>> units_within(3, 65_536 * 2)
    1
    """
    return min(CYCLE, num_samples * CYCLE // num_slots)


def parts_of_caps(
    caps: Mapping[str, int], demands: Iterable[tuple[int, Iterable[str]]]
) -> list[dict[str, int]]:
    """Return for each demand the part of its sources' caps that is its own, in samples.

    A demand is a number of samples and the sources that may fill it. A source that may fill several
    is shared out in proportion to their samples: a cap is on the whole run, and a first phase that
    used it up would leave a later one without the source.
    """
    wanted = [(num_samples, tuple(names)) for num_samples, names in demands]
    totals = dict.fromkeys(caps, 0)
    for num_samples, names in wanted:
        for name in names:
            totals[name] += num_samples
    return [
        {name: caps[name] * num_samples // totals[name] for name in names}
        for num_samples, names in wanted
    ]
