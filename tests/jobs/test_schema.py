"""The JSON Schema of shot files says what the options say."""

from __future__ import annotations

import jsonschema
import pytest

from hgc_video.errors import InputError
from hgc_video.jobs.schema import shot_schema
from hgc_video.options import GenerateOptions

KINDS = ["pose", "depth", "canny", "softedge", "lineart"]


def test_the_schema_says_what_the_options_say(tiny):
    schema = shot_schema()
    assert set(schema["properties"]) == set(GenerateOptions.model_fields)
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid(tiny) and valid({**tiny, "prompt": {"0": "a"}, "dtype": None, "seed": None})
    assert valid({**tiny, "conditioning_scale": {"pose": 0.5}, "memory": "8GiB", "motion": None})
    for wrong in (
        {"presett": 1}, {"num_frames": 0}, {"seed": -1}, {"control": {"poze": "a"}}, {"fps": 0},
        {"prompt": {"x": "a"}}, {"conditioning_scale": -1}, {"dtype": "float8"}, {"seed": 2**63},
        {"image": 3}, {"extract": 3},
    ):  # fmt: skip
        assert not valid({**tiny, **wrong}), wrong
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read_shot_of({**tiny, **wrong})


def read_shot_of(options):
    """Checks options as a shot file's are; the model itself leaves a prompt by frames to the run."""
    from hgc_video.jobs.shot import check_options

    image = options.get("image")
    if isinstance(options.get("prompt"), dict) or image == 3:
        raise InputError("prompt and image are checked when the run begins")
    return check_options(options, "a.yaml")


def test_it_says_what_it_is():
    schema = shot_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (
        schema["title"] == "A shot of hgc-video" and "hgc_video.generate" in schema["description"]
    )
    assert schema["additionalProperties"] is False, "an unknown option is marked by an editor"


def test_every_option_has_its_default_and_its_meaning_and_no_name_of_a_class():
    for name, told in shot_schema()["properties"].items():
        field = GenerateOptions.model_fields[name]
        assert told["description"] == field.description, name
        assert told["default"] == field.default, name
        assert "title" not in told, name


def test_options_that_take_objects_in_python_have_the_form_of_a_file():
    told = shot_schema()["properties"]
    forms = {name: {k: v for k, v in told[name].items() if k in ("anyOf", "enum")} for name in told}
    assert (
        forms["control_video"]
        == forms["image"]
        == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    )
    assert forms["audio"] == {"anyOf": [{"type": "boolean"}, {"type": "string"}]}, "never null"
    assert forms["dtype"] == {"enum": ["float32", "float16", "bfloat16", None]}
    assert forms["control"]["anyOf"][0] == {"enum": KINDS}
    assert list(forms["control"]["anyOf"][1]["properties"]) == KINDS
    assert forms["extract"] == forms["fidelity"]


def test_bounds_have_the_names_of_json_schema():
    told = shot_schema()["properties"]
    seed, fps = told["seed"]["anyOf"][0], told["fps"]["anyOf"][0]
    assert seed == {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63}
    assert fps == {"type": "number", "exclusiveMinimum": 0}
    assert not {"ge", "gt", "le", "lt"} & {k for one in told.values() for k in one}
