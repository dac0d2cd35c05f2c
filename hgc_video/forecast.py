"""What a run would compute and cost, from a model's configuration files: no weights, no clip.

Composes models and plan; knows nothing about tensors that hold numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import InputError, ModelError, nearest
from .models.load import controlnet_folder, read_facts
from .options import CONTROL_KINDS
from .plan.cost import Cost, cost, full_cost
from .plan.explain import StepExplanation, StepSummary, explain, summaries, tera
from .plan.graph import BlockGraph
from .plan.memory.budget import MemoryPlan, choose_memory_plan, parse_nbytes
from .plan.memory.placement import DEVICE, carried_out, moves_of
from .plan.memory.windows import Windows, padded, windowed
from .plan.presets import Preset, resolve
from .plan.schedule import Plan


@dataclass(frozen=True)
class Forecast:
    """The plan of a run and what UNet and ControlNet cost with and without the cache: `spent` and
    `baseline` are of one window of the clip, the MACs of all windows; `plan` and `graph` are what `spent`
    follows from; `memory_plan` is how the clip fits a memory budget; `moves` says at which steps the windows
    are shifted."""

    preset: str
    plan: Plan
    graph: BlockGraph
    baseline: Cost
    windows: Windows
    memory_plan: MemoryPlan | None = None
    moves: tuple[bool, ...] = ()

    @cached_property
    def spent(self) -> Cost:
        """What one window costs; of an adaptive plan, the most that it can."""
        return cost(self.graph, self.plan)

    @property
    def steps(self) -> tuple[StepSummary, ...]:
        """A row of figures for every step of one window."""
        return summaries(self.graph, self.plan)

    def explain(self, step: int) -> StepExplanation:
        """What is computed, reused, skipped and stored at a step, and why; PlanError where there is none."""
        return explain(self.graph, self.plan, step)

    @property
    def macs_by_part(self) -> dict[str, int]:
        """MACs of UNet and ControlNet over all windows."""
        return windowed(self.spent, self.windows, self.moves)

    @property
    def macs_baseline_by_part(self) -> dict[str, int]:
        """The same without the cache."""
        return windowed(self.baseline, self.windows, padded(self.moves, len(self.baseline.macs)))

    @property
    def macs_saved(self) -> float:
        """The share of the baseline that would not be executed, 0..1."""
        return 1 - sum(self.macs_by_part.values()) / sum(self.macs_baseline_by_part.values())

    def to_json(self) -> str:
        """The figures under the names that a report uses."""
        told = {
            "preset": self.preset,
            "macs": sum(self.macs_by_part.values()),
            "macs_baseline": sum(self.macs_baseline_by_part.values()),
            "macs_saved": self.macs_saved,
            "macs_by_part": self.macs_by_part,
            "macs_baseline_by_part": self.macs_baseline_by_part,
            "cache_peak_nbytes": self.spent.peak_nbytes,
            "schedule": self.plan.upper_bound().to_dict(),
            "steps": [asdict(step) for step in self.steps],
        }
        if self.memory_plan is not None:
            told |= {
                "memory": str(self.memory_plan),
                "predicted_peak_nbytes": self.memory_plan.peak.nbytes,
            }
            told |= self.memory_plan.to_dict()
        return json.dumps(told, indent=2)

    def _memory_lines(self) -> list[str]:
        if self.memory_plan is None:
            return []
        rest = (f"       {line}" for line in self.memory_plan.explain())
        return [f"memory {self.memory_plan}", *rest]

    def __str__(self) -> str:
        spent, baseline = self.macs_by_part, self.macs_baseline_by_part
        parts = ", ".join(
            f"{part} {tera(macs)} of {tera(baseline[part])}" for part, macs in spent.items()
        )
        return "\n".join([
            *map(str, self.steps),
            f"MACs   {tera(sum(spent.values()))} of {tera(sum(baseline.values()))} T: "
            f"{100 * self.macs_saved:.1f} % saved ({parts})",
            f"cache  {self.spent.peak_nbytes / 2**20:.1f} MiB at most for a window",
            *self._memory_lines(),
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
    memory: str | int | None = None,
    throughput: str | None = None,
) -> Forecast:
    """The forecast for one clip; what is None is the model's own.

    Args:
        model: the embedded model, a folder in diffusers format, or a configuration that is known by
            name (`hgc-video models`), which needs no files at all.
        convention: "all", or "no-attention-products" as older tables count.
        memory: also choose the cut of a run in half precision that fits this much.
        throughput: what copies to host memory are weighed with against computing again: "40,20" for 40 T
            MACs and 20 GB a second, or "measured" to time this machine's GPU as a run does. None assumes a
            desktop GPU, so that the plan is the same on every machine.

    Raises:
        InputError: an unknown preset or control, a count or size that is not possible.
        ModelError: the model's configuration cannot be read.
    """
    from .models.graph_builder import build_graph
    from .models.probe import TEMPORAL_UNET, is_a

    if throughput is not None and memory is None:
        raise InputError("throughput is what a cut to fit memory is weighed with; give memory too")
    counts = {"num_inference_steps": num_inference_steps, "num_frames": num_frames}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name}={count} is not possible; give at least 1")
    chosen = resolve(preset, model)
    scene = _scene(model, control, height, width, num_controlnets)
    frames, branches = num_frames or scene.num_frames, 2 if guided else 1
    if is_a(scene.unet, TEMPORAL_UNET) and frames > scene.max_frames:
        raise InputError(
            f"num_frames={frames} is beyond the {scene.max_frames} that {model} makes; ask for less"
        )
    memory_plan = (
        None
        if memory is None
        else _cut(scene, chosen, frames, branches, num_inference_steps, memory, throughput)
    )
    length = memory_plan.context if memory_plan else min(frames, scene.max_frames)
    windows = Windows(frames, length, length // 4)
    graph = build_graph(
        scene.unet, scene.controlnet, num_frames=windows.plain[0].length, height=scene.height,
        width=scene.width, num_tokens=scene.num_tokens, branches=branches,
        dtype_nbytes=2 if memory is not None else dtype_nbytes, convention=convention,
    )  # fmt: skip
    baseline = full_cost(graph, num_inference_steps)
    steps = chosen.num_steps(num_inference_steps)
    plan = carried_out(
        chosen.schedule(graph, steps), memory_plan.chunks.idle if memory_plan else DEVICE
    )
    return Forecast(
        preset, plan, graph, baseline, windows, memory_plan, moves_of(plan, graph, windows)
    )


def _cut(
    scene: _Scene, preset: Preset, num_frames: int, branches: int, steps: int, memory: str | int,
    throughput: str | None,
) -> MemoryPlan:  # fmt: skip
    import torch

    from .measure.device_speed import planning_rates
    from .models.probe import TEMPORAL_UNET, is_a
    from .sampling.predict_peak import PeakModel, Scale

    whole = is_a(scene.unet, TEMPORAL_UNET)  # it makes a clip in no windows, decoded together
    if not whole and not is_a(scene.unet, "UNetMotionModel"):
        raise InputError("memory is planned for video models only; leave --memory out")
    measures = Scale(
        num_frames, scene.height, scene.width, scene.num_tokens, branches, preset.num_steps(steps),
        scene.factor,
    )  # fmt: skip
    text_nbytes = scene.text_encoder_params * torch.float16.itemsize
    predict = PeakModel(
        scene.unet, scene.controlnet, scene.vae(), text_nbytes, measures, preset, torch.float16
    )
    return choose_memory_plan(
        predict, num_frames=num_frames, max_frames=scene.max_frames,
        num_positions=measures.num_positions, rates=planning_rates(throughput), budget=parse_nbytes(memory),
        **({"context": num_frames, "decoded": num_frames} if whole else {}),
    )  # fmt: skip


@dataclass(frozen=True)
class _Scene:
    """Models without weights, and a clip's measures: frames, latent height and width, tokens."""

    unet: Any
    controlnet: Any
    num_frames: int
    height: int
    width: int
    num_tokens: int
    max_frames: int
    factor: int
    text_encoder_params: int
    vae: Callable[[], Any]


def _scene(
    model: str, control: str, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    from .models.configurations import known_models

    if model in known_models():
        return _known_scene(model, height, width, num_controlnets)
    return _folder_scene(model, control, height, width, num_controlnets)


def _known_scene(
    model: str, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    from .models.configurations import known_model

    known = known_model(model)
    default = 1 if known.controlnet else 0
    unet, controlnet = known.build(default if num_controlnets is None else num_controlnets)
    rows, columns = height or known.height, width or known.width
    for name, pixels in (("height", rows), ("width", columns)):
        if pixels < 64 or pixels % 64:
            raise InputError(f"{name}={pixels} is not possible; give a multiple of 64")
    factor = known.latent_factor
    return _Scene(
        unet, controlnet, known.num_frames, rows // factor, columns // factor, known.num_tokens,
        known.num_frames, factor, known.text_encoder_params, known.build_vae,
    )  # fmt: skip


def _folder_scene(
    model: str, control: str, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    from .media.control import plan_size

    if control not in CONTROL_KINDS:
        raise InputError(f'unknown control "{control}": {nearest(control, CONTROL_KINDS)}')
    if num_controlnets not in (None, 0, 1):
        raise InputError(f"controlnet={num_controlnets} is not possible for a folder; give 0 or 1")
    facts = read_facts(model)
    rows, columns = plan_size(1, 1, height, width, facts.multiple, facts.default_area)
    unet = _on_meta(facts.folder / "unet")
    factor = 2 ** (len(_config(facts.folder / "vae")["block_out_channels"]) - 1)
    net = None if num_controlnets == 0 else _on_meta(controlnet_folder(facts.folder, control))
    reader = _config(facts.folder / ("image_encoder" if facts.from_image else "text_encoder"))
    tokens = 1 if facts.from_image else reader["max_position_embeddings"]
    frames = facts.max_frames
    return _Scene(
        unet, net, frames, rows // factor, columns // factor, tokens, frames, factor, _params(reader),
        lambda: _on_meta(facts.folder / "vae"),
    )  # fmt: skip


def _params(reader: dict[str, Any]) -> int:
    """Parameters of a CLIP tower, from its configuration: nearly all lie in its layers and its words."""
    layers, wide = reader["num_hidden_layers"], reader["hidden_size"]
    words = int(reader.get("vocab_size", 0)) * wide
    return int(layers * (4 * wide**2 + 2 * wide * reader["intermediate_size"]) + words)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {folder / 'config.json'}: {error}") from error
    return config


def _on_meta(folder: Path) -> Any:
    """The model that a folder's configuration describes, without weights."""
    import torch

    from .models.configurations import model_class

    config = _config(folder)
    with torch.device("meta"):
        made = model_class(config["_class_name"]).from_config(config)
    return torch.nn.Module.to(made, "meta")  # SVD's blenders make CPU tensors whatever the device
