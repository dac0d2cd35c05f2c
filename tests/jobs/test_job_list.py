"""Lists of jobs: shots times seeds times values, each under a name of its own."""

from __future__ import annotations

import json

import pytest
import yaml

from hgc_video.errors import HGCVideoError, InputError
from hgc_video.jobs import job_list
from hgc_video.jobs.job_list import parse_matrix, read_jobs
from hgc_video.jobs.result_names import check_pattern, default_pattern, result_name
from hgc_video.jobs.shot import read_shot

from .conftest import ROOT


@pytest.fixture
def jobs(tmp_path, tiny):
    """Writes a list of jobs and gives its jobs by name."""

    def read(told=None, **more):
        (tmp_path / "jobs.yaml").write_text(told or yaml.safe_dump({"defaults": tiny, **more}))
        return {job.name: job for job in read_jobs(tmp_path / "jobs.yaml").jobs()}

    return read


def test_shots_times_values_times_seeds(jobs, tmp_path):
    listed = [{"name": "red", "seed": 7}, {"prompt": "a dancer"}]
    made = jobs(jobs=listed, seeds=2, matrix={"preset": ["off", "hgc:interval=3,depth=1"]})
    assert list(made) == [
        "red-off-seed7.mp4", "red-off-seed8.mp4", "red-hgc_interval=3_depth=1-seed7.mp4",
        "red-hgc_interval=3_depth=1-seed8.mp4", "job0002-off-seed0.mp4", "job0002-off-seed1.mp4",
        "job0002-hgc_interval=3_depth=1-seed0.mp4", "job0002-hgc_interval=3_depth=1-seed1.mp4",
    ]  # fmt: skip
    red = made["red-off-seed8.mp4"].options
    assert red["seed"] == 8 and red["control"] == {"pose": str(tmp_path / "pose.mp4")}
    assert (
        len({job.key for job in made.values()}) == 8
        and len({j.loading for j in made.values()}) == 1
    )


def test_a_folder_of_shots_and_a_list_that_names_them(jobs, tmp_path, tiny):
    for name in ("b.yaml", "a.yaml", "c.yml", "d.txt"):
        (tmp_path / name).write_text(yaml.safe_dump({**tiny, "seed": ord(name[0])}))
    assert [job.name for job in read_jobs(tmp_path).jobs()] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [job.name for job in read_jobs(tmp_path / "a.yaml").jobs()] == ["a.mp4"]
    made = jobs(jobs=[{"shot": "a.yaml"}, {"shot": "b.yaml", "name": "c", "preset": "off"}])
    assert list(made) == ["a.mp4", "c.mp4"] and made["c.mp4"].options["preset"] == "off"
    with pytest.raises(HGCVideoError, match=r'a\.yaml: .*did you mean "balanced"'):
        jobs(jobs=[{"shot": "a.yaml", "preset": "balnced"}])


def test_a_job_is_another_when_its_clip_is_another(jobs, tmp_path):
    first = jobs(jobs=[{}])["job0001.mp4"]
    assert jobs(jobs=[{"device": "cpu"}])["job0001.mp4"].key == first.key, (
        "the device is no other clip"
    )
    assert jobs(jobs=[{"seed": 1}])["job0001.mp4"].key != first.key
    (tmp_path / "pose.mp4").write_bytes((tmp_path / "pose.mp4").read_bytes() + b"x")
    assert jobs(jobs=[{}])["job0001.mp4"].key != first.key


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"jobs": []}, "jobs is a list"), ({"jobs": ["a"]}, "job 1 and defaults are mappings"),
        ({"jobs": [{"presett": 1}]}, 'job 1: unknown option "presett": did you mean "preset"'),
        ({"jobs": [{}], "sedes": 2}, 'unknown key "sedes": did you mean "seeds"'),
        ({"jobs": [{"name": "a"}, {"name": "A"}]}, 'two jobs, of a and of A, would both be "A.mp4"'),
        ({"jobs": [{}], "matrix": {"preset": "off"}}, r"jobs\.yaml: matrix is lists of values"),
        ({"jobs": [{}], "matrix": {"out": ["a.mp4"]}}, "named by a pattern"),
        ({"jobs": [{}], "seeds": 0}, "seeds=0 is not possible"),
        ({"jobs": [{"seed": None}], "seeds": 2}, r"jobs\.yaml: seed=None cannot be counted on"),
        ({"jobs": [{"control": {"pose": "gone.mp4"}}]}, r"jobs\.yaml: no file .*gone\.mp4"),
        ({"jobs": [{"control": {"pose": "../pose.mp4"}}]}, "lies outside"),
        ({"jobs": [{"shot": "../a.yaml"}]}, "of shot lies outside"),
        ({"jobs": [{"preset": "balnced"}]}, r'jobs\.yaml: .*did you mean "balanced"'),
        ({"jobs": [{"devices": 2}]}, r"jobs\.yaml: a batch makes .*, and devices=2 is given"),
        ({"jobs": [{}], "name": "{nmae}"}, 'no field "nmae": did you mean "name"'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_line(jobs, more, says):
    with pytest.raises(HGCVideoError, match=says) as told:
        jobs(**more)
    assert "\n" not in str(told.value)


def test_an_empty_folder_and_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="holds no shot files"):
        read_jobs(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_jobs(tmp_path / "gone.yaml")


def test_the_examples_are_a_shot_and_twelve_jobs():
    assert read_shot(ROOT / "examples" / "shot.yaml").checked().num_frames == 16
    names = [job.name for job in read_jobs(ROOT / "examples" / "jobs.yaml").jobs()]
    assert len(names) == 12 and "forest-fast-seed1.mp4" in names and "shot-fast-seed0.mp4" in names


def test_values_of_the_command_line():
    read = parse_matrix(
        ["preset=balanced,fast", "seed=[3, 4]", "preset=['hgc:interval=3,depth=1']"]
    )
    assert read == {"preset": ["balanced", "fast", "hgc:interval=3,depth=1"], "seed": [3, 4]}
    for text, says in (
        ("preset", "OPTION=VALUE"),
        ("preset=", "OPTION=VALUE"),
        ("prest=a", '^--matrix: unknown option "prest": did you mean'),
    ):
        with pytest.raises(InputError, match=says):
            parse_matrix([text])


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("../{name}", "names no file"), ("/a/{name}", "names no file"), ("~/a", "names no file"),
        ("a/", "names no file"), ("", "names no file"), ("{name!r}", "no field"),
        ("{name", "not possible"), ("{name.x}", "no field"), ("{0}", "no field"), ("{number:x}", "write"),
        ("{name}.txt", "unknown suffix"), ("{}", "no field"), ("a\0", "printable"), ("{name}\n", "printable"),
        ("{number:0999999999}", "write"), ("{number:0\u0663}", "write"),
    ],
)  # fmt: skip
def test_patterns_that_cannot_be(pattern, says):
    with pytest.raises(InputError, match=says):
        check_pattern(pattern)


def test_names_are_made_of_a_pattern():
    varied = default_pattern(["preset", "num_frames", "seed"])
    assert varied == "{name}-{preset}-numframes{num_frames}-seed{seed}"
    pattern = check_pattern("{preset}/{number:03}-{name}")
    assert result_name(pattern, "a", 7, {"preset": "off"}) == "off/007-a.mp4"
    assert check_pattern("{name}.gif") == "{name}.gif"
    assert check_pattern("{number:03d}-v1.2") == "{number:03d}-v1.2.mp4", "2 is no suffix"
    assert check_pattern("{name}.m{number}p4") == "{name}.m{number}p4.mp4", "the last text has none"
    assert check_pattern("{name}.v{number}") == "{name}.v{number}.mp4"
    assert result_name("{prompt}.mp4", "a", 1, {"prompt": "../../etc: x"}) == "etc_x.mp4"
    assert result_name("{fps}-{seed}.mp4", "a", 1, {"fps": 7.5}) == "7.5-0.mp4"
    assert result_name("{seed:03}-{name:03}.mp4", "X", 1, {"seed": None}) == "None-X.mp4"
    assert result_name("{prompt}.mp4", "a", 1, {"prompt": "?"}) == "none.mp4"
    assert default_pattern(["model", "control"]) == "{name}-{model}-{control}"


@pytest.mark.parametrize(
    "told",
    [
        {"name": 7}, {"name": {"a": 1}}, {"jobs": [{"control": {"pose": 7}}]}, {"jobs": [{"video": {}}]},
        {"jobs": [{"image": [1]}]}, {"jobs": [{"control_video": True}]},
    ],
)  # fmt: skip
def test_names_and_inputs_are_texts(tmp_path, told):
    (tmp_path / "pose.mp4").write_bytes(b"a clip")
    usual = {"jobs": [{"prompt": "a", "control": {"pose": "pose.mp4"}}]}
    (tmp_path / "jobs.yaml").write_text(json.dumps({**usual, **told}))
    with pytest.raises(InputError, match="is not possible; give a pa"):
        list(read_jobs(tmp_path / "jobs.yaml").jobs())


@pytest.mark.parametrize("seeds", ["many", True, 0, 2.5, [1]])
def test_seeds_are_a_whole_number(tmp_path, seeds):
    (tmp_path / "jobs.yaml").write_text(json.dumps({"jobs": [{"prompt": "a"}], "seeds": seeds}))
    with pytest.raises(InputError, match="seeds="):
        list(read_jobs(tmp_path / "jobs.yaml").jobs())


def test_no_more_jobs_than_are_allowed(jobs, monkeypatch):
    told = {"jobs": [{}, {}], "matrix": {"preset": ["off", "balanced"]}, "seeds": 3}
    monkeypatch.setattr(job_list, "MOST_JOBS", 12)
    assert len(jobs(**told)) == 12
    monkeypatch.setattr(job_list, "MOST_JOBS", 11)
    with pytest.raises(InputError, match=r"^12 jobs are more than 11; make several batches$"):
        jobs(**told)


def test_a_job_is_of_its_shot_its_number_and_its_model(jobs):
    listed = [{"seed": None, "out": "b.mp4"}, {"dtype": "float16"}, {"device": "cpu"}]
    made = jobs(jobs=listed, name="{number}-{name}")
    assert list(made) == ["1-job0001.mp4", "2-job0002.mp4", "3-job0003.mp4"]
    first, half, on_cpu = made.values()
    assert first.options["seed"] is None, "one seed is not counted on"
    assert "out" not in first.options
    assert first.loading == on_cpu.loading != half.loading


def test_paths_lead_out_of_a_folder_where_that_is_allowed(tmp_path, tiny):
    """In a shot file of a folder, one that is named itself, a job's options, and a file that a job names."""
    shot = {**tiny, "control": {"pose": "../pose.mp4"}}
    folder, listed = tmp_path / "folder", tmp_path / "listed"
    folder.mkdir(), listed.mkdir()
    for path, told in (
        (tmp_path / "beside.yaml", tiny),
        (folder / "shot.yaml", shot),
        (listed / "shot.yaml", shot),
        (listed / "options.yaml", {"jobs": [shot]}),
        (listed / "outside.yaml", {"jobs": [{"shot": "../beside.yaml"}]}),
        (listed / "inside.yaml", {"jobs": [{"shot": "shot.yaml"}]}),
    ):
        path.write_text(yaml.safe_dump(told))
    sources = folder, *sorted(listed.iterdir())
    for source in sources:
        with pytest.raises(InputError, match="lies outside"):
            read_jobs(source)
        (job,) = read_jobs(source, allow_outside=True).jobs()
        assert job.options["control"] == {"pose": str(tmp_path / "pose.mp4")}
