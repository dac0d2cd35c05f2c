"""Whatever is given, the answer is a result or an error of ours in one line: options, shot files, policies,
schedules, YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hgc_video.errors import HGCVideoError
from hgc_video.jobs.shot import shot_of
from hgc_video.options import GenerateOptions
from hgc_video.plan.calibration import calibration_of
from hgc_video.plan.plain_yaml import parse_plain
from hgc_video.plan.policies.registry import POLICIES
from hgc_video.plan.presets import PRESETS, resolve
from hgc_video.plan.schedule import Schedule

quick = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["off", "balanced", "8GiB", "0:9", "../x", "/x", "~", "a.mp4", "1e3", "\x00", 10**400]),
)  # fmt: skip
VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=6), st.integers(), st.none()), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def _nowhere(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("nowhere"))


def answered(call):
    """Calls; an error must be one of ours and a line."""
    try:
        return call()
    except HGCVideoError as error:
        assert str(error) and "\n" not in str(error), error
        return None


in_one_folder = settings(
    quick, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@in_one_folder
@given(name=st.sampled_from(sorted(GenerateOptions.model_fields)), value=VALUES)
def test_every_option(name, value):
    usual = {"control": {"pose": "pose.mp4"}, "prompt": "a dancer"}
    if name == "control_video":
        del usual["control"]
    answered(lambda: GenerateOptions(**{**usual, name: value}))


HARD = (
    10**400, -(10**400), float("nan"), float("inf"), -1, 0, "", "\0", "a\0.mp4", [], {}, [[]],
    {"pose": 10**400}, {0: "\0"}, b"\0", 1j,
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(GenerateOptions.model_fields))
def test_every_option_with_what_is_hard(name, tmp_path):
    """From Python and from a shot file: what no sampling of values is left to find."""
    usual = {"control": {"pose": "pose.mp4"}, "prompt": "a dancer"}
    if name == "control_video":
        del usual["control"]
    for value in HARD:
        told = {**usual, name: value}
        answered(lambda told=told: GenerateOptions(**told))
        answered(lambda told=told: shot_of(told, tmp_path / "a.yaml", "a").checked())


@in_one_folder
@given(
    told=st.dictionaries(
        st.one_of(st.sampled_from(sorted(GenerateOptions.model_fields)), st.integers()),
        VALUES,
        max_size=4,
    )
)
def test_shot_files(told):
    folder = Path.cwd()
    shot = answered(lambda: shot_of(told, folder / "shot.yaml", "shot"))
    if shot is not None:
        answered(shot.checked)
        for name in ("out", "work", "video", "image"):
            if isinstance(path := shot.options.get(name), str):
                assert Path(path).is_relative_to(folder)


@pytest.mark.parametrize("scale", [10**400, -(10**400), float("nan"), float("inf"), True, "1"])
@pytest.mark.parametrize("given", ["conditioning_scale", "lora"])
def test_scales_are_numbers(given, scale):
    told = {"lora": {"a.safetensors": scale}, "conditioning_scale": {"pose": scale}}
    with pytest.raises(HGCVideoError, match="is not possible; give a number"):
        GenerateOptions(control={"pose": "a.mp4"}, prompt="a", **{given: told[given]})


_NAMES = st.sampled_from([*PRESETS, *POLICIES, "quality=45dB", "hgc:balanced", "", "dpm++"])
_FIELDS = st.sampled_from(
    ["interval", "depth", "gate", "steps", "file", "at", "order", "threshold", "x", ""]
)
_GIVEN = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=6),
    st.sampled_from(["true", "off", "1/2"]),
)
_ONE = st.builds(
    lambda name, fields: name + (":" + ",".join("=".join(f) for f in fields) if fields else ""),
    _NAMES,
    st.lists(st.tuples(_FIELDS, _GIVEN), max_size=3),
)


@quick
@given(text=st.one_of(st.lists(_ONE, max_size=3).map("+".join), st.text(max_size=20)))
def test_policies(text):
    answered(lambda: resolve(text))


@quick
@given(
    text=st.one_of(st.text(max_size=60), st.text(alphabet="{}[]:,&*!|>-? \n\t'\"#a1", max_size=40))
)
def test_yaml(text):
    answered(lambda: parse_plain(text))


@quick
@given(data=VALUES)
def test_schedules(data):
    answered(lambda: Schedule.from_dict(data))
    answered(lambda: Schedule.from_dict({"name": "x", "steps": data, "lossless": False}))


_MEASURED = (
    "model",
    "num_inference_steps",
    "clips",
    "sensitivity",
    "cfg_drop_error",
    "reused",
    "changes",
)


@quick
@given(data=st.dictionaries(st.sampled_from(_MEASURED), VALUES))
def test_calibrations(data):
    answered(lambda: calibration_of(data, Path("a.yaml")))
