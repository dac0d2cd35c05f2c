"""What a run would compute and cost, from a model's configuration files: no weights, no clip.

Composes models and plan; knows nothing about tensors that hold numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import InputError, ModelError, at_least, nearest
from .measure.device_speed import planning_rates
from .media.frame_size import plan_size
from .media.limits import check_num_frames
from .models.base_configs import base_configurations, picture_size
from .models.catalog import ModelPreset, model_preset, model_presets
from .models.config_file import read_config
from .models.configurations import Configurations, KnownModel, known_model, known_models
from .models.graph_store import graph_of
from .models.load import read_facts
from .models.parts import ModelParts, controlnet_folders, find_base, model_of
from .models.schedulers import would_add_noise
from .options import CONTROL_KINDS, SCHEDULERS
from .options.values import MOST_STEPS
from .plan.checkpoints import plan_checkpoints
from .plan.clip_shape import ClipShape
from .plan.devices import plan_devices
from .plan.memory.budget import MemoryPlan, choose_memory_plan, parse_nbytes
from .plan.memory.windows import Windows
from .plan.presets import Preset, resolve
from .plan.run_plan import RunPlan, plan_run
from .sampling.kept_numbers import DTYPE_NBYTES, KeptNumbers
from .sampling.predict_peak import PeakModel, RunScale

_MOST_PARTS = 1000  # of a prompt: as many times 77 tokens


def forecast(
    *,
    model: str = "puppet",
    control: str | Sequence[str] = "pose",
    preset: str = "balanced",
    net: bool | None = None,
    scheduler: str | None = None,
    num_inference_steps: int = 25,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    num_controlnets: int | None = None,
    convention: str = "all",
    guided: bool = True,
    dtype_nbytes: int = 4,
    base: str = "",
    base_config: str = "",
    motion_adapter: str = "",
    ip_adapter: bool = False,
    ip_adapter_model: str = "",
    prompt_parts: int = 1,
    strength: float = 1.0,
    memory: str | int | None = None,
    throughput: str | None = None,
    checkpoint_every_s: float | None = None,
    devices: int = 1,
) -> RunPlan:
    """The forecast for one clip; what is None is the model's own.

    Args:
        model: the embedded model, a folder in diffusers format, or a configuration that is known by
            name (`hgc-video models`), which needs no files at all.
        control: the kind of control, or several at once; which ControlNets of a folder are meant.
        net, scheduler: as of `generate`; of a scheduler it only counts whether it adds noise at its steps.
        base, base_config, motion_adapter: as of `generate`, and on this machine.
        ip_adapter: with a picture, of `ip_adapter_model` or of the usual IP-Adapter for the base.
        prompt_parts: of a long prompt, how often the text encoder reads, at most 1000; each adds its tokens.
        strength: of video to video: the share of the steps that run.
        convention: "all", or "no-attention-products" as older tables count.
        memory: also choose the memory plan of a run in half precision that fits this much.
        throughput: what copies to host memory are weighed with against computing again: "40,20" for 40 T
            MACs and 20 GB a second, or "measured" to time this machine's GPU as a run does. None assumes a
            desktop GPU, so that the plan is the same on every machine.
        checkpoint_every_s: also plan after which steps a run with a work folder is kept; `throughput` tells
            how long its steps take.
        devices: also plan the run over so many devices, each of which makes some of the windows; `throughput`
            tells how long steps and exchange take.

    Raises:
        InputError: an unknown preset or control, a count or size that is not possible.
        ModelError: the model's configuration cannot be read.
    """
    if throughput is not None and memory is None and checkpoint_every_s is None and devices == 1:
        raise InputError(
            "throughput weighs memory plans, checkpoints and devices; give memory too, checkpoint_every_s, "
            "or devices"
        )
    if checkpoint_every_s is not None and not checkpoint_every_s >= 0:
        raise InputError(f"checkpoint_every_s={checkpoint_every_s} is not possible; give 0 or more")
    if not 0 < strength <= 1:
        raise InputError(f"strength={strength} is not possible; give more than 0 and at most 1")
    counts = {
        "num_inference_steps": num_inference_steps, "num_frames": num_frames,
        "prompt_parts": prompt_parts, "devices": devices,
    }  # fmt: skip
    for name, count in counts.items():
        if count is not None:
            at_least(name, count, 1)
    if num_controlnets is not None:
        at_least("controlnet", num_controlnets, 0)
    if base_config and not base:
        raise InputError("base_config is for a base in one file, and none is given; give base")
    for kind in (control,) if isinstance(control, str) else control:
        if kind not in CONTROL_KINDS:
            raise InputError(f'unknown control "{kind}": {nearest(kind, CONTROL_KINDS)}')
    if prompt_parts > _MOST_PARTS:
        raise InputError(f"prompt_parts={prompt_parts} is not possible; give at most {_MOST_PARTS}")
    if num_frames is not None:
        check_num_frames(num_frames, f"num_frames={num_frames}")
    parts = ModelParts(base, base_config, motion_adapter, ip_adapter_model=ip_adapter_model)
    if base:
        model = model_of(model, parts, offline=True)
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise InputError(f'unknown scheduler "{scheduler}": {nearest(scheduler, SCHEDULERS)}')
    chosen = resolve(preset, model).for_sampler(net, adds_noise=would_add_noise(model, scheduler))
    if base:
        scene = _base_scene(model, parts, height, width, num_controlnets)
    else:
        scene = _scene(model, control, height, width, num_controlnets)
    tokens = scene.clip.num_tokens * prompt_parts
    scene = replace(scene, clip=replace(scene.clip, num_tokens=tokens))
    if ip_adapter or ip_adapter_model:
        scene = _pictured(scene, ip_adapter_model)
    for count in (num_inference_steps, chosen.num_steps(num_inference_steps)):
        if count > MOST_STEPS:
            raise InputError(
                f"num_inference_steps={count} is not possible; give at most {MOST_STEPS}"
            )
    evaluations = _steps_left(chosen.num_steps(num_inference_steps), strength)
    frames, branches = num_frames or scene.clip.num_frames, 2 if guided else 1
    if scene.models.temporal and frames > scene.max_frames:
        raise InputError(
            f"num_frames={frames} is beyond the {scene.max_frames} that {model} makes; ask for less"
        )
    memory_plan = (
        None
        if memory is None
        else _memory_plan(scene, chosen, frames, branches, num_inference_steps, memory, throughput)
    )
    length = memory_plan.context if memory_plan else min(frames, scene.max_frames)
    windows = Windows(frames, length, length // 4)
    shape = replace(scene.clip, num_frames=windows.plain[0].length, branches=branches)
    nbytes = DTYPE_NBYTES if memory is not None else dtype_nbytes
    graph = graph_of(scene.models, shape, nbytes, convention)
    planned = plan_run(
        chosen, graph, windows, evaluations=evaluations,
        asked=_steps_left(num_inference_steps, strength), memory_plan=memory_plan,
    )  # fmt: skip
    if devices > 1:
        planned = replace(
            planned, devices=plan_devices(planned, devices, planning_rates(throughput))
        )
    if checkpoint_every_s is None:
        return planned
    rate = planning_rates(throughput).macs_per_s
    return replace(planned, checkpoints=plan_checkpoints(planned, rate, checkpoint_every_s))


def _steps_left(steps: int, strength: float) -> int:
    """The steps that run of so many; InputError where none does."""
    left = min(int(steps * strength), steps)
    if not left:
        raise InputError(f"strength={strength} of {steps} steps leaves no step; give more")
    return left


def _memory_plan(
    scene: _Scene, preset: Preset, num_frames: int, branches: int, steps: int, memory: str | int,
    throughput: str | None,
) -> MemoryPlan:  # fmt: skip
    whole = scene.models.temporal  # it makes a clip in no windows, decoded together
    if not whole and scene.models.unet_class != "UNetMotionModel":
        raise InputError("memory is planned for video models only; leave --memory out")
    clip = replace(scene.clip, num_frames=num_frames, branches=branches)
    scale = RunScale(clip, preset.num_steps(steps), scene.factor)
    trials = KeptNumbers(scene.models, scale)
    predict = PeakModel(trials, scene.text_encoder_params * DTYPE_NBYTES, scale, preset)
    return choose_memory_plan(
        predict, num_frames=num_frames, max_frames=scene.max_frames,
        num_positions=clip.num_positions, rates=planning_rates(throughput), budget=parse_nbytes(memory),
        **({"context": num_frames, "decoded": num_frames} if whole else {}),
    )  # fmt: skip


@dataclass(frozen=True)
class _Scene:
    """The models' configurations, and the clip that they make unless told otherwise."""

    models: Configurations
    clip: ClipShape
    max_frames: int
    factor: int
    text_encoder_params: int


def _scene(
    model: str, control: str | Sequence[str], height: int | None, width: int | None,
    num_controlnets: int | None,
) -> _Scene:  # fmt: skip
    if model in known_models():
        return _known_scene(model, height, width, num_controlnets)
    if model in model_presets():
        return _preset_scene(model_preset(model), height, width, num_controlnets)
    return _folder_scene(model, control, height, width, num_controlnets)


def _known_scene(
    model: str, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    known = known_model(model)
    default = 1 if known.controlnet else 0
    models = known.configurations(default if num_controlnets is None else num_controlnets)
    rows, columns = plan_size(1, 1, *_filled(height, width, known), multiple=64)
    factor = known.latent_factor
    clip = ClipShape(known.num_frames, rows // factor, columns // factor, known.num_tokens)
    return _Scene(models, clip, known.num_frames, factor, known.text_encoder_params)


def _filled(
    height: int | None, width: int | None, model: KnownModel | ModelPreset
) -> tuple[int, int]:
    """The size, where it is not given that which a model is made for."""
    return (
        model.height if height is None else height,
        model.width if width is None else width,
    )


def _preset_scene(
    preset: ModelPreset, height: int | None, width: int | None, num_controlnets: int | None
) -> _Scene:
    """Of a model that is downloaded at its first use, by the configuration that its parts are known by."""
    if not preset.configuration:
        raise ModelError(
            f"the configuration of {preset.name} is not known before its files are downloaded, at its first "
            f"use; plan one of {', '.join(known_models())} instead"
        )
    scene = _known_scene(preset.configuration, *_filled(height, width, preset), num_controlnets)
    return replace(scene, max_frames=preset.max_frames)


def _folder_scene(
    model: str, control: str | Sequence[str], height: int | None, width: int | None,
    num_controlnets: int | None,
) -> _Scene:  # fmt: skip
    kinds = (control,) if isinstance(control, str) else tuple(control)
    if num_controlnets not in (None, 0, len(kinds)):
        raise InputError(
            f"controlnet={num_controlnets} is not possible for a folder; give 0 or {len(kinds)}"
        )
    facts = read_facts(model)
    rows, columns = plan_size(1, 1, height, width, facts.multiple, facts.default_area)
    nets = [] if num_controlnets == 0 else controlnet_folders(facts.folder, kinds)
    vae = read_config(facts.folder / "vae")
    models = Configurations(read_config(facts.folder / "unet"), tuple(map(read_config, nets)), vae)
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    reader = read_config(facts.folder / ("image_encoder" if facts.from_image else "text_encoder"))
    tokens = 1 if facts.from_image else reader["max_position_embeddings"]
    frames = facts.max_frames
    clip = ClipShape(frames, rows // factor, columns // factor, tokens)
    return _Scene(models, clip, frames, factor, _params(reader))


def _base_scene(
    model: str,
    parts: ModelParts,
    height: int | None,
    width: int | None,
    num_controlnets: int | None,
) -> _Scene:
    """Of a base that the user names."""
    facts = read_facts(model, parts, offline=True)
    models = base_configurations(parts, 1 if num_controlnets is None else num_controlnets)
    rows, columns = plan_size(1, 1, height, width, facts.multiple, facts.default_area)
    factor = 2 ** (len(models.vae["block_out_channels"]) - 1)
    configs = find_base(parts, offline=True).configs
    readers = [read_config(path) for path in sorted(configs.glob("text_encoder*"))]
    frames, tokens = facts.max_frames, readers[0]["max_position_embeddings"]
    clip = ClipShape(frames, rows // factor, columns // factor, tokens)
    return _Scene(models, clip, frames, factor, sum(map(_params, readers)))


def _pictured(scene: _Scene, ip_adapter_model: str) -> _Scene:
    """The scene with an IP-Adapter. InputError for models that have none."""
    if scene.models.temporal:
        raise InputError("an IP-Adapter is for models that read a prompt; leave ip_adapter out")
    picture = picture_size(scene.models.unet, ip_adapter_model)
    return replace(scene, models=replace(scene.models, picture=picture))


def _params(reader: dict[str, Any]) -> int:
    """Parameters of a CLIP tower, from its configuration: nearly all lie in its layers and its words."""
    layers, wide = reader["num_hidden_layers"], reader["hidden_size"]
    words = int(reader.get("vocab_size", 0)) * wide
    return int(layers * (4 * wide**2 + 2 * wide * reader["intermediate_size"]) + words)
