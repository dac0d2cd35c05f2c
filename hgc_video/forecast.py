"""What a run would compute and cost, from a model's configuration files: no weights, no clip.

Composes models and plan; knows nothing about tensors that hold numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError, ModelError, nearest
from .models.load import CONTROLS, read_facts
from .plan.adaptive import AdaptivePlan
from .plan.chart import chart
from .plan.cost import Cost, cost, full_cost
from .plan.presets import resolve


@dataclass(frozen=True)
class Forecast:
    """The cost of UNet and ControlNet with and without the cache; `steps` is one line per step."""

    spent: Cost
    baseline: Cost
    steps: tuple[str, ...]

    @property
    def macs_saved(self) -> float:
        """The share of the baseline that would not be executed, 0..1."""
        return 1 - self.spent.total / self.baseline.total

    def to_json(self) -> str:
        """The figures under the names that a report uses."""
        told = {
            "macs": self.spent.total,
            "macs_baseline": self.baseline.total,
            "macs_saved": self.macs_saved,
            "macs_by_part": self.spent.by_part(),
            "macs_baseline_by_part": self.baseline.by_part(),
            "cache_peak_nbytes": self.spent.peak_nbytes,
            "steps": self.steps,
        }
        return json.dumps(told, indent=2)

    def __str__(self) -> str:
        baseline = self.baseline.by_part()
        parts = ", ".join(
            f"{part} {macs / 1e12:.3g} of {baseline[part] / 1e12:.3g}"
            for part, macs in self.spent.by_part().items()
        )
        return "\n".join([
            *self.steps,
            f"MACs   {self.spent.total / 1e12:.3g} of {self.baseline.total / 1e12:.3g} T: "
            f"{100 * self.macs_saved:.1f} % saved ({parts})",
            f"cache  {self.spent.peak_nbytes / 2**20:.1f} MiB at most",
        ])  # fmt: skip


def forecast(
    *,
    model: str = "puppet",
    control: str = "pose",
    preset: str = "balanced",
    num_inference_steps: int = 25,
    num_frames: int = 16,
    height: int | None = None,
    width: int | None = None,
    guided: bool = True,
    dtype_nbytes: int = 4,
) -> Forecast:
    """The forecast for one clip; height and width default to the model's own frame size.

    Raises:
        InputError: an unknown preset or control, a count or size that is not possible.
        ModelError: the model's configuration cannot be read.
    """
    from .media.control import plan_size
    from .models.graph import build_graph

    if control not in CONTROLS:
        raise InputError(f'unknown control "{control}": {nearest(control, CONTROLS)}')
    for name, count in (("num_inference_steps", num_inference_steps), ("num_frames", num_frames)):
        if count < 1:
            raise InputError(f"{name}={count} is not possible; give at least 1")
    chosen, facts = resolve(preset), read_facts(model)
    rows, columns = plan_size(1, 1, height, width, facts.multiple, facts.default_area)
    unet = _on_meta(facts.folder / "unet")
    factor = round(facts.default_area**0.5) // int(unet.config.sample_size)
    graph = build_graph(
        unet,
        _on_meta(facts.folder / f"controlnet_{control}"),
        num_frames=num_frames,
        height=rows // factor,
        width=columns // factor,
        num_tokens=_config(facts.folder / "text_encoder")["max_position_embeddings"],
        branches=2 if guided else 1,
        dtype_nbytes=dtype_nbytes,
    )
    baseline = full_cost(graph, num_inference_steps)
    steps = chosen.steps or num_inference_steps
    schedule = chosen.schedule(graph, steps)
    if schedule is None:
        plain = full_cost(graph, steps)
        return Forecast(plain, baseline, tuple(f"{i:3d}  stock" for i in range(steps)))
    if isinstance(schedule, AdaptivePlan):  # the most it can cost; it decides at run time
        schedule = schedule.extreme(fullest=True)
    return Forecast(cost(graph, schedule), baseline, chart(graph, schedule))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {folder / 'config.json'}: {error}") from error
    return config


def _on_meta(folder: Path) -> Any:
    """The model that a folder's configuration describes, without weights."""
    import diffusers
    import torch

    config = _config(folder)
    with torch.device("meta"):
        return getattr(diffusers, config["_class_name"]).from_config(config)
