"""The text of errors, and input that Python's own readers refuse by other errors than ours."""

from __future__ import annotations

import pytest

from hgc_video.errors import HGCVideoError, InputError, ModelError, VideoError, text_of
from hgc_video.evaluate.results_file import ResultsFile
from hgc_video.jobs.checkpoint.durable import COMPLETE, fault_of, read_json
from hgc_video.jobs.queue import options_of
from hgc_video.jobs.shot import place_paths
from hgc_video.models.config_file import read_config
from hgc_video.options.values import span_of
from hgc_video.plain_data import is_whole, parse_json
from hgc_video.report import Report
from hgc_video.sampling.configuration import parsed

DEEP = ("[" * 100_000, '{"a":' * 100_000)


@pytest.mark.parametrize("kind", [HGCVideoError, InputError, VideoError, ModelError])
def test_an_error_is_one_line_of_printable_letters_whatever_it_quotes(kind):
    """A name of a file that is quoted could clear the screen, or turn the line around."""
    error = kind('unknown "a\n\x1b[2J\u202eb\ud800é\xa0c"')
    assert str(error) == r'unknown "a \x1b[2J\u202eb\ud800é c"'
    assert str(error).encode("utf-8") and str(kind()) == ""


def test_a_text_without_such_letters_stays_as_it_is():
    assert text_of('"ein Tänzer", 踊り手 🕺') == '"ein Tänzer", 踊り手 🕺'
    assert text_of(UserWarning("two\n  lines ")) == "two lines"


@pytest.mark.parametrize("text", DEEP)
def test_json_that_is_nested_too_deep_is_no_json(text, tmp_path):
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(text)
    with pytest.raises(InputError, match="this is no report: it is nested too deep"):
        Report.from_json(text)
    with pytest.raises(InputError, match="carries no configuration"):
        parsed(text, "clip.mp4")
    for name in (COMPLETE, "config.json", "rows.jsonl"):
        (tmp_path / name).write_text(text)
    assert read_json(tmp_path / "config.json") is None
    assert fault_of(tmp_path) == "it is not complete (it is nested too deep)"
    with pytest.raises(ModelError, match="nested too deep"):
        read_config(tmp_path)
    rows = ResultsFile(tmp_path / "rows.jsonl")
    rows.add("a", [{"number": 1}])
    assert rows.read("a") == [{"number": 1}]


def test_a_number_of_thousands_of_digits_is_none():
    """`int` refuses them (ValueError), `str.isdecimal` does not."""
    long = "9" * 5000
    assert is_whole("0") and is_whole("9" * 15)
    assert not any(map(is_whole, (long, "9" * 16, "", "-1", "1.0", " 1")))
    for text in (f"{long}:", f"0:{long}"):
        with pytest.raises(InputError, match="is not possible; write START:STOP"):
            span_of(text)
    assert options_of(f'{{"prompt": {{"{long}": "a", "8": "b"}}}}')["prompt"] == {long: "a", 8: "b"}


def test_a_prompt_at_a_frame_of_thousands_of_digits_is_left_for_the_check(tmp_path):
    told = place_paths({"prompt": {"9" * 5000: "a", "8": "b"}}, tmp_path, allow_outside=False)
    assert told["prompt"] == {"9" * 5000: "a", 8: "b"}
