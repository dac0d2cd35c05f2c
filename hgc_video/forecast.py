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

    preset: str
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
            "preset": self.preset,
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
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    num_controlnets: int | None = None,
    convention: str = "all",
    guided: bool = True,
    dtype_nbytes: int = 4,
) -> Forecast:
    """The forecast for one clip; what is None is the model's own.

    Args:
        model: the embedded model, a folder in diffusers format, or a configuration that is known by
            name (`hgc-video models`), which needs no files at all.
        convention: "all", or "no-attention-products" as older tables count.

    Raises:
        InputError: an unknown preset or control, a count or size that is not possible.
        ModelError: the model's configuration cannot be read.
    """
    from .models.graph import build_graph

    counts = {"num_inference_steps": num_inference_steps, "num_frames": num_frames}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name}={count} is not possible; give at least 1")
    chosen = resolve(preset)
    scene = _scene(model, control, height, width, num_controlnets)
    graph = build_graph(
        scene.unet, scene.controlnet, num_frames=num_frames or scene.num_frames,
        height=scene.height, width=scene.width, num_tokens=scene.num_tokens,
        branches=2 if guided else 1, dtype_nbytes=dtype_nbytes, convention=convention,
    )  # fmt: skip
    baseline = full_cost(graph, num_inference_steps)
    steps = chosen.steps or num_inference_steps
    schedule = chosen.schedule(graph, steps)
    if schedule is None:
        plain = full_cost(graph, steps)
        return Forecast(preset, plain, baseline, tuple(f"{i:3d}  stock" for i in range(steps)))
    if isinstance(schedule, AdaptivePlan):  # the most it can cost; it decides at run time
        schedule = schedule.extreme(fullest=True)
    return Forecast(preset, cost(graph, schedule), baseline, chart(graph, schedule))


@dataclass(frozen=True)
class _Scene:
    """Models without weights, and a clip's measures: frames, latent height and width, tokens."""

    unet: Any
    controlnet: Any
    num_frames: int
    height: int
    width: int
    num_tokens: int


def _scene(
    model: str, control: str, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    from .models.known_models import known_models

    if model in known_models():
        return _known_scene(model, height, width, num_controlnets)
    return _folder_scene(model, control, height, width, num_controlnets)


def _known_scene(
    model: str, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    from .models.known_models import known_model

    known = known_model(model)
    default = 1 if known.controlnet else 0
    unet, controlnet = known.build(default if num_controlnets is None else num_controlnets)
    rows, columns = height or known.height, width or known.width
    for name, pixels in (("height", rows), ("width", columns)):
        if pixels < 64 or pixels % 64:
            raise InputError(f"{name}={pixels} is not possible; give a multiple of 64")
    factor = known.latent_factor
    return _Scene(
        unet, controlnet, known.num_frames, rows // factor, columns // factor, known.num_tokens
    )


def _folder_scene(
    model: str, control: str, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    from .media.control import plan_size

    if control not in CONTROLS:
        raise InputError(f'unknown control "{control}": {nearest(control, CONTROLS)}')
    if num_controlnets not in (None, 0, 1):
        raise InputError(f"controlnet={num_controlnets} is not possible for a folder; give 0 or 1")
    facts = read_facts(model)
    rows, columns = plan_size(1, 1, height, width, facts.multiple, facts.default_area)
    unet = _on_meta(facts.folder / "unet")
    factor = round(facts.default_area**0.5) // int(unet.config.sample_size)
    net = None if num_controlnets == 0 else _on_meta(facts.folder / f"controlnet_{control}")
    tokens = _config(facts.folder / "text_encoder")["max_position_embeddings"]
    return _Scene(unet, net, facts.max_frames, rows // factor, columns // factor, tokens)


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
