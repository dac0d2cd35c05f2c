"""Samples of a list and of the embedded model: which they are, what tells them apart, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from hgc_video.errors import InputError
from hgc_video.evaluate.samples import SampleSet, read_samples, sample_set

_PUPPET = ("puppet", None, 6000)


def listed(folder, *entries):
    path = folder / "samples.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def entry(**others):
    return {"control": "a.mp4", "kind": "pose", "prompt": "a dancer", "seed": 1, **others}


def test_a_list_is_taken_whole_or_as_far_as_asked_and_never_further(tmp_path):
    path = listed(tmp_path, entry(), {"control": "b.mp4", "prompt": "a cat"})
    first, second = read_samples(path)
    assert (first.control, first.kind, first.prompt, first.seed) == (
        str(tmp_path / "a.mp4"), "pose", "a dancer", 1,
    )  # fmt: skip
    assert (second.kind, second.prompt, second.seed) == ("pose", "a cat", 0)
    assert sample_set("some/folder", path, 0, None, 2).samples() == [first, second]
    assert sample_set("some/folder", path, 0, 1, 2).samples() == [first]
    with pytest.raises(InputError, match=r"3 samples are asked for and .* lists 2"):
        sample_set("some/folder", path, 0, 3, 2).samples()
    with pytest.raises(InputError, match="brings no clips of its own"):
        sample_set("some/folder", None, 0, None, 2).samples()


def test_the_embedded_models_own_are_four_unless_asked_otherwise():
    assert sample_set(*_PUPPET, None, 1).identities() == [6000, 6001, 6002, 6003]
    own = sample_set(*_PUPPET, 2, 3).samples()
    assert [sample.kind for sample in own] == ["pose", "depth"]
    assert [np.shape(sample.control) for sample in own] == [(3, 128, 128, 3)] * 2
    with pytest.raises(InputError, match="more than 20000 frames"):
        sample_set(*_PUPPET, 2, 10_001)


@pytest.mark.parametrize(
    "changed", [{"prompt": "a cat"}, {"seed": 2}, {"kind": "depth"}, {"control": "b.mp4"}]
)
def test_a_sample_is_another_one_where_anything_of_it_changes(tmp_path, changed):
    """What was measured of a sample must not stand for another at its place in the list."""
    (tmp_path / "a.mp4").write_bytes(b"one")
    (tmp_path / "b.mp4").write_bytes(b"two")
    before = SampleSet("some/folder", listed(tmp_path, entry()), 0, 1, 2)
    ids = before.identities(), before.list_identity()
    (tmp_path / "elsewhere").mkdir()
    copy = listed(tmp_path / "elsewhere", entry(control="../a.mp4"))
    same = SampleSet("some/folder", copy, 0, 1, 2)
    assert (same.identities(), same.list_identity()) == ids
    listed(tmp_path, entry(**changed))
    assert before.identities() != ids[0]
    assert before.list_identity() != ids[1]


def test_a_clip_of_the_same_name_is_another_one_where_its_bytes_are(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    samples = SampleSet("some/folder", listed(tmp_path, entry()), 0, 1, 2)
    before = samples.identities()
    (tmp_path / "a.mp4").write_bytes(b"another")
    assert samples.identities() != before
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(InputError, match=r"a\.mp4\" cannot be read: no such file"):
        samples.identities()


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (entry(prompt=None), "sample 1: prompt="),
        (entry(seed=1.5), "sample 1: seed=1.5 is not possible; give a whole number"),
        (entry(seed=-1), "seed=-1 is not possible; give 0 or more"),
        (entry(seed=True), "sample 1: seed="),
        (entry(kind="posse"), 'kind "posse": did you mean "pose"'),
        (entry(negative_prompt="blurred"), 'has no field "negative_prompt"'),
        (entry(control=""), "control= is not possible; give a text that is not empty"),
        ({"prompt": "a"}, "sample 1 needs control=VALUE"),
        ("a.mp4", "sample 1 is 'a.mp4'"),
        ({1: 2}, "sample 1 is"),
    ],
)
def test_a_damaged_sample_is_told_in_one_line(tmp_path, spoilt, told):
    with pytest.raises(InputError) as caught:
        read_samples(listed(tmp_path, spoilt))
    assert told in str(caught.value)
    assert "no list of samples" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_list_and_what_is_none_are_refused(tmp_path):
    for text in ("", "[]", "a: 1", "[1"):
        (tmp_path / "samples.yaml").write_text(text)
        with pytest.raises(InputError, match="no list of samples"):
            read_samples(tmp_path / "samples.yaml")


@pytest.mark.parametrize("name", ["count", "num_frames"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5])
def test_numbers_are_whole_and_one_or_more(name, value):
    given = {"count": 1, "num_frames": 1, name: value}
    with pytest.raises(InputError, match=rf"{name}={value} is not possible; give 1 or more"):
        SampleSet("puppet", None, 0, **given)
