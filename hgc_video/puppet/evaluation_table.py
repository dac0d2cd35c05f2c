"""The evaluation's figures against their aims, for one model or several side by side, as a Markdown table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Aim:
    """A figure, where it stands in the evaluation, and what it should at least (or at most) be."""

    label: str
    path: tuple[str, ...]
    value: float
    at_most: bool = False

    def figure(self, figures: dict[str, Any]) -> float:
        """The figure in an evaluation."""
        found: Any = figures
        for key in self.path:
            found = found[key]
        return float(found)

    def met(self, figures: dict[str, Any]) -> bool:
        """Whether an evaluation reaches the aim."""
        found = self.figure(figures)
        return found <= self.value if self.at_most else found >= self.value

    def text(self) -> str:
        """The aim in words."""
        return f"{'<=' if self.at_most else '>='} {self.value:g}"


def _both(label: str, key: str, pose: float, depth: float, at_most: bool = False) -> list[Aim]:
    return [
        Aim(f"{label}, {kind}", (kind, key), value, at_most)
        for kind, value in (("pose", pose), ("depth", depth))
    ]


AIMS = (
    *_both("part colours as prompted", "part_colour_accuracy", 0.98, 0.98),
    *_both("silhouette IoU with the truth", "silhouette_iou", 0.88, 0.90),
    *_both("limb recall", "limb_recall", 0.85, 0.85),
    *_both("clips with a wrong hat", "hats_wrong", 0.02, 0.02, at_most=True),
    *_both("background flicker, 0 to 255", "background_flicker", 3.0, 3.0, at_most=True),
    *_both("gradient energy, share of the truth's", "gradient_energy", 0.7, 0.7),
    Aim("IoU with another clip's control", ("freedom", "iou_with_another_control"), 0.5, True),
    Aim("colours with another prompt", ("freedom", "accuracy_with_another_prompt"), 0.4, True),
    Aim("8 plain steps to 50, dB", ("fairness", "psnr_of_8_steps_to_50_db"), 30.0, True),
)


def table(evaluations: dict[str, dict[str, Any]]) -> str:
    """One row an aim, one column an evaluation by its name; a figure that meets its aim is bold.

    Figures that an evaluation did not ask for are left open.
    """
    lines = [
        f"| | {' | '.join(evaluations)} | aim |",
        "|---" * (len(evaluations) + 2) + "|",
    ]
    for aim in AIMS:
        cells = [_cell(aim, figures) for figures in evaluations.values()]
        lines.append(f"| {aim.label} | {' | '.join(cells)} | {aim.text()} |")
    return "\n".join(lines)


def _cell(aim: Aim, figures: dict[str, Any]) -> str:
    if aim.path[0] not in figures:
        return ""
    found = f"{aim.figure(figures):.3g}"
    return f"**{found}**" if aim.met(figures) else found
