"""A schedule of a model's own at its first use: calibrated and searched on the clip that is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from ..errors import InputError, nearest
from ..evaluate.samples import Sample, SampleSet
from ..evaluate.trials import kept_trials
from ..files import resolved, shipped_schedule, user_path, write_text
from ..models.identity import is_hash_of, model_hash
from ..plan.policies.searched import Searched, load_coded_schedule
from ..plan.presets import SEARCHED, Preset, resolve
from .calibrate import calibrate
from .search import SearchConfig, search, with_origin

_JUDGEMENTS = 24
_FRAMES = 8


def own_schedule(
    source: SampleSet, sample: Sample, preset: str, num_inference_steps: int, *, folder: Path,
    log: Callable[[str], None],
) -> Preset:  # fmt: skip
    """The preset to run: the model's own schedule for a preset's budget.

    Made once for a model, preset and number of steps, and kept in `folder`; the shipped one where the
    shipped one was measured on this very model, and for a single step, which reuses nothing. Of the source
    the model, how it is loaded and how many frames there are count; its pipelines are given up at the end.
    InputError where the clip is no file or the preset no searched one.
    """
    if preset not in SEARCHED:
        raise InputError(f'"{preset}" is not searched: {nearest(preset, SEARCHED)}')
    model = source.model
    shipped = load_coded_schedule(shipped_schedule(preset))
    if num_inference_steps == 1 or is_hash_of(shipped.metadata.get("model_hash"), model):
        return resolve(preset, model)
    kept = folder / f"{model_hash(model)}-{num_inference_steps}-{preset}.yaml"
    if not kept.is_file():
        listed = _listed(model, sample, folder)
        frames = min(_FRAMES, source.num_frames)
        source = replace(source, listed=listed, first=0, count=1, num_frames=frames)
        stretch = (resolve(preset).num_steps(num_inference_steps) / num_inference_steps,)
        budget = float(shipped.metadata["budget"])
        with kept_trials():
            measured = calibrate(source, num_inference_steps, folder=folder, log=log)
            task = SearchConfig(
                source, num_inference_steps, budget, lengths=stretch, judgements=_JUDGEMENTS
            )
            found = search(task, measured, memory=folder / "judgements.jsonl", log=log)
        with_origin(found, task, measured, preset).save(kept)
    # Not by name, as "searched:file=...": a folder's name may hold what divides policies and fields.
    return Preset(f"searched:file={kept}", (Searched(file=str(kept)),))


def _listed(model: str, sample: Sample, folder: Path) -> Path:
    """A file that lists the sample; its name tells samples apart, as what is judged on them is kept."""
    if not isinstance(sample.control, str):
        raise InputError("auto_calibrate needs a control clip in a file; save it and give its path")
    clip = resolved(user_path(sample.control))
    one = {"control": str(clip), "kind": sample.kind, "prompt": sample.prompt, "seed": sample.seed}
    text = yaml.safe_dump([one])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f'cannot make the folder "{folder}" for what is measured: {error.strerror}; name another with '
            "calibration_dir"
        ) from error
    return write_text(folder / f"{model_hash(model)}-{digest}-samples.yaml", text)
