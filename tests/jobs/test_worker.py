"""A worker makes the clips of tasks in this process: what it writes, keeps and tells, and how tasks end."""

from __future__ import annotations

import errno
import hashlib
import threading
import warnings
from pathlib import Path

import pytest

from hgc_video import run_shot
from hgc_video.errors import (
    Cancelled,
    InputError,
    ModelError,
    collected_warnings,
    internal_error,
    warn,
)
from hgc_video.jobs.loaded_model import LoadedModel
from hgc_video.jobs.run import run_configuration
from hgc_video.jobs.task import Died, Ended, Outcome, Ready, Step, Task
from hgc_video.jobs.worker import Worker
from hgc_video.sampling.configuration import read_configuration


@pytest.fixture
def options(tiny, tmp_path):
    """The options of a run of two steps of one small frame."""
    return {
        **tiny, "control": {"pose": str(tmp_path / "pose.mp4")}, "num_inference_steps": 2, "height": 64,
        "width": 64, "preset": "off", "model": "puppet",
    }  # fmt: skip


@pytest.fixture
def task(options, tmp_path):
    """A task of those options, or of others."""

    def make(part="a.mp4", **more):
        told = {**options, **more}
        return Task("job a", told, str(tmp_path / "b" / part), str(tmp_path / "work" / part))

    return make


def silent(step, steps):
    pass


def ends_with(monkeypatch, raised):
    """A worker whose clips all end with this error."""
    worker = Worker("cpu")
    asked = []

    def make(self, *given):
        asked.append(given)
        warn("before it ended")
        raise raised

    monkeypatch.setattr(LoadedModel, "make", make)
    return worker, asked


def test_a_clip_is_written_to_the_file_of_its_task_and_every_step_is_told(task, tmp_path):
    steps, worker = [], Worker()
    outcome = worker.make(task(), lambda *step: steps.append(step))
    made = tmp_path / "b" / "a.mp4"
    assert steps == [(1, 2), (2, 2)], "how many are done, of how many"
    result = outcome.result
    assert outcome == Outcome("done", result, loaded=True)
    assert result.digest == hashlib.sha256(made.read_bytes()).hexdigest()
    assert 0 < result.seconds < 100 and result.macs_saved == 0.0 and result.warnings == ()
    assert (tmp_path / "work" / "a.mp4").is_dir(), "kept until the batch removes it"


def test_the_model_stays_for_the_next_clip_which_is_the_same_again(task):
    worker = Worker("cpu")
    first, again = (worker.make(task(part), silent) for part in ("a.mp4", "d.mp4"))
    assert (first.loaded, again.loaded) == (True, False)
    assert first.result.digest == again.result.digest
    other = worker.make(task("e.mp4", preset="fast"), silent)
    assert not other.loaded and other.result.macs_saved > 0


@pytest.mark.parametrize(
    ("own", "asked", "used"),
    [("cpu", {}, "cpu"), ("cpu", {"device": None}, "cpu"), ("meta", {"device": "cpu"}, "cpu"),
     (None, {}, None), (None, {"device": "cpu"}, "cpu")],
)  # fmt: skip
def test_a_clip_is_made_on_the_workers_device_unless_its_task_names_one(
    task, monkeypatch, own, asked, used
):
    seen = []
    make = LoadedModel.make

    def note(self, options, *rest):
        seen.append((options, *rest))
        return make(self, options, *rest)

    monkeypatch.setattr(LoadedModel, "make", note)
    given = task(**asked)
    assert Worker(own).make(given, silent).state == "done"
    ((options, where, _, names),) = seen
    assert options.get("device") == used
    rest = {key: value for key, value in options.items() if key != "device"}
    expected = {key: value for key, value in given.options.items() if key != "device"}
    assert rest == {**expected, "out": given.part, "work": Path(given.work)}
    assert (where, names) == ("job a", {}) and "out" not in given.options


def test_a_clip_tells_the_names_of_its_inputs_as_they_lie_for_the_finished_one(task, options):
    path = options["control"]["pose"]
    given = task()
    named = Task(given.name, given.options, given.part, given.work, {path: "../elsewhere.mp4"})
    worker = Worker("cpu")
    assert worker.make(named, silent).state == "done"
    assert "../elsewhere.mp4" in str(read_configuration(Path(given.part)))
    assert worker.make(task("c.mp4"), silent).state == "done"
    assert "elsewhere" not in str(read_configuration(Path(task("c.mp4").part)))


def test_what_a_user_must_know_of_a_run_is_part_of_its_result(task, monkeypatch):
    make = LoadedModel.make

    def warns(self, *given):
        warn("it is dark")
        warn("it is\ncold")
        warn("it is dark")
        warnings.warn("of a library", stacklevel=1)
        return make(self, *given)

    monkeypatch.setattr(LoadedModel, "make", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = Worker("cpu").make(task(), silent)
    assert outcome.result.warnings == ("it is dark", "it is cold")
    with collected_warnings() as said:
        warn("after it")
    assert said == ["after it"]


def test_a_task_stops_after_the_step_it_is_at_when_its_file_is_named(task, tmp_path):
    worker, steps = Worker("cpu"), []

    def on_step(step, of):
        steps.append(step)
        # From another thread, as what listens to the batch does.
        telling = threading.Thread(target=worker.stop, args=[task().part])
        telling.start()
        telling.join()

    assert worker.make(task(num_inference_steps=3), on_step) == Outcome("stopped")
    assert steps == [1] and not (tmp_path / "b" / "a.mp4").exists()
    # It is forgotten: the task may be given again, and the model is loaded anew.
    again = worker.make(task(num_inference_steps=3), silent)
    assert (again.state, again.loaded) == ("done", True)


def test_a_file_of_another_task_stops_nothing(task):
    worker = Worker("cpu")
    worker.stop("another")
    assert worker.make(task(), silent).state == "done"
    worker.stop(task("c.mp4").part)  # before it begins: it stops after its first step
    steps = []
    assert worker.make(task("c.mp4"), lambda *step: steps.append(step)).state == "stopped"
    assert steps == [(1, 2)]


def test_a_worker_that_is_to_end_stops_every_task(task):
    worker, steps = Worker("cpu"), []
    worker.stop(None)
    for part in ("a.mp4", "c.mp4"):
        made = worker.make(task(part), lambda *step: steps.append(step))
        assert made == Outcome("stopped") and made.why == "" and not made.loaded
    assert steps == [(1, 2)] * 2


def test_an_option_that_is_not_possible_fails_its_task_alone(task, tmp_path):
    worker = Worker("cpu")
    wrong = worker.make(task(num_frames=99), silent)
    assert (wrong.state, wrong.result, wrong.loaded, wrong.passing) == (
        "failed",
        None,
        False,
        False,
    )
    assert "num_frames=99" in wrong.why and "\n" not in wrong.why
    unknown = worker.make(task(colour="red"), silent)
    assert unknown.state == "failed" and unknown.why.startswith('job a: unknown option "colour"')
    assert worker.make(task(), silent).state == "done"


def test_an_error_of_ours_is_told_in_a_line(task, monkeypatch):
    worker, asked = ends_with(monkeypatch, ModelError("two\n  lines"))
    assert worker.make(task(), silent) == Outcome("failed", why="two lines")
    assert len(asked) == 1


@pytest.mark.parametrize(("number", "passing"), [(errno.ENOSPC, True), (errno.EIO, True)])
def test_a_fault_of_the_machine_may_pass(task, monkeypatch, number, passing):
    fault = OSError(number, "as told", "/disk/a")
    worker, _ = ends_with(monkeypatch, fault)
    made = worker.make(task(), silent)
    assert (made.state, made.passing) == ("failed", passing) and "/disk/a" in made.why
    # And where an error of ours was raised from it.
    error = InputError("cannot write")
    error.__cause__ = fault
    worker, _ = ends_with(monkeypatch, error)
    assert worker.make(task(), silent) == Outcome("failed", why="cannot write", passing=True)


def test_memory_that_ran_out_does_not_pass(task, monkeypatch, capsys):
    worker, _ = ends_with(monkeypatch, MemoryError("2 GiB"))
    made = worker.make(task(), silent)
    assert made == Outcome("failed", why=made.why) and made.why.startswith("memory ran out (2 GiB)")
    assert capsys.readouterr().err == ""


def test_a_fault_of_ours_is_told_with_its_lines_in_the_log(task, monkeypatch, capsys):
    worker, _ = ends_with(monkeypatch, ZeroDivisionError("by nothing"))
    made = worker.make(task(), silent)
    assert made == Outcome("failed", why=internal_error(ZeroDivisionError("by nothing")))
    assert "by nothing" in made.why
    told = capsys.readouterr()
    assert told.err.startswith("Traceback") and "ZeroDivisionError: by nothing" in told.err
    assert told.out == ""


def test_a_stopped_run_and_one_that_ends_the_process_are_no_faults(task, monkeypatch):
    worker, _ = ends_with(monkeypatch, Cancelled("stopped"))
    assert worker.make(task(), silent) == Outcome("stopped")
    worker, _ = ends_with(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        worker.make(task(), silent)


def test_a_folder_that_cannot_be_made_fails_the_task(task, tmp_path):
    (tmp_path / "b").write_text("a file")
    made = Worker("cpu").make(task("deep/a.mp4"), silent)
    assert made.state == "failed" and str(tmp_path / "b") in made.why


def test_after_any_error_the_model_is_loaded_anew(options, capsys):
    model = LoadedModel()
    assert model.loads == 0
    clip = model.make(options, "a", lambda *_: True, {})
    assert len(clip.frames) == 1 and model.loads == 1
    model.make(options, "a", lambda *_: None, {})
    assert model.loads == 1
    assert capsys.readouterr().err == "", "no progress is shown: who asked is elsewhere"
    for ends in (KeyboardInterrupt, ValueError):

        def callback(*_, ends=ends):
            raise ends

        with pytest.raises(ends):
            model.make(options, "a", callback, {})
    with pytest.raises(InputError, match=r"^here: num_frames"):
        model.make({**options, "num_frames": 0}, "here", lambda *_: True, {})
    before = model.loads
    model.make(options, "a", lambda *_: True, {})
    assert model.loads == before + 1


def test_a_configuration_is_checked_and_made_with_what_it_leaves_out(options, capsys):
    with pytest.raises(InputError, match=r'^configuration: unknown option "colour"'):
        run_configuration({**options, "colour": "red"})
    with pytest.raises(InputError, match=r"^mine: num_frames=0"):
        run_configuration({**options, "num_frames": 0}, "mine")
    steps = []
    clip = run_configuration(
        options, progress=False, callback=lambda step, of, latents: steps.append((step, of))
    )
    assert steps == [(0, 2), (1, 2)] and len(clip.frames) == 1
    assert capsys.readouterr().err == ""
    run_configuration(options)
    assert capsys.readouterr().err != "", "progress is shown unless it is told"


def test_a_configuration_stops_where_its_callback_says_so_and_uses_the_generator_it_is_given(
    options,
):
    from hgc_video.generator import Generator

    generator = Generator()
    with pytest.raises(Cancelled):
        run_configuration(options, progress=False, callback=lambda *_: False, generator=generator)
    run_configuration(options, progress=False, generator=generator)
    assert generator.num_loads >= 1


def test_a_shot_is_read_changed_and_made(options, tmp_path, monkeypatch, capsys):
    import yaml

    folder = tmp_path / "shots"
    folder.mkdir()
    file = folder / "shot.yaml"
    file.write_text(yaml.safe_dump({**options, "control": {"pose": "../pose.mp4"}}))
    with pytest.raises(InputError, match="outside"):
        run_shot(file)
    steps = []
    monkeypatch.chdir(tmp_path)
    clip = run_shot(
        str(file), allow_outside=True, progress=False, num_inference_steps=1, out="c.mp4",
        callback=lambda step, of, latents: steps.append((step, of)),
    )  # fmt: skip
    assert steps == [(0, 1)] and clip.report.num_inference_steps == 1
    assert (tmp_path / "c.mp4").is_file(), "relative to where we are"
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError) as told:
        run_shot(file, allow_outside=True, num_frames=0)
    assert str(told.value).startswith(f"{file}: num_frames=0")


def test_messages_between_a_batch_and_its_workers_are_known_by_what_they_say():
    assert Task("a", {}, "p", "w").names == {} and Task("a", {}, "p", "w") == Task(
        "a", {}, "p", "w", {}
    )
    bare = Outcome("stopped")
    assert (bare.result, bare.why, bare.loaded, bare.passing) == (None, "", False, False)
    assert not Died("0", "why").for_good
    assert (Ready("0", "h:1").where, Step("0", 1, 2).steps) == ("h:1", 2)
    assert Ended("0", bare).outcome is bare
