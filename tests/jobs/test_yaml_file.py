"""YAML as people mean it: `off` is a word, a time is text, and no key is lost."""

from __future__ import annotations

import pytest
import yaml

from hgc_video.errors import InputError
from hgc_video.jobs.yaml_file import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("no", "no"), ("true", True), ("12:30", "12:30"), ("1e-3", 0.001), ("010", 10),
        ("-2.5", -2.5), (".5", 0.5), ("~", None), ("", None), ("2026-11-25", "2026-11-25"),
        ("{0: a, 48: b}", {0: "a", 48: "b"}), ("0x10", "0x10"), ("1_000", "1_000"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert parse_yaml(text) == value


def test_other_readers_of_yaml_stay_as_they_are():
    assert yaml.safe_load("a: off\nb: 12:30") == {"a": False, "b": 750}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", '"a" is given twice'), ("- b: 1\n  b: 2", '"b" is given twice'),
        ("a: [1", "no YAML in line"), ("!!python/object:os.system x", "could not determine a constructor"),
        ("a: *x", "undefined alias"), ("{[1]: 2}", "unhashable"),
        ("{[1]: 2, [3]: 4}", "unhashable"),  # two keys, not one that is given twice
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_one_line(text, says):
    with pytest.raises(InputError, match=says) as told:
        parse_yaml(text)
    assert "\n" not in str(told.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.yaml.*no such file"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"b\.yaml.*UTF-8"):
        read_yaml(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("x" * (2**20 + 1))
    with pytest.raises(InputError, match=r"c\.yaml.*larger than"):
        read_yaml(tmp_path / "c.yaml")


def test_a_file_is_read_as_a_text_is(tmp_path):
    (tmp_path / "a.yaml").write_text("a: off\nb: 12:30\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": "off", "b": "12:30"}
