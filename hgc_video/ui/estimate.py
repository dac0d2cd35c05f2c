"""What a run would take, before it begins: MACs and steps of its plan, seconds and memory on this machine."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from ..errors import HGCVideoError, InputError
from ..forecast import forecast
from ..media.frame_choice import FrameChoice, plan_frames
from ..media.frame_size import plan_size
from ..media.video import probe
from ..models.catalog import model_preset, model_presets
from ..models.load import ModelFacts, read_facts
from ..models.parts import ModelParts, controlnet_folders
from ..options import GenerateOptions
from ..plan.presets import resolve
from ..plan.run_plan import RunPlan

_ALL_MEMORY = "1024GiB"  # everything fits, so that the peak of the whole clip is predicted
_MOST_KEPT = 64


@dataclass(frozen=True)
class Scene:
    """The options of a run with what its model decides, and the clip that it makes."""

    options: GenerateOptions
    num_frames: int
    height: int
    width: int


def scene_of(options: GenerateOptions) -> Scene:
    """What `generate` would make of the options.

    Raises:
        HGCVideoError: as `generate`, before it loads anything.
    """
    resolve(options.preset, options.model)
    facts = read_facts(options.model, ModelParts.of(options), offline=True)
    decided = options.for_model(
        from_image=facts.from_image, num_inference_steps=facts.num_inference_steps,
        guidance_scale=facts.guidance_scale,
    )  # fmt: skip
    decided.context(facts.max_frames)
    _check_controls(options, facts)
    info = probe(options.video or next(iter(options.control_clips.values())))
    start, stop = options.span
    indices, _ = plan_frames(
        info.num_frames, info.fps, num_frames=options.num_frames, fps=options.fps,
        max_frames=facts.max_frames if facts.from_image else None,
        choice=FrameChoice(start, stop, options.every, options.loop),
    )  # fmt: skip
    decided.check_prompt_frames(len(indices))
    height, width = plan_size(
        info.height, info.width, options.height, options.width, facts.multiple, facts.default_area
    )
    return Scene(decided, len(indices), height, width)


def _check_controls(options: GenerateOptions, facts: ModelFacts) -> None:
    """Refuses a control that the model has no ControlNet for, which loading would tell later."""
    kinds = options.control_kinds
    if options.controlnet or options.base:
        return
    try:
        if options.model in model_presets():
            model_preset(options.model).check_controls(kinds)
        elif not facts.from_image and facts.folder.is_dir():
            controlnet_folders(facts.folder, kinds)
    except HGCVideoError as error:
        raise InputError(f"control={kinds[0]} is not possible: {error}") from error


class Estimates:
    """Forecasts of scenes, each made once; `rate` is what this machine does, in MACs a second, by model."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], RunPlan] = {}
        self.lock = threading.Lock()  # held by who builds models, or loads the libraries for it
        self.rates: dict[str, float] = {}
        self.first_rate: float | None = None  # of a model that nothing was made with yet
        self.dtype_nbytes = 4

    def plan(self, scene: Scene, memory: str | None = None) -> RunPlan:
        """The plan of a scene; with a memory budget also how it fits."""
        options = scene.options
        told: dict[str, Any] = {
            "model": options.model, "control": options.control_kinds or ("pose",), "preset": options.preset,
            "net": options.net, "scheduler": options.scheduler,
            "num_inference_steps": options.num_inference_steps or 1, "num_frames": scene.num_frames,
            "height": scene.height, "width": scene.width, "num_controlnets": len(options.control_kinds),
            "guided": options.branches == 2, "base": str(options.base or ""),
            "base_config": str(options.base_config or ""),
            "motion_adapter": str(options.motion_adapter or ""),
            "ip_adapter": options.ip_adapter is not None,
            "ip_adapter_model": str(options.ip_adapter_model or ""),
            "strength": options.strength if options.video is not None else 1.0, "memory": memory,
        }  # fmt: skip
        key = tuple(sorted(told.items()))
        with self.lock:
            if key not in self._kept:
                self._kept = dict(list(self._kept.items())[1 - _MOST_KEPT :])
                self._kept[key] = forecast(**told)
            return self._kept[key]

    def told(self, scene: Scene) -> dict[str, Any]:
        """MACs, seconds and peak memory of a scene as plain data; None is not known (yet)."""
        planned = self.plan(scene)
        macs = sum(planned.macs_by_part.values())
        rate = self.rates.get(scene.options.model) or self.first_rate
        return {
            "num_frames": scene.num_frames, "height": scene.height, "width": scene.width,
            "steps": len(planned.plan), "macs": macs,
            "macs_baseline": sum(planned.macs_baseline_by_part.values()),
            "macs_saved": planned.macs_saved, "adaptive": planned.plan.is_adaptive,
            "seconds": macs / rate if rate else None, "peak_nbytes": self._peak(scene),
        }  # fmt: skip

    def _peak(self, scene: Scene) -> int | None:
        """The predicted peak. It is tried in half precision, and twice that in single precision."""
        try:
            fit = self.plan(scene, _ALL_MEMORY).memory_plan
        except HGCVideoError:  # no video model, or one that is planned without memory
            return None
        return None if fit is None else round(fit.peak.nbytes * self.dtype_nbytes / 2)
