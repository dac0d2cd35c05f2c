"""What a job is known by: a hash of its options and of the files that it reads."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..media.content import content_of
from ..models.identity import local_parts
from ..models.parts import ModelParts
from ..options import LOADING, GenerateOptions
from ..plain_data import HALVES
from ..plan.presets import policy_files_here

# What does not change a result, or says where it goes.
_NOT_OF_THE_RESULT = (
    "out", "device", "devices", "offline", "calibration_dir", "work", "checkpoint_every_s",
)  # fmt: skip


def fingerprint_of(options: GenerateOptions) -> str:
    """The SHA-256 of checked options and of all that they name to be read, as it is now."""
    told: dict[str, Any] = options.to_dict()
    for name in _NOT_OF_THE_RESULT:
        del told[name]
    read = options.inputs | policy_files_here(options.preset)
    known: list[Any] = [told, {name: content_of(given) for name, given in read.items()}]
    if parts := local_parts(options.model, ModelParts.of(options)):
        known.append({"parts": parts})
    if len(options.control_kinds) > 1:
        known.append({"order": options.control_kinds})
    text = json.dumps(known, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors=HALVES)).hexdigest()


def loading_of(options: GenerateOptions) -> str:
    """What of the options decides which model is loaded: jobs with the same text share one."""
    told = options.to_dict()
    loaded = {name: told[name] for name in LOADING if name != "device"}
    return json.dumps([loaded, options.control_kinds, options.ip_adapter is not None])
