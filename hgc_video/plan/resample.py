"""Step codes and coefficients carried over to a run of another length, by rule."""

from __future__ import annotations

from collections.abc import Sequence

from .coefficients import Coefficients, carried
from .step_codes import FULL, WHOLE_DEPTH, depth


def nearest_steps(count: int, steps: int) -> list[int]:
    """For every step of a run of `steps` the one of a run of `count` at the same share of the run. With
    timesteps at equal distances, as schedulers have them, that is the one of the nearest noise level."""
    return [round(i * (count - 1) / max(steps - 1, 1)) for i in range(steps)]


def resampled_actions(actions: str, steps: int) -> str:
    """As large a share of the run are key steps, spread over it as they are now, and every other step does
    what the step at its share did. A shorter run has as many key steps as this one, or all: its steps are
    further apart, and less can be reused."""
    inner = [a for a in actions if depth(a) < WHOLE_DEPTH]
    common = max(sorted(set(inner)), key=inner.count) if inner else FULL
    made = [
        a if depth(a) < WHOLE_DEPTH else common
        for a in (actions[n] for n in nearest_steps(len(actions), steps))
    ]
    for there, action in _moved_keys(actions, steps).items():
        made[there] = action
    return "".join(made)


def _moved_keys(actions: str, steps: int) -> dict[int, str]:
    """The key steps of a run of another length, each beside the place it stands for: that of a key step, or
    between two of them where there are more now. Side by side they would leave the gaps as wide as they are,
    to be bridged by differences of values that lie closer together."""
    count = len(actions)
    own = [at for at, action in enumerate(actions) if depth(action) == WHOLE_DEPTH]
    wanted = min(steps, max(len(own), round(len(own) * steps / count)))
    moved: dict[int, str] = {0: FULL}
    for k in range(1, wanted):
        place = k * (len(own) - 1) / max(wanted - 1, 1)
        low, share = own[int(place)], place - int(place)
        key = low + share * (own[min(int(place) + 1, len(own) - 1)] - low)
        there = round(key * (steps - 1) / max(count - 1, 1))
        free = [(abs(i - there), i) for i in range(steps) if i not in moved]
        moved[min(free)[1]] = actions[own[round(place)]]
    return moved


def history(actions: str, index: int) -> list[int]:
    """The steps before `index` that made what the step reuses, oldest first."""
    own = depth(actions[index])
    return [j for j in range(index) if depth(actions[j]) > own]


def resampled_coefficients(
    coefficients: Sequence[Coefficients], actions: str, other: str
) -> tuple[Coefficients, ...]:
    """The coefficients of `actions` for the resampled `other`: every step that reuses takes those of the step
    of the same code that is nearest to its share of the run, with the key steps that it has (`carried`)."""
    if not coefficients:
        return ()
    fitted = [i for i, values in enumerate(coefficients) if values]
    stretch = (len(actions) - 1) / max(len(other) - 1, 1)
    found: list[Coefficients] = []
    for index, action in enumerate(other):
        alike = [i for i in fitted if actions[i] == action]
        past = history(other, index)
        if not alike or not past:
            found.append(())
            continue
        source = min(alike, key=lambda i: (abs(i - index * stretch), i))
        found.append(
            carried(
                coefficients[source], (history(actions, source)[::-1], source),
                (past[::-1], index),
            )
        )  # fmt: skip
    return tuple(found)
