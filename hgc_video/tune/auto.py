"""A schedule of a model's own at its first use: calibrated and searched on the clip that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from ..errors import InputError, nearest
from ..files import shipped_schedule
from ..plan.policies.searched import load_coded_schedule
from ..plan.presets import SEARCHED, resolve
from .calibrate import calibrate
from .search import Task, search, told
from .trials import Sample, Source, model_hash

_JUDGEMENTS = 24
_FRAMES = 8


def own_schedule(
    model: str, sample: Sample, preset: str, num_inference_steps: int, *, folder: Path,
    log: Callable[[str], None] = print,
) -> str:  # fmt: skip
    """The preset to run: `searched:file=FILE`, in which the model's own schedule for a preset's budget is.

    Made once for a model, preset and number of steps, and kept in `folder`; the shipped one where the
    shipped one was measured on this very model. InputError where the clip is no file or the preset no
    searched one.
    """
    if preset not in SEARCHED:
        raise InputError(f'"{preset}" is not searched: {nearest(preset, SEARCHED)}')
    shipped = load_coded_schedule(shipped_schedule(preset))
    if shipped.told.get("model_hash") == model_hash(model):
        return preset
    kept = folder / f"{model_hash(model)}-{num_inference_steps}-{preset}.yaml"
    if not kept.is_file():
        source = _source(model, sample, folder)
        measured = calibrate(source, num_inference_steps, folder=folder, log=log)
        stretch = (resolve(preset).num_steps(num_inference_steps) / num_inference_steps,)
        budget = float(shipped.told["budget"])
        task = Task(source, num_inference_steps, budget, lengths=stretch, judgements=_JUDGEMENTS)
        found = search(task, measured, memory=folder / "judgements.jsonl", log=log)
        told(found, task, measured, preset).save(kept)
    return f"searched:file={kept}"


def _source(model: str, sample: Sample, folder: Path) -> Source:
    if not isinstance(sample.control, str):
        raise InputError("auto_calibrate needs a control clip in a file; save it and give its path")
    clip = Path(sample.control).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / f"{model_hash(model)}-samples.yaml"
    one = {"control": str(clip), "kind": sample.kind, "prompt": sample.prompt, "seed": sample.seed}
    listed.write_text(yaml.safe_dump([one]))
    return Source(model, listed, 0, 1, _FRAMES)
