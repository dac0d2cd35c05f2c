"""What trials are made of: control clips with prompts and seeds, of a list or the embedded model's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, at_least, nearest, one_line
from ..files import user_path
from ..media.content import content_of
from ..models.load import EMBEDDED
from ..options import CONTROL_KINDS
from ..plan.plain_yaml import read_plain

DEFAULT_COUNT = 4  # of the embedded model's own
MOST_DRAWN = 20_000  # frames of them together; they are drawn at once and take 50 KB each


@dataclass(frozen=True)
class Sample:
    """What a trial is made of: a control clip (f H W 3) uint8 or a file of one, its kind, a prompt and
    the seed of the noise."""

    control: NDArray[np.uint8] | str
    kind: str
    prompt: str
    seed: int

    def identity(self) -> str:
        """A checksum of all that the sample is, its clip's content included.

        Raises:
            InputError: the clip cannot be read.
        """
        try:
            clip = content_of(self.control)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f'the control clip "{self.control}" cannot be read: {reason.lower()}'
            ) from error
        return _checksum(f"{clip} {self.kind} {self.seed} {self.prompt}")


class _Entry(BaseModel):
    """A sample as a list has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    control: str = Field(min_length=1)
    kind: str = "pose"
    prompt: str
    seed: int = Field(0, ge=0, lt=2**63)


@dataclass(frozen=True)
class SampleSet:
    """Where trials come from, as plain values that a worker process can be given: a model, a file of
    samples or the number of the embedded model's first one, how many, frames of each, a scheduler of
    diffusers by its class name ("": the model's own), and where and in which precision the model is loaded,
    as `load_pipeline` takes it (device None: the fastest here).

    Raises:
        InputError: `count` or `num_frames` below 1, or more than MOST_DRAWN frames to be drawn.
    """

    model: str
    listed: Path | None
    first: int
    count: int
    num_frames: int
    scheduler: str = ""
    device: str | None = None
    dtype: torch.dtype | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        at_least("count", self.count, 1)
        at_least("num_frames", self.num_frames, 1)
        if self.listed is None and self.count * self.num_frames > MOST_DRAWN:
            raise InputError(
                f"{self.count} samples of {self.num_frames} frames are more than {MOST_DRAWN} frames; ask "
                "for less"
            )

    def samples(self) -> list[Sample]:
        """The samples of the file, or the embedded model's own.

        Raises:
            InputError: another model has no file, or the file is damaged or lists fewer than are asked for.
        """
        if self.listed is None and self.model != EMBEDDED:
            raise InputError(
                f"model {self.model} brings no clips of its own; list control clips and prompts in a YAML "
                "file and give it with --samples"
            )
        if self.listed is None:
            return embedded_samples(self.first, self.count, self.num_frames)
        found = read_samples(self.listed)
        if self.count > len(found):
            raise InputError(
                f"{self.count} samples are asked for and {self.listed} lists {len(found)}; ask for no more"
            )
        return found[: self.count]

    def identities(self) -> list[int | str]:
        """What tells each sample from all others: the number of the embedded model's, of a file's all that
        it is. What was measured of one never stands for another."""
        if self.listed is None:
            return list(range(self.first, self.first + self.count))
        return [sample.identity() for sample in self.samples()]

    def list_identity(self) -> str:
        """A checksum of a file of samples and of all clips that it lists; "None" without one."""
        if self.listed is None:
            return str(None)
        return _checksum(" ".join(sample.identity() for sample in read_samples(self.listed)))


def sample_set(
    model: str,
    listed: Path | None,
    first: int,
    count: int | None,
    num_frames: int,
    scheduler: str = "",
) -> SampleSet:
    """A SampleSet; `count` None is all that the file lists, or DEFAULT_COUNT of the embedded model's."""
    if count is None:
        count = DEFAULT_COUNT if listed is None else len(read_samples(listed))
    return SampleSet(model, listed, first, count, num_frames, scheduler)


def embedded_samples(first: int, count: int, num_frames: int) -> list[Sample]:
    """Samples of the embedded model's own world, by number; pose and depth in turn."""
    from ..puppet.evaluation import held_out
    from ..puppet.prompts import plain_prompt

    made = []
    for index in range(first, first + count):
        case, kind = held_out(index, num_frames), ("pose", "depth")[index % 2]
        made.append(Sample(case.control(kind), kind, plain_prompt(case.spec), case.seed))
    return made


def read_samples(path: Path) -> list[Sample]:
    """Samples listed in a YAML file as `- {control: clip.mp4, kind: pose, prompt: ..., seed: 0}`, clips
    relative to the file; InputError says what is wrong with another."""
    try:
        listed = read_plain(user_path(path))
        if not isinstance(listed, list) or not listed:
            raise InputError("it lists none")
        return [_sample(entry, number, path.parent) for number, entry in enumerate(listed, 1)]
    except InputError as error:
        raise InputError(
            f"{path} is no list of samples: {error}; write lines such as "
            "- {control: clip.mp4, kind: pose, prompt: a dancer, seed: 0}"
        ) from error


def _sample(given: Any, number: int, folder: Path) -> Sample:
    owner = f"sample {number}"
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise InputError(f"{owner} is {given!r:.60}")
    try:
        entry = _Entry(**given)
    except ValidationError as error:
        raise InputError(one_line(error, owner, _Entry.model_fields)) from None
    if entry.kind not in CONTROL_KINDS:
        raise InputError(
            f'{owner} has the kind "{entry.kind}": {nearest(entry.kind, CONTROL_KINDS)}'
        )
    return Sample(str(folder / entry.control), entry.kind, entry.prompt, entry.seed)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
