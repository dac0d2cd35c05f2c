"""Plain data of YAML: what is read, and in what words everything else is refused, on one line."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
import yaml

from hgc_video.errors import InputError
from hgc_video.plan.plain_yaml import parse_plain, read_plain

# A value that is nested 1500 deep by aliases, in a flat text: of keys that are the same the last counts.
DEEP_BY_ALIASES = "k: &v0 [1]\n" + "".join(f"k: &v{i + 1} [*v{i}]\n" for i in range(1500))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: c: d", "this is no YAML in line 2: mapping values are not allowed here"),
        ("a: [1,", "this is no YAML in line 1: expected the node content, but found '<stream end>'"),
        ("a: \x07", "this is no YAML: unacceptable character #x0007: special characters are not "
                    'allowed in "<unicode string>", position 3'),
        ("a: 2024-13-01", "this YAML cannot be read: month must be in 1..12"),
        ("[" * 1000, "this YAML cannot be read: it is nested too deep"),
        (DEEP_BY_ALIASES, "this YAML cannot be read: it is nested too deep"),
        ("a: &a [1, *a]", "this YAML cannot be read: a value holds itself"),
        ("&a {b: {c: *a}}", "this YAML cannot be read: a value holds itself"),
    ],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused_in_one_line(text, said):
    with pytest.raises(InputError) as told:
        parse_plain(text)
    assert str(told.value) == said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none.yaml", "it cannot be read: no such file or directory"),
        (".", "it cannot be read: is a directory"),
        ("a\0b", "it cannot be read: embedded null"),
        ("~no-such-user-here/a.yaml", "it cannot be read: could not determine home directory."),
    ],
)
def test_a_file_that_cannot_be_read_says_why(path, said, tmp_path):
    with pytest.raises(InputError) as told:
        read_plain(Path(path) if path[0] == "~" else tmp_path / path)
    assert str(told.value).startswith(said)


def test_a_pipe_that_nobody_may_write_to_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    (tmp_path / "link.yaml").symlink_to("a.yaml")
    for path in (tmp_path / "a.yaml", tmp_path / "link.yaml", Path("/dev/zero")):
        with pytest.raises(InputError, match=r"^it is a device or a pipe$"):
            read_plain(path)


def test_a_pipe_that_is_open_already_is_read():
    """As bash's `<(...)` is."""
    for place in ("/dev/fd", "/proc/self/fd"):
        end, begin = os.pipe()
        try:
            with os.fdopen(begin, "wb") as file:
                file.write(b"a: 1")
            assert read_plain(Path(place) / str(end)) == {"a": 1}
        finally:
            os.close(end)


def test_a_file_is_text_in_utf_8(tmp_path):
    (tmp_path / "a.yaml").write_bytes("[größer, 東京]".encode())
    assert read_plain(tmp_path / "a.yaml") == ["größer", "東京"]
    (tmp_path / "a.yaml").write_bytes("[größer]".encode("latin-1"))
    with pytest.raises(InputError, match=r"^it is no text in UTF-8$"):
        read_plain(tmp_path / "a.yaml")


def test_a_file_may_be_as_large_as_the_limit_and_is_not_read_beyond_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a" * 100)
    assert read_plain(path, most_nbytes=100) == "a" * 100
    with pytest.raises(InputError, match="larger than"):
        read_plain(path, most_nbytes=99)
    path.write_bytes(bytes(2**24))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"^it is larger than 3 MiB$"):
            read_plain(path, most_nbytes=3 * 2**20)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_values_are_counted_wherever_they_stand_in_lists_and_mappings(monkeypatch):
    """A mapping or a list is one value beside what it holds: 1 + (1 + 2) + (1 + 1 + (1 + 1))."""
    monkeypatch.setenv("HGC_VIDEO_MAX_YAML", "8")
    assert parse_plain("a: [1, 2]\nb: {c: 3, d: [4]}") == {"a": [1, 2], "b": {"c": 3, "d": [4]}}
    with pytest.raises(
        InputError, match=r"stands for 9 values, more than 8; .* HGC_VIDEO_MAX_YAML"
    ):
        parse_plain("a: [1, 2]\nb: {c: 3, d: [4, 5]}")


def test_a_loader_of_ones_own_reads_its_tags(tmp_path):
    class Doubling(yaml.SafeLoader):
        """Knows !twice."""

    Doubling.add_constructor("!twice", lambda loader, node: 2 * int(node.value))
    (tmp_path / "a.yaml").write_text("a: !twice 21")
    assert read_plain(tmp_path / "a.yaml", Doubling) == parse_plain("a: !twice 21", Doubling)
    assert read_plain(tmp_path / "a.yaml", Doubling) == {"a": 42}
    with pytest.raises(InputError, match="in line 1: could not determine a constructor"):
        read_plain(tmp_path / "a.yaml")
