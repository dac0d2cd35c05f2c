"""Files written before 0.2 hold the names of then, and are read as those of today."""

from __future__ import annotations

import json

import pytest
import yaml

from hgc_video.plan import calibration, schedule
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.policies import searched
from hgc_video.plan.policies.searched import CodedSchedule, load_coded_schedule
from hgc_video.plan.schedule import Schedule, StepPlan
from tests.plan.search.test_search import measured


@pytest.mark.parametrize(
    ("module", "kinds"),
    [
        (schedule, (StepPlan,)), (searched, (CodedSchedule,)), (calibration, (calibration.Calibration,)),
    ],
)  # fmt: skip
def test_every_old_name_is_of_a_field_and_none_of_today(module, kinds):
    fields = {name for kind in kinds for name in kind.__dataclass_fields__}
    assert set(module._OLD_NAMES.values()) <= fields
    assert not set(module._OLD_NAMES) & fields


def test_a_schedule_of_steps():
    names = frozenset({"unet.a"})
    new = StepPlan(
        deltas=names, average_branches=names, branches=1, cfg_delta=(1.0, 0.5), latent_progress=(0, 1),
        inactive_controlnets=frozenset({"controlnet"}), always_compute=names,
    )  # fmt: skip
    old = {
        "contributions": ["unet.a"], "merge": ["unet.a"], "branches": 1, "difference": [1.0, 0.5],
        "follow": [0, 1], "silent": ["controlnet"], "also": ["unet.a"],
    }  # fmt: skip
    assert Schedule.from_dict({"name": "x", "steps": [old]}).steps == (new,)


def test_a_coded_schedule(tmp_path):
    old = {"actions": "FHF", "gate": 2, "damping": [0.0, 0.5, 0.0], "stretch": 1.5, "seed": 3}
    (tmp_path / "old.yaml").write_text(json.dumps(old))
    found = load_coded_schedule(tmp_path / "old.yaml")
    assert found == CodedSchedule("FHF", 2, (0.0, 0.5, 0.0), 1.5) and found.metadata == {"seed": 3}


def test_a_calibration(tmp_path):
    measured().save(tmp_path / "new.yaml")
    told = yaml.safe_load((tmp_path / "new.yaml").read_text())
    told["gains"], told["gate"] = told.pop("sensitivity"), told.pop("cfg_drop_error")
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(told))
    assert load_calibration(tmp_path / "old.yaml") == load_calibration(tmp_path / "new.yaml")
