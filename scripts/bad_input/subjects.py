"""What reads input, with good input of each kind to begin from.

A subject makes its good files once; a check reads one damaged file as the package does, and raises an error
of ours, returns where the result is right, or fails an assertion.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import check_command, damaged_command, good_commands
from .configurations import check_configuration, damaged_configuration, good_configurations
from .damage import damaged_bytes, damaged_text, damaged_yaml
from .media import check_clip, check_sound, good_images, good_movies, good_sounds
from .models import check_model, damaged_model, good_models
from .queues import check_queue, damaged_queue, good_queues
from .texts import (
    check_calibration,
    check_list,
    check_policy,
    check_schedule,
    check_shot,
    good_calibrations,
    good_lists,
    good_policies,
    good_schedules,
    good_shots,
)


@dataclass(frozen=True)
class Subject:
    """A kind of input. `good` writes good files into a folder and gives their paths; `damage` makes a damaged
    copy of one in a folder of its own and says how; `check` reads it. `reads_good`: it can read the good ones
    where they are."""

    good: Callable[[Path], list[Path]]
    damage: Callable[[Path, Path, random.Random], tuple[str, Path]]
    check: Callable[[Path], Any]
    share: int = 1  # of the inputs of a campaign
    reads_good: bool = True


SUBJECTS: dict[str, Subject] = {
    "movies": Subject(good_movies, damaged_bytes, check_clip, 15),
    "images": Subject(good_images, damaged_bytes, check_clip, 4),
    "sound": Subject(good_sounds, damaged_bytes, check_sound, 1),
    "configurations of clips": Subject(
        good_configurations, damaged_configuration, check_configuration, 2, False
    ),
    "shot files": Subject(good_shots, damaged_yaml, check_shot, 3),
    "job lists": Subject(good_lists, damaged_yaml, check_list, 2),
    "schedules": Subject(good_schedules, damaged_yaml, check_schedule, 2),
    "calibrations": Subject(good_calibrations, damaged_yaml, check_calibration, 1),
    "policies": Subject(good_policies, damaged_text, check_policy, 2, False),
    "queues": Subject(good_queues, damaged_queue, check_queue, 2, False),
    "models": Subject(good_models, damaged_model, check_model, 3, False),
    "command lines": Subject(good_commands, damaged_command, check_command, 2, False),
}
