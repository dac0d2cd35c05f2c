"""A calibration as a file: its digits, its mean, and what is said of one that cannot be used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from hgc_video.errors import PlanError
from hgc_video.plan.calibration import (
    Calibration,
    Changes,
    Setting,
    load_calibration,
    load_changes,
    load_products,
    mean,
    refresh_steps,
)

SETTING = Setting("puppet", "abc", 2, "DDIMScheduler", 2.5)
MANY = 1.234567123456789  # digits
FIELDS = {
    "model": "puppet", "model_hash": "abc", "num_inference_steps": 2, "scheduler": "DDIMScheduler",
    "guidance_scale": 2.5, "clips": 3, "num_frames": 4, "sensitivity": [1.0, 2.0],
    "cfg_drop_error": [0.5, 0.25], "reused": {0: {"-1 0 1": [4.0, 0.0, 0.0]}},
    "changes": {"unet.conv_in": [0.0, 0.125]},
}  # fmt: skip


def measured(value=1.0, clips=1):
    """A calibration of two steps all of whose numbers are multiples of a value."""
    one, two = (value,), (2 * value, 3 * value)
    return Calibration(
        SETTING, clips, 4, sensitivity=two, cfg_drop_error=(4 * value, 5 * value),
        reused={0: {(-1, 0, 1): (6 * value, 0.0, 0.0)}, 2: {(0, 1, 2): (7 * value, -value, value)}},
        changes={"unet.a": (0.0, 8 * value), "unet.b": (0.0, 9 * value)}, products=(one, two),
        held_products={1: ((), (one,)), 2: ((), (one, two))}, angles=(1.5, 0.5),
        products_as={"epsilon": (one, two), "sample": (two, one)},
    )  # fmt: skip


def write(path, data):
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_a_file_has_as_many_digits_as_count():
    """Four; of products, whose differences count, and of angles more."""
    made = replace(
        measured(MANY), sensitivity=(MANY, 0.0), cfg_drop_error=(MANY,), angles=(MANY, 0.5),
        reused={1: {(-1, 0, 1): (MANY, -MANY, 0.25)}}, changes={"unet.a": (MANY,)},
        products=((MANY,), (0.5, MANY)), held_products={2: ((), ((MANY,), (0.5, MANY)))},
        products_as={"epsilon": ((MANY,),), "sample": ((0.5,), (MANY, 0.25))},
    )  # fmt: skip
    assert made.to_dict() == {
        "model": "puppet", "model_hash": "abc", "num_inference_steps": 2, "scheduler": "DDIMScheduler",
        "guidance_scale": 2.5, "clips": 1, "num_frames": 4, "sensitivity": [1.235, 0.0],
        "cfg_drop_error": [1.235], "reused": {1: {"-1 0 1": [1.235, -1.235, 0.25]}},
        "changes": {"unet.a": [1.235]}, "products": [[1.23456712346], [0.5, 1.23456712346]],
        "held_products": {2: [[], [[1.2345671], [0.5, 1.2345671]]]}, "angles": [1.2345671, 0.5],
        "products_as": {"epsilon": [[1.234567123]], "sample": [[0.5], [1.234567123, 0.25]]},
    }  # fmt: skip


def test_everything_comes_back_from_a_file_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "c.yaml"
    measured(0.5).save(path)
    assert load_calibration(path) == measured(0.5)
    assert load_products(path) == ((0.5,), (1.0, 1.5))


def test_a_file_is_short_and_begins_with_what_it_holds_for(tmp_path):
    replace(measured(), sensitivity=(0.125,) * 50).save(tmp_path / "c.yaml")
    lines = (tmp_path / "c.yaml").read_text().splitlines()
    assert lines[:3] == ["model: puppet", "model_hash: abc", "num_inference_steps: 2"]
    (row,) = [line for line in lines if line.startswith("sensitivity: [0.125, 0.125, ")]
    assert 110 < len(row) < 130, "rows of numbers are folded at about 120"
    assert "    -1 0 1: [6.0, 0.0, 0.0]" in lines


def test_files_of_older_versions_are_read(tmp_path):
    new = FIELDS | {"sensitivity": [1.5, 2.0], "cfg_drop_error": [0.5, 0.75]}
    old = {k: v for k, v in new.items() if k not in ("sensitivity", "cfg_drop_error")}
    old |= {"gains": [1.5, 2.0], "gate": [0.5, 0.75]}
    found = load_calibration(write(tmp_path / "old.yaml", old))
    assert found == load_calibration(write(tmp_path / "new.yaml", new))
    assert (found.sensitivity, found.cfg_drop_error) == ((1.5, 2.0), (0.5, 0.75))
    assert found.products == () and found.held_products == {} and found.products_as == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "it cannot be read: no such file or directory"),
        ("[1, 2]", "it holds no fields"),
        ("{a: ", "this is no YAML in line 1: "),
        (FIELDS | {"clips": "some"}, "a calibration: clips=some is not possible; give a whole number"),
        ({k: v for k, v in FIELDS.items() if k != "changes"}, "a calibration needs changes=VALUE"),
        (FIELDS | {"reused": [1]}, "its segments cannot be read ('list' object has no attribute 'items')"),
        (FIELDS | {"reused": {0: {"0 1": [1.0, 0.0, 0.0]}}}, "its segments cannot be read (not enough"),
        (FIELDS | {"reused": {"x": {}}}, "its segments cannot be read (invalid literal for int()"),
        (FIELDS, "it holds no products of predictions"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named_with_the_reason(data, reason, tmp_path):
    path = tmp_path / "c.yaml"
    if data is not None:
        write(path, data)
    with pytest.raises(PlanError) as told:
        load_products(path)
    assert str(told.value).startswith(f'calibration "{path}" cannot be used: {reason}')
    assert str(told.value).endswith("; write one with hgc-video calibrate")


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (None, "a calibration needs scheduler=VALUE"),
        (3, "a calibration: scheduler=3 is not possible"),
    ],
)
def test_what_is_wrong_with_the_setting_is_named_as_in_the_file(scheduler, reason, tmp_path):
    path = tmp_path / "c.yaml"
    measured().save(path)
    told = yaml.safe_load(path.read_text())
    del told["scheduler"]
    write(path, {**told, "scheduler": scheduler} if scheduler else told)
    with pytest.raises(PlanError) as error:
        load_calibration(path)
    assert f"cannot be used: {reason}" in str(error.value)


def test_a_mean_is_of_every_number_and_weighs_clips():
    """One clip of 1 and three of 2: 1.75 of everything."""
    assert mean([measured(1.0, 1), measured(2.0, 3)]) == measured(1.75, 4)
    assert mean([measured(2.0, 5)]) == measured(2.0, 5)


@pytest.mark.parametrize(
    "short",
    [
        {"sensitivity": (1.0,)}, {"products": ((1.0,),)},
        {"held_products": {**measured().held_products, 1: ((),)}},
        {"products_as": {"epsilon": ((1.0,),), "sample": ((1.0,),)}},
    ],
)  # fmt: skip
def test_parts_of_other_lengths_have_no_mean(short):
    with pytest.raises(ValueError):
        mean([measured(), replace(measured(), **short)])


def test_a_layer_is_refreshed_where_its_changes_have_added_up_beyond_the_threshold():
    """Block Caching eq. 7: the change up to step 0 counts nothing, and the sum begins anew at a refresh."""
    changes = (9.0, 0.5, 0.5, 0.25, 1.25, 0.5, 0.5, 0.25)
    assert refresh_steps(changes, 1.0) == (0, 3, 4, 7)
    assert refresh_steps(changes, 0.0) == tuple(range(8))
    assert refresh_steps(changes, 9.0) == (0,)


def test_changes_are_read_alone_and_for_their_own_run(tmp_path):
    told = {
        "model": "own",
        "num_inference_steps": 2,
        "changes": {"unet.a": [0.0, 0.5]},
        "clips": "?",
    }
    path = write(tmp_path / "c.yaml", told)
    found = load_changes(path, 2)
    assert found == Changes("own", 2, {"unet.a": (0.0, 0.5)})
    assert found.of("unet.a") == (0.0, 0.5)
    with pytest.raises(PlanError, match=r"of own knows no layer unet\.b; .*hgc-video calibrate"):
        found.of("unet.b")
    with pytest.raises(PlanError, match=r"for 2 steps and the run has 3; .*hgc-video calibrate"):
        load_changes(path, 3)
    with pytest.raises(
        PlanError, match=r'c\.yaml" cannot be used: a calibration needs model=VALUE'
    ):
        load_changes(write(path, {"num_inference_steps": 2, "changes": {}}), 2)
