"""The letters of coded schedules: what a step computes."""

from __future__ import annotations

FULL, NO_CONTROLNET, SKIP = "F", "T", "H"
WHOLE_DEPTH = 99


def depth(action: str) -> int:
    """How many layers of the up path a step computes: all, so many, or (skipped) none."""
    if action in (FULL, NO_CONTROLNET):
        return WHOLE_DEPTH
    return 0 if action == SKIP else int(action)


def is_key(action: str) -> bool:
    """Whether a step computes the whole UNet."""
    return action in (FULL, NO_CONTROLNET)


def label(action: str) -> str:
    """A word for the chart."""
    return {FULL: "key", NO_CONTROLNET: "no controlnet", SKIP: "skip"}.get(
        action, f"depth {action}"
    )


def meaning(action: str) -> str:
    """What a step does, as its reason says it."""
    return {
        FULL: "computes everything", NO_CONTROLNET: "reuses the ControlNet's residuals",
        SKIP: "reuses the whole prediction", "1": "computes the last up layer",
    }.get(action, f"computes the last {action} up layers")  # fmt: skip
