"""The options of `generate`: one list, which its signature, command line, shot files and report follow.

Knows nothing about models that are loaded, nor how an option is carried out.
"""

from __future__ import annotations

from .generate import GenerateOptions
from .image_motion import ImageMotion
from .prompts import check_prompt_length
from .values import CONTROL_KINDS, DTYPES, LOADING, PROMPT_SYNTAXES, SCHEDULERS, dtype_name

__all__ = [
    "CONTROL_KINDS", "DTYPES", "LOADING", "PROMPT_SYNTAXES", "SCHEDULERS", "GenerateOptions", "ImageMotion",
    "check_prompt_length", "dtype_name",
]  # fmt: skip
