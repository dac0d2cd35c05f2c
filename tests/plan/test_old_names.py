"""Files that were written before 0.2 are read under the names of today."""

from __future__ import annotations

import pytest

from hgc_video.plan.calibration import _OLD_NAMES as OF_CALIBRATIONS
from hgc_video.plan.calibration import Calibration
from hgc_video.plan.policies.searched import _OLD_NAMES as OF_SEARCHED
from hgc_video.plan.policies.searched import CodedSchedule, load_coded_schedule
from hgc_video.plan.schedule import _OLD_NAMES as OF_STEPS
from hgc_video.plan.schedule import Schedule, StepPlan


@pytest.mark.parametrize(
    ("names", "model"),
    [(OF_CALIBRATIONS, Calibration), (OF_SEARCHED, CodedSchedule), (OF_STEPS, StepPlan)],
)
def test_an_old_name_is_another_than_the_one_of_today(names, model):
    assert not set(names) & set(names.values())
    assert set(names.values()) <= set(model.__dataclass_fields__)


def test_an_old_schedule_is_read():
    step = {
        "contributions": ["unet.a"], "merge": ["unet.b"], "difference": [1.0, 0.5], "follow": [0, 1],
        "silent": ["controlnet"], "also": ["unet.c"],
    }  # fmt: skip
    assert Schedule.from_dict({"name": "old", "steps": [step]}).steps == (
        StepPlan(
            deltas=frozenset({"unet.a"}), average_branches=frozenset({"unet.b"}),
            cfg_delta=(1.0, 0.5), latent_progress=(0, 1),
            inactive_controlnets=frozenset({"controlnet"}), always_compute=frozenset({"unet.c"}),
        ),
    )  # fmt: skip


def test_an_old_searched_schedule_is_read(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("name: old\nactions: FF1\ngate: 2\nstretch: 1.5\ndamping: [0.0, 0.0, 0.4]\n")
    read = load_coded_schedule(file)
    assert (read.step_ratio, read.extrapolation) == (1.5, (0.0, 0.0, 0.4))
