"""A run that is kept goes on to the same bytes and is recognised when done; another's folder is refused."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.errors import Cancelled, HGCVideoWarning, InputError, StateError
from hgc_video.jobs.checkpoint import keeper
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.puppet.evaluation import held_out

PROMPT, STEPS = {0: "a dancer in a red shirt on a beach", 2: "a dancer in a blue shirt"}, 4
OPTIONS = {"num_inference_steps": STEPS, "height": 64, "width": 64, "progress": False}


@pytest.fixture(scope="module")
def pose():
    return held_out(6, 3).truth.pose


@pytest.fixture(scope="module")
def whole(pose, tmp_path_factory):
    """The unbroken run, and its file."""
    out = tmp_path_factory.mktemp("whole") / "clip.mp4"
    return run(pose, out=out), out.read_bytes()


def run(pose, **options):
    return hgc_video.generate(pose, PROMPT, **{**OPTIONS, **options})


def stopping(step):
    """A callback that stops the run after a step, counted from 0."""
    return lambda index, *_: index < step


def never(*_):
    raise AssertionError("a step was made")


@pytest.fixture
def begun(pose, tmp_path):
    """A work folder whose run was kept after every step and stopped after the third."""
    work = tmp_path / "work"
    with pytest.raises(Cancelled):
        run(pose, out=tmp_path / "clip.mp4", work=work, checkpoint_every_s=0, callback=stopping(2))
    return work


def test_a_run_goes_on_to_the_same_bytes_and_is_recognised_when_it_is_done(
    pose, whole, begun, tmp_path
):
    clip, written = whole
    out, steps = tmp_path / "clip.mp4", []
    gone_on = hgc_video.resume(begun, progress=False, callback=lambda i, *_: steps.append(i))
    assert steps == [3] and gone_on.report.resumed_at == 3 and out.read_bytes() == written
    for name in ("macs_by_part", "schedule", "steps", "cache_nbytes", "cache_device_nbytes"):
        assert getattr(gone_on.report, name) == getattr(clip.report, name), name
    again = run(pose, out=out, work=begun, callback=never)
    assert again.report == gone_on.report
    assert np.array_equal(again.frames, gone_on.frames)
    # Elsewhere, or where the file is another one now, it is written again from the last state.
    elsewhere = tmp_path / "other.mp4"
    hgc_video.resume(begun, out=elsewhere, progress=False, callback=never)
    assert elsewhere.read_bytes() == written
    out.write_bytes(b"spoilt")
    hgc_video.resume(begun, progress=False, callback=never)
    assert out.read_bytes() == written


def test_a_torn_checkpoint_is_left_out_with_a_line(whole, begun, tmp_path):
    newest = max(begun.glob("checkpoint-*"))
    tensors = begun / "tensors-000003-0.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    unfinished = begun / ".checkpoint-000009.part"
    shutil.copytree(newest, unfinished)
    with pytest.warns(
        HGCVideoWarning, match="checkpoint-000003 is left out: tensors-000003-0.safetensors"
    ):
        gone_on = hgc_video.resume(begun, progress=False)
    assert gone_on.report.resumed_at == 2
    assert (tmp_path / "clip.mp4").read_bytes() == whole[1]


def test_another_run_is_refused_with_what_changed(pose, begun, tmp_path):
    given = {"out": tmp_path / "clip.mp4", "work": begun, "callback": never}
    changes = [
        ({"preset": "fast"}, 'preset was "balanced", is "fast"'),
        ({"num_inference_steps": 5}, "num_inference_steps was 4, is 5"),
        ({"control_video": pose[:, ::-1]}, "the pose input changed"),
        ({"control": "depth"}, "the pose input is not given; the depth input was not given"),
    ]
    for change, says in changes:
        clip = change.pop("control_video", pose)
        with pytest.raises(StateError, match=says) as told:
            run(clip, **given, **change)
        assert "\n" not in str(told.value) and f"hgc-video resume {begun}" in str(told.value)
    job = json.loads((begun / "job.json").read_text())
    job["model"]["unet"], job["versions"]["torch"] = "0" * 64, "1.0"
    (begun / "job.json").write_text(json.dumps(job))
    with pytest.raises(StateError, match=r"the model has another unet; torch was .1\.0., is"):
        hgc_video.resume(begun, progress=False)


def test_a_folder_that_is_no_runs_or_in_use_is_refused(pose, begun, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "input-pose.npy").write_bytes(b"of a process that ended while it began")
    WorkFolder(other).open()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(StateError, match="holds something else"):
        run(pose, work=other, callback=never)
    with pytest.raises(StateError, match="no run was begun"):
        hgc_video.resume(other)
    deep = [Image.fromarray(np.full((64, 64), 4000 * i, np.uint16)) for i in range(1, 4)]
    with pytest.raises(InputError, match="cannot keep this depth clip"):
        run(deep, control="depth", work=tmp_path / "third", callback=never)
    takes = (
        "import sys; from pathlib import Path\n"
        "from hgc_video.jobs.checkpoint.work_folder import WorkFolder\n"
        "work = WorkFolder(Path(sys.argv[1])); work.open(); print('taken', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", takes, str(begun)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"taken\n"
    with pytest.raises(StateError, match="another process works in"):
        hgc_video.resume(begun, progress=False)
    process.communicate()


@pytest.mark.parametrize("was_there", [False, True])
def test_a_run_that_is_refused_leaves_no_folder(pose, tmp_path, was_there):
    """What cannot be done is known here when the models are loaded and the folder is begun."""
    work = tmp_path / "work"
    if was_there:
        work.mkdir()
    given = {"video": pose, "strength": 0.6, "num_inference_steps": 1, "force": True}
    with pytest.raises(InputError, match="leaves no step"):
        run(pose, out=tmp_path / "clip.mp4", work=work, **given)
    assert list(tmp_path.iterdir()) == [work] * was_there
    assert not was_there or not list(work.iterdir())


def test_a_run_that_is_refused_when_it_goes_on_keeps_what_there_is(pose, begun, tmp_path):
    before = sorted(path.name for path in begun.iterdir())
    with pytest.raises(StateError, match="of another run"):
        run(pose, out=tmp_path / "clip.mp4", work=begun, seed=8)
    kept = [path for path in begun.iterdir() if path.name.startswith("checkpoint")]
    assert kept and sorted(path.name for path in begun.iterdir()) == before


def test_a_disk_that_is_full_of_tensors_is_told_as_any_other(tmp_path):
    """safetensors has an error of its own for it, which would have ended the run."""
    work = WorkFolder(tmp_path / "work")
    work.open()
    work.keep(work.snapshot({"step": 1}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="ulimit -f"):
            work.keep(work.snapshot({"step": 2, "latents": torch.zeros(10_000)}))
        with pytest.raises(InputError, match="ulimit -f"):
            work.keep_frames(0, np.zeros((4, 64, 64, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in work.path.iterdir()) == ["checkpoint-000001", "lock"]
    assert work.newest(torch.device("cpu")) == {"step": 1}
    work.close()


def test_old_checkpoints_that_cannot_be_removed_do_not_end_the_run(tmp_path):
    work = WorkFolder(tmp_path / "work")
    work.open()
    (work.path / "checkpoint-000000").symlink_to(tmp_path)  # rmtree refuses links
    (work.path / "frames-000000-9").symlink_to(tmp_path)
    for step in range(1, 4):
        work.keep(work.snapshot({"step": step}))
    work.finish(None, "digest")
    assert work.newest(torch.device("cpu")) == {"step": 3}
    with pytest.raises(StateError, match="was written and is gone"):
        work.finish(tmp_path / "clip.mp4", "digest")
    with pytest.raises(StateError, match="cannot write"):
        work.clear()
    work.close()


def test_a_folder_whose_run_was_killed_as_it_began_is_taken_again(tmp_path):
    """With half of its description aside, and an input that was in memory: neither is somebody else's."""
    folder = WorkFolder(tmp_path / "work")
    folder.open()
    folder.close()
    (folder.path / ".job.json.part").write_text('{"options": {"pro')
    (folder.path / "input-pose.npy").write_bytes(b"half")
    again = WorkFolder(folder.path)
    again.open()
    assert not again.is_begun and again.read("job") is None
    again.close()


@pytest.mark.usefixtures("stock_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_once_finishes_the_step_and_says_how_to_go_on(pose, whole, tmp_path, capsys, number):
    work, before = tmp_path / "work", signal.getsignal(signal.SIGINT)
    with pytest.raises(Cancelled, match=f"after 2 of {STEPS} steps; go on with: hgc-video resume"):
        run(pose, work=work, callback=lambda i, *_: signal.raise_signal(number) if i == 1 else None)
    assert "once more to stop at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    gone_on = hgc_video.resume(work, progress=False)
    assert gone_on.report.resumed_at == 2
    assert gone_on.report.macs_by_part == whole[0].report.macs_by_part


@pytest.mark.usefixtures("stock_signals")
def test_ctrl_c_twice_stops_at_once(pose, tmp_path):
    def impatient(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Cancelled, match="stopped at once; go on with"):
        run(pose, work=tmp_path / "work", callback=impatient)
    assert len(list((tmp_path / "work").glob("checkpoint-*"))) <= 1, (
        "the last one holds latents alone"
    )
    with pytest.raises(KeyboardInterrupt):
        run(pose, callback=impatient)


def test_a_long_run_is_kept_beside_its_clip_until_it_is_done(pose, whole, tmp_path, monkeypatch):
    out = tmp_path / "clip.mp4"
    monkeypatch.setattr(keeper, "_LONG_S", 0.0)
    with pytest.raises(Cancelled):
        run(pose, out=out, callback=stopping(1))
    assert {p.name for p in tmp_path.iterdir()} == {"clip.mp4.work"}
    steps = []
    run(pose, out=out, callback=lambda i, *_: steps.append(i))
    assert steps == [2, 3] and out.read_bytes() == whole[1]
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(pose, whole, tmp_path):
    """A limit of this process's files stands for the disk: inputs can be written, caches cannot."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, before[1]))
    try:
        with pytest.warns(HGCVideoWarning, match="no checkpoint is written: cannot write"):
            clip = run(pose, work=tmp_path / "work", checkpoint_every_s=0, callback=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list((tmp_path / "work").glob("checkpoint-*"))) <= 1, (
        "the last one holds latents alone"
    )
    assert clip.report.macs_by_part == whole[0].report.macs_by_part


def test_decoded_frames_are_kept_and_spoilt_ones_are_decoded_again(tmp_path):
    work = WorkFolder(tmp_path / "work")
    work.open()
    frames = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    work.keep_frames(16, frames)
    assert np.array_equal(work.frames(16, 2), frames) and work.frames(16, 1) is None
    next((tmp_path / "work").glob("frames-*/*.safetensors")).write_bytes(b"spoilt")
    assert work.frames(16, 2) is None
    state = {"a": torch.arange(3)}
    for _ in range(4):
        work.keep(work.snapshot(state))
    assert len(list((tmp_path / "work").glob("checkpoint-*"))) == 2
    assert torch.equal(work.newest(torch.device("cpu"))["a"], state["a"])


def test_signals_are_left_alone_in_other_threads(pose, tmp_path):
    made = []
    thread = threading.Thread(
        target=lambda: made.append(run(pose, work=tmp_path / "work", num_inference_steps=1))
    )
    thread.start()
    thread.join()
    assert made[0].num_frames == 3


def test_the_command_line_resumes_and_plans_checkpoints(begun, tmp_path):
    runner = CliRunner()
    refused = runner.invoke(app, ["resume", str(tmp_path)])
    assert refused.exit_code == 2 and "no run was begun" in refused.output
    done = runner.invoke(app, ["resume", str(begun), "--report", str(tmp_path / "a.json")])
    assert done.exit_code == 0, done.output
    assert "since step 3" in done.output and str(tmp_path / "clip.mp4") in done.output
    assert json.loads((tmp_path / "a.json").read_text())["resumed_at"] == 3
    plan = [
        "plan",
        "--num-inference-steps",
        "10",
        "--throughput",
        "0.003,1",
        "--checkpoint-every-s",
        "20",
    ]
    planned = runner.invoke(app, plan)
    assert planned.exit_code == 0 and "kept   after step" in planned.output
    told = json.loads(runner.invoke(app, [*plan, "--json"]).output)["checkpoints"]
    assert told["steps"][-1] == 9 and told["write_s"] / told["run_s"] < 0.02
