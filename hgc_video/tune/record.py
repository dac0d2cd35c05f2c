"""Measures on one trial what a search must know: how wrong reuse is, and what that does in the end."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log
from typing import Any

import torch
from torch import Tensor

from ..cache.engine import Engine
from ..cache.noise_levels import PREDICTION_TYPES, known_levels
from ..cache.store import Value
from ..evaluate.trials import Trial, setting
from ..measure.layer_changes import ChangeMeter, Recorder
from ..plan.calibration import Calibration, Segment
from ..plan.policies.searched import CodedSchedule
from ..sampling.loop import ControlledUNet, denoise

_REACH = 8  # steps over which reuse is measured
_SPACING = 6  # steps between the two keys that a slope is taken from


@dataclass(frozen=True)
class Moment:
    """One step of the uncached run: what the models got, the guided prediction, the error that
    dropping guidance would make, and the state of latents and scheduler before it."""

    t: Tensor
    latents: Tensor
    model_input: Tensor
    prediction: Tensor
    difference: Tensor
    scheduler: Any


@torch.no_grad()
def record(
    trial: Trial, depths: tuple[int, ...] = (0, 1), every: int = 2, offset: int = 0
) -> Calibration:
    """The calibration of one trial.

    depths: what can be reused: 0 the whole prediction, d the input of the last d up layers.
    every, offset: the sensitivity is measured at every so many steps and interpolated between them.
    """
    moments = list(moments_of(trial))
    reused, held_products = {}, {}
    for depth in depths:
        if depth == 0:
            reused[0] = _whole(moments)
        else:
            reused[depth], held_products[depth] = _reused(trial, depth, moments)
    changes = _changes(trial)
    return Calibration(
        setting(trial.model, trial.num_inference_steps, trial.guidance_scale, trial.pipe.scheduler),
        clips=1, num_frames=trial.graph.num_frames, sensitivity=_gains(trial, moments, every, offset),
        cfg_drop_error=tuple(_mean_square(m.difference) for m in moments), reused=reused, changes=changes,
        products=_products([moment.prediction for moment in moments]), held_products=held_products,
        **_by_noise_level(trial, moments),
    )  # fmt: skip


def moments_of(trial: Trial) -> Iterator[Moment]:
    """Every step of the uncached run."""
    models, latents, timesteps, options = trial.start()
    scheduler, seen = trial.pipe.scheduler, []
    hook = trial.pipe.unet.register_forward_hook(lambda _, __, out: seen.append(out))
    try:
        for index, t in enumerate(timesteps):
            before = copy.deepcopy(scheduler)
            model_input = scheduler.scale_model_input(latents, t)
            prediction = models(model_input, t, index)
            branches = _prediction(seen.pop()).chunk(models.guidance.branches)
            yield Moment(t, latents, model_input, prediction, prediction - branches[-1], before)
            latents = scheduler.step(prediction, t, latents, **options).prev_sample
    finally:
        hook.remove()


def _prediction(out: Any) -> Tensor:
    made: Tensor = out[0] if isinstance(out, tuple) else out.sample
    return made


def _whole(moments: list[Moment]) -> dict[Segment, tuple[float, float, float]]:
    """Errors of reusing the whole prediction."""

    def errors(older: int, newer: int, step: int) -> tuple[Tensor, Tensor]:
        made = [moments[i].prediction for i in (older, newer)] if older >= 0 else None
        held = moments[newer].prediction - moments[step].prediction
        return held, (made[1] - made[0]) if made else torch.zeros_like(held)

    return {at: _quadratic(*errors(*at), at) for at in _segments(len(moments))}


def _products(values: list[Tensor]) -> tuple[tuple[float, ...], ...]:
    """The mean product of every two values."""
    flat = torch.stack([value.flatten().double() for value in values])
    return tuple(map(tuple, (flat @ flat.T / flat.shape[1]).tolist()))


def _by_noise_level(trial: Trial, moments: list[Moment]) -> dict[str, Any]:
    """Angles and products as every type of prediction; nothing where noise levels are not known."""
    levels = known_levels(trial.pipe.scheduler)
    if levels is None:
        return {}
    clean = [levels.clean(m.model_input, m.prediction, m.t) for m in moments]
    return {
        "angles": tuple(levels.angle(moment.t) for moment in moments),
        "products_as": {
            kind: _lower(
                [
                    levels.stated_as(kind, m.model_input, x, m.t)
                    for m, x in zip(moments, clean, strict=True)
                ]
            )
            for kind in PREDICTION_TYPES
        },
    }


def _reused(
    trial: Trial, depth: int, moments: list[Moment]
) -> tuple[dict[Segment, tuple[float, float, float]], tuple[tuple[tuple[float, ...], ...], ...]]:
    """Errors of the prediction where the tensor of that depth is reused and the rest is fresh, and the
    products of those of holding it, by step."""
    plan = CodedSchedule(f"F{depth}", 2, (0.0, 0.0))
    name = trial.graph.depths[depth - 1]
    found = {}
    held = moments[0].prediction  # of the segment without an older key, which comes first
    with trial.attached(plan(trial.graph, len(plan.actions))) as engine:
        models, *_ = trial.start([engine])
        kept = []
        for moment in moments:
            models(moment.model_input, moment.t, 0)
            kept.append(engine.kept(name)[0])
        for at in _segments(len(moments)):
            older, newer, step = at
            last, moment = kept[newer], moments[step]
            if older < 0:
                held = _error(models, engine, name, last, moment)
                found[at] = (_mean_square(held), 0.0, 0.0)
                continue
            ahead = (step - newer) / (newer - older)
            sloped = last.tensor + ahead * (last.tensor - kept[older].tensor)
            line = _error(models, engine, name, last._replace(tensor=sloped), moment) - held
            found[at] = _square(held, line)
        products = tuple(
            _lower([_error(models, engine, name, value, moment) for value in kept[:step]])
            for step, moment in enumerate(moments)
        )
    return found, products


def _lower(values: list[Tensor]) -> tuple[tuple[float, ...], ...]:
    """The mean product of every value with itself and those before it."""
    whole = _products(values) if values else ()
    return tuple(row[: at + 1] for at, row in enumerate(whole))


def _error(
    models: ControlledUNet, engine: Engine, name: str, value: Value, moment: Moment
) -> Tensor:
    """The error of the guided prediction where `value` is reused: at step 1 of the plan, which reads it."""
    engine.give(name, value)
    return models(moment.model_input, moment.t, 1) - moment.prediction


def _segments(count: int) -> Iterator[Segment]:
    """All (older key or -1, newer key, step) within reach; the one without an older key first."""
    for newer in range(count):
        for step in range(newer + 1, min(newer + _REACH, count - 1) + 1):
            yield -1, newer, step
            for older in range(max(0, newer - _SPACING), newer):
                yield older, newer, step


def _quadratic(held: Tensor, change: Tensor, at: Segment) -> tuple[float, float, float]:
    older, newer, step = at
    if older < 0:
        return _mean_square(held), 0.0, 0.0
    return _square(held, change * ((step - newer) / (newer - older)))


def _square(held: Tensor, line: Tensor) -> tuple[float, float, float]:
    """The coefficients of the mean square of held + c line."""
    return _mean_square(held), float((held * line).mean()), _mean_square(line)


def _mean_square(error: Tensor) -> float:
    return float(error.square().mean())


def _gains(trial: Trial, moments: list[Moment], every: int, offset: int) -> tuple[float, ...]:
    """Mean square in the final latents for one in a step's prediction: each measured step repeats the
    prediction before it, and the run goes on from there in full."""
    clean = trial.uncached
    measured: dict[int, float] = {}
    # Fewer steps than `every` have fewer offsets; every sample measures one step at least.
    for step in range(1 + offset % min(every, len(moments) - 1), len(moments), every):
        moment = moments[step]
        repeated = moments[step - 1].prediction
        error = _mean_square(repeated - moment.prediction)
        ended = _from(trial, moments, step, repeated)
        measured[step] = _mean_square(ended - clean) / max(error, 1e-20)
    return _filled(measured, len(moments))


def _from(trial: Trial, moments: list[Moment], step: int, prediction: Tensor) -> Tensor:
    """The final latents where a step had this prediction."""
    models, _, timesteps, options = trial.start()
    moment = moments[step]
    scheduler = copy.deepcopy(moment.scheduler)
    latents: Tensor = scheduler.step(prediction, moment.t, moment.latents, **options).prev_sample
    for index in range(step + 1, len(moments)):
        t = timesteps[index]
        scaled = scheduler.scale_model_input(latents, t)
        latents = scheduler.step(models(scaled, t, index), t, latents, **options).prev_sample
    return latents


def _filled(measured: dict[int, float], count: int) -> tuple[float, ...]:
    """Between measured steps the geometric interpolation; beyond them the nearest one."""
    known = sorted(measured)
    filled = []
    for step in range(count):
        below = max((k for k in known if k <= step), default=known[0])
        above = min((k for k in known if k >= step), default=known[-1])
        share = (step - below) / (above - below) if above > below else 0.0
        low, high = (max(measured[k], 1e-20) for k in (below, above))
        filled.append(exp((1 - share) * log(low) + share * log(high)))
    return tuple(filled)


def _changes(trial: Trial) -> dict[str, tuple[float, ...]]:
    """Relative L1 change of every layer, watched in one uncached run."""
    changes = ChangeMeter(trial.num_inference_steps)
    parts = {"unet": trial.pipe.unet, "controlnet": trial.pipe.controlnet}
    with Recorder(trial.graph, parts, changes) as recorder:
        models, noise, timesteps, options = trial.start([recorder])
        denoise(models, trial.pipe.scheduler, noise, timesteps, **options)
    return changes.means()
