"""Preprocessors by name: texts, parameters with ranges, and what is told of each."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.errors import InputError
from hgc_video.options import CONTROL_KINDS, GenerateOptions
from hgc_video.preprocess.registry import (
    PREPROCESSORS,
    choose_preprocessors,
    listed,
    make_preprocessor,
)


def test_a_text_names_a_preprocessor_and_its_parameters():
    canny = make_preprocessor("canny:low=50,blur=1.5")
    assert (canny.low, canny.high, canny.blur) == (50, 200, 1.5)
    assert make_preprocessor(canny.text) == canny and make_preprocessor("canny").text == "canny"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cany", 'did you mean "canny"'),
        ("canny:lo=3", 'canny has no field "lo": did you mean "low"'),
        ("canny:low=0", "low=0 is not possible; give 1 or more"),
        ("canny:low", "write low=VALUE"),
        ("canny:low=200,high=100", "low=200 is above high=100"),
        ("lineart:sigma=wide", "give a number"),
    ],
)
def test_what_is_not_possible_is_told_in_one_line(text, says):
    with pytest.raises(InputError, match=says) as told:
        make_preprocessor(text)
    assert "\n" not in str(told.value) and str(told.value).count("canny:") < 2


def test_what_generate_is_given_chooses_by_kind():
    both = ("canny", "lineart")
    assert choose_preprocessors(False, both) == {}
    assert set(choose_preprocessors(True, both)) == {"canny", "lineart"}
    made = choose_preprocessors("canny:low=9+lineart", both)
    assert made["canny"].low == 9 and made["lineart"].sigma == 6
    assert set(choose_preprocessors("lineart", both)) == {"lineart"}  # the other is a ready clip
    by_kind = {"canny": {"low": 9}, "lineart": False}
    assert choose_preprocessors(by_kind, both)["canny"].low == 9
    assert choose_preprocessors({"canny": "canny:low=9"}, both) == {
        "canny": make_preprocessor("canny:low=9")
    }


@pytest.mark.parametrize(
    ("extract", "says"),
    [
        ("lineart", "no lineart clip is given"),
        ({"lineart": True}, "no lineart clip is given"),
        ({"canny": "lineart"}, "lineart makes lineart, not canny"),
        ({"canny": 3}, "give True, False"),
        ("canny+canny:low=3", "names two for canny"),
    ],
)
def test_what_generate_cannot_extract(extract, says):
    with pytest.raises(InputError, match=says):
        choose_preprocessors(extract, ["canny"])


def test_generate_takes_what_the_registry_knows():
    for extract in (True, "canny", {"canny": {"low": 3}}):
        assert GenerateOptions(control_video="a", prompt="b", control="canny", extract=extract)
    with pytest.raises(InputError, match="extract=3 is not possible"):
        GenerateOptions(control_video="a", prompt="b", extract=3)


def test_every_preprocessor_is_listed_with_ranges_and_defaults():
    told = {one["name"]: one for one in listed()}
    assert set(told) == set(PREPROCESSORS)
    low = told["canny"]["parameters"][0]
    assert low == {
        "name": "low", "type": "integer", "default": 100, "minimum": 1, "maximum": 255,
        "choices": None, "description": "weaker edges than this are left out",
    }  # fmt: skip
    for one in told.values():
        assert one["control"] in CONTROL_KINDS and one["about"]
        for parameter in one["parameters"]:
            assert parameter["description"] and parameter["type"], (one["name"], parameter)
            if parameter["type"] in ("integer", "number"):
                bounds = (parameter["minimum"], parameter["maximum"])
                assert None not in bounds, (one["name"], parameter["name"])
    shown = CliRunner().invoke(app, ["extract", "--list", "--json"])
    assert json.loads(shown.stdout) == listed()
    table = CliRunner().invoke(app, ["extract", "--list"]).stdout
    assert "low=100" in table and all(name in table for name in PREPROCESSORS)


def test_an_extracted_depth_clip_is_not_inverted_in_silence():
    with pytest.raises(InputError, match="this one is extracted, near bright"):
        hgc_video.generate(
            "no-such-film.mp4",
            "a dancer",
            control="depth",
            extract="depth:model=puppet",
            invert_depth=True,
        )
