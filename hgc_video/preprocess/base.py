"""What every preprocessor is: a validated set of parameters that turns frames into a control.

It works in two halves. `estimates` is what costs time: a network, a detector, a filter; an array a frame,
which is kept on disk. `drawn` makes control frames of any size out of them and costs little, so parameters
that only it reads can be changed without a new estimate. One preprocessor is one file of this folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, MissingExtraError, one_line
from ..media.control import Placement
from ..media.frames import Frame

DRAWN = "drawn"


def drawn_field(default: Any, **given: Any) -> Any:
    """A pydantic field that `drawn` alone reads: another value needs no new estimate."""
    return Field(default, json_schema_extra={"read_by": DRAWN}, **given)


class Estimates(Protocol):
    """What was found in each frame of a clip, in their order; can be read many times."""

    def __len__(self) -> int: ...

    def read(self, start: int = 0) -> Iterator[NDArray[Any]]:
        """The arrays of the frames from `start` on."""
        ...


class Drawing(Protocol):
    """Control frames that can be drawn from any frame on."""

    def __call__(self, start: int) -> Iterator[Frame]: ...


@dataclass(frozen=True)
class Drawn:
    """Control frames (H W 3) from a number on, and what is to be known of them: frames whose gaps were
    bridged, frames that show nobody, people told apart."""

    frames: Drawing
    num_bridged: int = 0
    num_empty: int = 0
    num_people: int = 0
    keypoints: NDArray[np.floating] | None = None  # (t f n 4), in pixels of the control


class Preprocessor(BaseModel, ABC):
    """The base of all preprocessors; the fields of a subclass are its parameters.

    name: what it is called by, as "pose" in "pose:hands=true".
    control: the kind of control that it makes.
    extra: the extra of this package that it needs; "" where it needs none.
    own_size: whether it sees frames at the size of their clip; otherwise at the size of the control.

    Raises:
        InputError: a parameter that is not known, or a value outside of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: ClassVar[str]
    control: ClassVar[str]
    extra: ClassVar[str] = ""
    own_size: ClassVar[bool] = False

    def __init__(self, **parameters: Any) -> None:
        try:
            super().__init__(**parameters)
        except ValidationError as error:
            raise InputError(one_line(error, self.name, type(self).model_fields)) from None

    @abstractmethod
    def require(self, offline: bool = False) -> None:
        """Says before anything is read what is missing: MissingExtraError, ModelError."""

    @abstractmethod
    def made_by(self) -> dict[str, str]:
        """What an estimate depends on beside parameters: versions of libraries, hashes of weights."""

    @abstractmethod
    def estimates(self, frames: Iterable[Frame], fps: float) -> Iterator[NDArray[Any]]:
        """An array for each frame (H W 3), in batches where that is faster."""

    @abstractmethod
    def drawn(self, found: Estimates, place: Placement, fps: float) -> Drawn:
        """The control of what was found in frames, at the size of `place`."""

    def key(self) -> dict[str, Any]:
        """What decides an estimate, as plain data: parameters and what made it."""
        given = self.model_dump(mode="json")
        kept = {
            name: given[name]
            for name, field in type(self).model_fields.items()
            if not isinstance(extra := field.json_schema_extra, dict)
            or extra.get("read_by") != DRAWN
        }
        return {"preprocessor": self.name, "parameters": kept, "made_by": self.made_by()}

    @property
    def text(self) -> str:
        """The text that makes this preprocessor: its name and every parameter that is not the default."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        fields = ",".join(f"{name}={value}" for name, value in given.items())
        return f"{self.name}:{fields}" if fields else self.name

    def _lacks(self, what: str, error: Exception, remedy: str = "") -> MissingExtraError:
        """What to raise where the extra is not installed."""
        how = remedy or f'pip install "hgc_video[{self.extra}]"'
        return MissingExtraError(f"{self.name} needs {what} ({error}): {how}")


class LinePreprocessor(Preprocessor):
    """A preprocessor whose estimate is the control itself, one channel, at the control's size."""

    def drawn(self, found: Estimates, place: Placement, fps: float) -> Drawn:
        return Drawn(lambda start: (padded(grey, place) for grey in found.read(start)))


def padded(grey: NDArray[np.uint8], place: Placement) -> Frame:
    """A grey image (h w) of the picture's size as a frame (H W 3), black around it."""
    top, left, height, width = place.box
    frame = np.zeros((place.height, place.width, 3), np.uint8)
    frame[top : top + height, left : left + width] = grey[..., None]
    return frame
