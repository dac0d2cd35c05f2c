"""What values options may have: kinds and names, numbers, paths, spans of frames."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from ..errors import InputError, nearest
from ..plain_data import is_whole

CONTROL_KINDS = ("pose", "depth", "canny", "softedge", "lineart")
DTYPES = ("float32", "float16", "bfloat16")
SCHEDULERS = ("ddim", "dpm++", "euler", "euler-a", "unipc", "lcm")
MOST_STEPS = 1000  # timesteps that models of diffusion are trained on
PROMPT_SYNTAXES = ("plain", "compel")
# The options that decide what is loaded, beside the kinds of control and whether there is an ip_adapter.
LOADING = (
    "model", "device", "dtype", "offline", "base", "base_config", "motion_adapter", "vae", "controlnet",
    "lora", "ip_adapter_model",
)  # fmt: skip
Place: TypeAlias = str | os.PathLike[str] | None


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype, torch's own or its name; None as it is. InputError names the nearest."""
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and name not in DTYPES:
        raise InputError(f'unknown dtype "{name}": {nearest(name, DTYPES)}')
    return None if dtype is None else name


def _whole(value: Any) -> Any:
    """Whole numbers of any library as Python's own, so that a report can hold them; text is none."""
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise PydanticCustomError("whole_number", "a whole number")
    return int(value)


def _number(value: Any) -> Any:
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise PydanticCustomError("number", "a number")
    if not is_number(value):
        raise PydanticCustomError("number", "a finite number")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number without end
        return False


Whole: TypeAlias = Annotated[int, BeforeValidator(_whole)]
Number: TypeAlias = Annotated[float, BeforeValidator(_number)]


def span_of(text: str) -> tuple[int, int | None]:
    """First frame, and the one after the last (None: none is the last), of "START:STOP"."""
    start, colon, stop = (part.strip() for part in text.partition(":"))
    numbers = all(part == "" or is_whole(part) for part in (start, stop))
    if not colon or not numbers or (stop and int(stop) <= int(start or 0)):
        raise InputError(
            f'frames="{text}" is not possible; write START:STOP in frames of the control clip, as 100:260'
        )
    return int(start or 0), int(stop) if stop else None


def plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, os.PathLike):
        return str(Path(value))
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of {'x'.join(map(str, shape))} in memory"
    return f"{len(value)} images in memory" if hasattr(value, "__len__") else "an image in memory"
