"""Writes the first shot file for a video: what was seen of it, sensible values, and a word on each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..files import write_text
from ..media.frame_size import plan_size
from ..models.load import ModelFacts, read_facts
from ..options import GenerateOptions
from .clip_facts import ClipFacts, facts_of
from .preset_choice import PresetChoice, choose_preset

_PROMPT = "a dancer in a red shirt and blue trousers on a beach"


def write_template(video: Path, out: Path, model: str = "puppet") -> ClipFacts:
    """Looks at a video and writes a commented shot file for it.

    Raises:
        VideoError: the video cannot be read.
        InputError: it is black; the file cannot be written.
    """
    facts, of_model = facts_of(video), read_facts(model)
    height, width = plan_size(
        facts.info.height, facts.info.width, None, None, of_model.multiple, of_model.default_area
    )
    choice = choose_preset(model, num_frames=facts.taken, height=height, width=width)
    size = f"{width}x{height}"
    lines = _lines(facts, of_model, _from(out, video), model, choice, size, out)
    write_text(out, "\n".join(lines) + "\n")
    return facts


def _lines(
    facts: ClipFacts, model: ModelFacts, video: str, name: str, choice: PresetChoice, size: str, out: Path
) -> Iterator[str]:  # fmt: skip
    """The lines of the file."""
    yield f"# A shot of hgc-video; make the clip with:  hgc-video run {out.name}"
    yield f"# {facts}"
    yield "# Paths are relative to this file. Every option: hgc-video schema"
    yield ""
    yield "control:"
    yield f"  {facts.kind}: {json.dumps(video, ensure_ascii=False)}"
    yield from _of_look(facts)
    if model.from_image:
        yield from ("# the first frame, which this model begins with", "image: first.png")
    else:
        yield from _told("prompt", _PROMPT)
    yield from _told("model", name)
    yield from _told("preset", choice.preset, str(choice))
    if not model.from_image:
        yield from _told("num_frames", facts.taken, _length(facts, model))
    yield from _told("seed", 0)
    yield from ("", "# the clip that is written: .mp4, .gif, .webp, or a folder of PNGs")
    made = f"{out.stem}-made.mp4" if video == f"{out.stem}.mp4" else f"{out.stem}.mp4"
    yield f"out: {json.dumps(made, ensure_ascii=False)}"
    yield from ("", f"# As the model has them, or as the clip ({size} here), unless you say so:")
    for option in ("negative_prompt", "num_inference_steps", "guidance_scale", "height", "width"):
        yield f"# {option}:   {GenerateOptions.model_fields[option].description}"
    if not facts.info.carries_fps:
        yield f"source_fps: {facts.info.fps:g}  # assumed: these images carry no rate"


def _of_look(facts: ClipFacts) -> Iterator[str]:
    """What follows from what the video shows."""
    if facts.raw:
        yield "# the video is no skeleton or depth clip: skeletons are taken from it"
        yield "extract: true"
    if facts.inverted:
        yield "# it looks inverted, near is dark"
        yield "invert_depth: true"


def _told(option: str, value: str | int, more: str = "") -> Iterator[str]:
    """An option with its meaning above it."""
    yield ""
    yield f"# {GenerateOptions.model_fields[option].description}"
    if more:
        yield f"# {more}"
    yield f"{option}: {json.dumps(value, ensure_ascii=False) if option == 'prompt' else value}"


def _length(facts: ClipFacts, model: ModelFacts) -> str:
    seconds = facts.taken / facts.fps
    told = f"{facts.taken} are all of it, {seconds:.1f} s at {facts.fps:g} fps"
    if facts.taken > model.max_frames:
        told += f"; the model holds {model.max_frames} at once, so the run goes in windows"
    return told


def _from(out: Path, video: Path) -> str:
    """The video's path as seen from the file's folder."""
    return Path(os.path.relpath(video.absolute(), out.absolute().parent)).as_posix()
