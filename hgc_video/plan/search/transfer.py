"""A schedule that was searched on one model, carried over to another by rule."""

from __future__ import annotations

from dataclasses import replace

from ..policies.searched import CodedSchedule

_KEPT = ("scheduler", "guidance_scale", "num_inference_steps", "budget", "share")


def transferred(
    plan: CodedSchedule, *, model: str, source: str, num_inference_steps: int
) -> CodedSchedule:
    """The plan for another model and its own number of steps.

    The word is resampled (CodedSchedule.resampled: a shorter run keeps as many key steps, or computes all);
    slopes and the gate keep their share of the run. What it is worth on that model is not known, and its
    file says so: neither budget nor closeness are carried over.
    """
    made = plan.resampled(plan.num_steps(num_inference_steps))
    origin = {
        "model": model, "transferred_from": source, "measured": "not on pretrained weights",
        "num_inference_steps": num_inference_steps, "found_with": _found_with(plan),
    }  # fmt: skip
    return replace(made, step_ratio=len(made.actions) / num_inference_steps, metadata=origin)


def _found_with(plan: CodedSchedule) -> dict[str, object]:
    return {key: plan.metadata[key] for key in _KEPT if key in plan.metadata}
