"""When a run is evaluated: densely where old losses jump, then evenly, and always at the end."""

from __future__ import annotations

__all__ = ["evaluation_steps"]


def evaluation_steps(num_steps: int, every: int) -> tuple[int, ...]:
    """Return the steps to evaluate at: 0, 1, 2, 4, 8, … below `every`, its multiples, the last.

    A step counts the updates taken before it: 0 is the base itself, `num_steps` the final model.
    The doubling is there because the loss on old text jumps within the first few updates and has
    mostly settled again before an evenly spaced evaluation would look. Raises ValueError unless
    num_steps ≥ 0 and every ≥ 1.

    >>> evaluation_steps(25, 10)
    (0, 1, 2, 4, 8, 10, 20, 25)
    """
    if num_steps < 0 or every < 1:
        raise ValueError(f"cannot evaluate {num_steps} steps every {every} steps")
    steps = {0, num_steps, *range(every, num_steps + 1, every)}
    doubling = 1
    while doubling < min(every, num_steps):
        steps.add(doubling)
        doubling *= 2
    return tuple(sorted(steps))
