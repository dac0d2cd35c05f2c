"""The command line: light help, whole clips, and one line for every mistake."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import hgc_video
from hgc_video.cli import app
from hgc_video.cli.shell import errors_in_one_line
from hgc_video.media.video import probe, read_frames, write_video
from tests.media import sounding

PROMPT = "a dancer in a red shirt and blue trousers on a beach"
FAST = ["--num-inference-steps", "1", "--num-frames", "2", "--height", "64", "--width", "64"]
COMMAND = [sys.executable, "-c", "from hgc_video.cli import main; main()"]


@pytest.fixture(scope="session")
def pose_clip(tmp_path_factory):
    """The first frames of the example, as a control clip of 6 frames."""
    example = Path(__file__).parent.parent / "examples" / "dance_pose.mp4"
    frames = read_frames(example, indices=range(6))
    return write_video(tmp_path_factory.mktemp("clips") / "pose.mp4", frames, 8)


@pytest.fixture
def folder(tmp_path):
    """A folder in which nothing may be left."""
    place = tmp_path / "out"
    place.mkdir()
    return place


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def generate(pose, folder, *arguments, prompt=PROMPT, out="a.mp4"):
    return invoke(
        "generate", "--pose", pose, "--prompt", prompt, "--out", folder / out, *FAST, *arguments
    )


def refused(result, *parts, code=2):
    """Holds when `result` is one line on stderr with every part, and nothing on stdout."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_loads_neither_torch_nor_diffusers(arguments):
    code = (
        "import sys\nfrom hgc_video.cli import app\n"
        f"try: app({arguments!r})\nexcept SystemExit as end: assert not end.code\n"
        "heavy = [m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_no_garbage_is_looked_for_at_exit():
    """Which takes more than a second where torch and diffusers are loaded."""
    code = (
        "import sys\nfrom hgc_video.cli import main\n"
        "class Loop:\n    def __init__(self): self.own = self\n    def __del__(self): print('found')\n"
        "kept = Loop()\nsys.argv = ['hgc-video', '--version']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"hgc-video {hgc_video.__version__}\n" and not done.stderr


def test_help_explains_itself_with_an_example():
    shown = invoke("generate", "--help").stdout
    assert "--pose examples/dance_pose.mp4" in shown
    assert "--extract" in shown


def test_version():
    assert invoke("--version").stdout == f"hgc-video {hgc_video.__version__}\n"


def test_models_lists_the_embedded_one():
    result = invoke("models")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("puppet ")
    assert "128x128" in result.stdout
    assert "svd   " in result.stdout and "depth, lineart" in result.stdout


def test_a_clip_and_its_report_are_written(pose_clip, folder):
    report = folder / "r.json"
    result = generate(pose_clip, folder, "--report", report, "--seed", 5)
    assert result.exit_code == 0, result.stderr
    info = probe(folder / "a.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (2, 64, 64, 8)
    told = json.loads(report.read_text())
    assert (told["seed"], told["num_inference_steps"], told["prompt"]) == (5, 1, PROMPT)
    assert str(folder / "a.mp4") in result.stdout
    assert str(report) in result.stdout
    assert {p.name for p in folder.iterdir()} == {"a.mp4", "r.json"}


def test_the_whole_clip_is_made_with_its_sound(pose_clip, folder):
    """20 frames, more than the model holds, after one line that says what is to come."""
    frames = np.concatenate([read_frames(pose_clip)] * 4)[:20]
    silent = write_video(folder.parent / "silent.mp4", frames, 10)
    clip = sounding.put_under(silent, folder.parent / "sounding.mp4")
    arguments = ["generate", "--pose", clip, "--prompt", PROMPT, "--num-inference-steps", "1"]
    result = invoke(*arguments, "--out", folder / "a.mp4")
    assert result.exit_code == 0, result.stderr
    assert "warning" not in result.stderr
    told = result.stderr.splitlines()[0]
    assert "20 frames at 10 fps (2.0 s) in 2 windows of 16, 1 steps: about" in told
    assert "GiB of memory" in told
    assert (probe(folder / "a.mp4").num_frames, probe(folder / "a.mp4").fps) == (20, 10)
    tones = [sounding.tone_at(folder / "a.mp4", at) for at in (0.25, 0.75, 1.25, 1.75)]
    assert tones == [0, 1, 2, 3]
    shown = invoke("show", folder / "a.mp4")
    for part in ("20 frames of 128x128 at 10 fps", PROMPT, "sounding.mp4  sha256", "unet  sha256"):
        assert part in shown.stdout
    whole = json.loads(invoke("show", folder / "a.mp4", "--json").stdout)
    assert len(whole["steps"]) == 1 and str(folder.parent) not in json.dumps(whole)


def test_frames_are_chosen_and_sound_is_left_out_where_it_cannot_be(pose_clip, folder):
    frames = np.concatenate([read_frames(pose_clip)] * 4)[:20]
    silent = write_video(folder.parent / "silent.mp4", frames, 10)
    clip = sounding.put_under(silent, folder.parent / "sounding.mp4")
    arguments = [
        "generate",
        "--pose",
        clip,
        "--prompt",
        PROMPT,
        "--num-inference-steps",
        "1",
        "--quiet",
    ]
    result = invoke(*arguments, "--out", folder / "a.gif", "--frames", "10:14", "--every", "2")
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    (note,) = result.stderr.splitlines()
    assert note.startswith("warning: ") and "its sound is left out" in note and "a.gif" in note
    assert (probe(folder / "a.gif").num_frames, probe(folder / "a.gif").fps) == (2, 5)
    quiet = invoke(
        *arguments, "--out", folder / "a.gif", "--frames", "10:11", "--no-audio", "--no-metadata"
    )
    assert quiet.output == ""
    refused(invoke("show", folder / "a.gif"), "carries no configuration", "--no-metadata")


def test_a_clip_whose_name_holds_a_colon_is_read_and_written(pose_clip, folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("11:30.mp4").write_bytes(pose_clip.read_bytes())
    result = invoke(
        "generate", "--pose", "11:30.mp4", "--prompt", PROMPT, "--out", "12:30.mp4", *FAST
    )
    assert result.exit_code == 0, result.stderr
    assert probe("12:30.mp4").num_frames == 2


def test_a_random_seed_is_reported(pose_clip, folder):
    result = generate(pose_clip, folder, "--seed", "random", "--report", folder / "r.json")
    assert result.exit_code == 0, result.stderr
    seed = json.loads((folder / "r.json").read_text())["seed"]
    assert seed > 0 and f"seed {seed}," in result.stdout


def test_quiet_prints_nothing(pose_clip, folder):
    result = generate(pose_clip, folder, "--quiet", out="a.gif")
    assert (result.exit_code, result.output) == (0, ""), result.output
    assert (folder / "a.gif").exists()


def no_video(folder):
    path = folder.parent / "notes.mp4"
    path.write_text("this is no video, whatever its name says\n" * 50)
    return path


def zero_frames(folder):
    path = folder.parent / "empty"
    path.mkdir()
    return path


def missing(folder):
    return folder.parent / "missing.mp4"


@pytest.mark.parametrize("bad", [missing, no_video, zero_frames])
def test_a_control_clip_that_cannot_be_used(bad, folder):
    path = bad(folder)
    refused(generate(path, folder), path.name)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--preset", "balnced"], ['"balnced"', 'did you mean "balanced"?']),
        (["--num-frames", "7"], ["num_frames=7", "6 frames", "--loop"]),
        (["--frames", "2-4"], ['frames="2-4"', "START:STOP"]),
        (["--frames", "2:9"], ["frames=2:9 is beyond the clip, which has 6 frames, 0 to 5"]),
        (["--every", "2", "--fps", "4"], ["every=2 and fps=4", "leave one out"]),
        (["--codec", "vp9"], ['no codec "vp9" in .mp4', "h264, hevc, av1"]),
        (["--crf", "60"], ["crf=60", "0 to 51"]),
        (["--pix-fmt", "yuv430p"], ['"yuv430p"', "yuv420p"]),
        (["--audio", "none.mp3"], ['no file "none.mp3"']),
        (["--audio", __file__], ["has no sound"]),
        (["--audio", "a.mp3", "--no-audio"], ["--no-audio", "leave one out"]),
        (["--num-frames", "0"], ["num_frames=0"]),
        (["--num-inference-steps", "0"], ["num_inference_steps=0", "1 or more"]),
        (["--height", "100"], ["height=100", "32"]),
        (["--fps", "0"], ["fps=0"]),
        (["--seed", "-1"], ["seed=-1"]),
        (["--guidance-scale", "-2"], ["guidance_scale=-2"]),
        (["--model", "no/such/model"], ["no/such/model", "puppet"]),
        (["--device", "nonsense"], ["nonsense", "cpu"]),
        (["--depth", "other.mp4"], ['no file "other.mp4"']),
        (
            ["--canny", "other.mp4"],
            ["has no controlnet_canny but controlnet_depth, controlnet_pose"],
        ),
        (["--audio", "/dev/zero"], ['"/dev/zero" is a device or a pipe; name a file']),
        (["--vae", "/dev/zero"], ['"/dev/zero" is a device or a pipe; name a file']),
        (["--lora", "/dev/zero:0.5"], ['"/dev/zero" is a device or a pipe; name a file']),
        (["--conditioning-scale", "pose=much"], ["--conditioning-scale", "pose=1,depth=0.5"]),
        (["--conditioning-scale", "depth=1"], ['names "depth"']),
        (["--image", "first.png"], ["puppet begins with a prompt", "leave image out"]),
        (["--motion", "motion_bucket_id=60"], ["leave motion out"]),
        (["--motion", "fast"], ["--motion", "motion_bucket_id=60"]),
        (["--model", "svd"], ["svd begins with an image", "none is given"]),
        (["--model", "svd", "--image", "first.png"], ["svd begins with an image", "no prompt"]),
        (["--prompt-at", "a dancer"], ["--prompt-at", "FRAME=PROMPT"]),
        (["--prompt-at", "²=snow"], ["--prompt-at", "FRAME=PROMPT"]),
        (["--prompt-at", "48=snow"], ["from frame 48 on", "2 frames, 0 to 1"]),
        (["--prompt-at", "0=snow"], ["--prompt-at", "--prompt"]),
        (["--prompt-at", "1=snow", "--prompt-at", "1=rain"], ["twice for frame 1"]),
        (["--seed", "any"], ["--seed", "random"]),
        (["--dtype", "half"], ['unknown dtype "half"', "float16"]),
        (["--control-guidance-start", "0.9", "--control-guidance-end", "0.5"], ["two shares"]),
    ],
)
def test_options_that_cannot_be_used(arguments, parts, pose_clip, folder):
    refused(generate(pose_clip, folder, *arguments), *parts)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "part"), [("", "empty"), ("  ", "empty"), ("a red hat " * 300, "shorter")]
)
def test_prompts_that_cannot_be_used(prompt, part, pose_clip, folder):
    refused(generate(pose_clip, folder, prompt=prompt), part)
    assert list(folder.iterdir()) == []


def test_no_control_at_all(folder):
    result = invoke("generate", "--prompt", PROMPT, "--out", folder / "a.mp4")
    refused(result, "--pose", "--depth", "none was given")


def test_a_clip_without_a_person(folder):
    pytest.importorskip("mediapipe", reason="the extra `pose` is not installed")
    grey = write_video(folder.parent / "grey.mp4", np.full((4, 96, 96, 3), 128, np.uint8), 8)
    refused(generate(grey, folder, "--extract"), "no person")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "part"),
    [("no/such/a.mp4", "create it first"), ("a.avi", ".mp4, .webm"), ("sub.mp4", "is a folder")],
)
def test_an_output_that_cannot_be_written(out, part, pose_clip, folder):
    (folder / "sub.mp4").mkdir()
    refused(generate(pose_clip, folder, out=out), part)
    assert [p.name for p in folder.iterdir()] == ["sub.mp4"]


def test_an_output_folder_that_takes_no_files(pose_clip):
    refused(generate(pose_clip, Path("/proc")), "/proc/a.mp4")


def test_a_report_that_cannot_be_written_is_refused_before_the_run(pose_clip, folder):
    refused(generate(pose_clip, folder, "--report", folder / "no" / "r.json"), "create it first")
    assert list(folder.iterdir()) == []


def test_what_goes_in_is_never_overwritten_nor_the_clip_by_its_report(pose_clip, folder):
    before = pose_clip.read_bytes()
    refused(generate(pose_clip, pose_clip.parent, out=pose_clip.name), "the control clip itself")
    refused(
        generate(pose_clip, folder, "--report", pose_clip), "--report", "the control clip itself"
    )
    same = generate(pose_clip, folder, "--report", folder / "a.mp4")
    refused(same, "--report", "the clip of --out itself", "name another file")
    assert pose_clip.read_bytes() == before
    assert list(folder.iterdir()) == []


def test_a_control_that_the_model_lacks_is_told_before_a_film_is_gone_through(
    pose_clip, folder, monkeypatch
):
    pytest.importorskip("cv2")
    taken = []
    monkeypatch.setattr("hgc_video.sampling.controls.extract_control", taken.append)
    raw = ["--canny", pose_clip, "--extract", "--prompt", PROMPT, *FAST, "--out", folder / "a.mp4"]
    refused(invoke("generate", *raw), "has no controlnet_canny")
    assert not taken


def test_a_limit_of_file_sizes_leaves_nothing(pose_clip, folder):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
    try:
        done = generate(pose_clip, folder, "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(done, "cannot write", "ulimit -f")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_leaves_nothing(stop, pose_clip, folder):
    process = subprocess.Popen(
        [*COMMAND, "generate", "--pose", str(pose_clip), "--prompt", PROMPT,
         *FAST, "--num-inference-steps", "200", "--out", str(folder / "a.mp4")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background jobs ignore Ctrl-C, and their children with them; this one must not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        shown = ""
        while not re.search(r" [1-9]\d*/200 ", shown):
            read = process.stderr.read(1)
            assert read, f"ended before the first step: {shown}"
            shown += read
        process.send_signal(stop)
        _, rest = process.communicate(timeout=900)  # ends a test that hangs, and no slow one
    finally:
        process.kill()
    assert process.returncode == 130, rest
    assert "cancelled; nothing was written" in rest
    assert "Traceback" not in rest
    assert list(folder.iterdir()) == []


def test_an_error_of_ours_is_one_line_and_debug_shows_where(monkeypatch, pose_clip, folder):
    def broken(*args, **options):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("hgc_video.pipeline.generate", broken)
    refused(generate(pose_clip, folder), "RuntimeError: two lines", "--debug", code=1)
    arguments = ["generate", "--pose", pose_clip, "--prompt", PROMPT, "--out", folder / "a.mp4"]
    shown = invoke("--debug", *arguments)
    assert isinstance(shown.exception, RuntimeError)
    assert list(folder.iterdir()) == []


def test_plan_compares_policies_at_full_size_without_any_files():
    done = invoke(
        "plan", "--model", "sd15", "--policy", "full", "--policy", "deepcache:interval=2+lossless",
        "--controlnet", "0", "--num-inference-steps", "4", "--json",
    )  # fmt: skip
    full, cached = json.loads(done.stdout)
    assert full["macs"] == full["macs_baseline"] == cached["macs_baseline"]
    assert 0.4 < cached["macs_saved"] < 0.5 and cached["cache_peak_nbytes"] > 0
    table = invoke("plan", "--policy", "hgc:cut=1", "--num-inference-steps", "5")
    assert table.exit_code == 0 and len(table.stdout.splitlines()) == 7


def test_policies_are_listed_with_fields_and_sources():
    told = invoke("policies").stdout
    for word in ("deepcache", "2312.00858", "interval=3", "tgate", "balanced", "fewer-steps"):
        assert word in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "sd51"], "sd51"), (["--policy", "deepcashe"], "deepcache"),
        (["--policy", "deepcache:intervall=2"], "interval"), (["--convention", "thop"], "no-attention"),
        (["--model", "svd", "--controlnet", "2"], "one control at a time"),
        (["--model", "sd15", "--height", "500"], "multiple of 64"), (["--num-frames", "0"], "give 1 or more"),
        (["--policy", "block-caching"], "needs calibration=VALUE"),
        (["--model", "sd15", "--height", "0"], "height=0 is no multiple of 64"),
        (["--model", "animatediff", "--width", "0"], "width=0 is no multiple of 64"),
        (["--model", "animatediff", "--height", "65536", "--width", "65536"], "HGC_VIDEO_MAX_PIXELS"),
        (["--model", "svd", "--height", "1048576"], "HGC_VIDEO_MAX_PIXELS"),
        (["--model", "sd15", "--controlnet", "-1"], "controlnet=-1 is not possible"),
        (["--model", "sd15", "--control", "dept"], 'unknown control "dept": did you mean'),
        (["--model", "sd15", "--base-config", "a"], "base_config is for a base"),
        (["--prompt-parts", "1001"], "at most 1000"), (["--prompt-parts", "0"], "give 1 or more"),
    ],
)  # fmt: skip
def test_plan_refuses_in_one_line(arguments, says):
    done = invoke("plan", *arguments)
    assert done.exit_code == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_memory_that_runs_out_is_what_the_user_can_mend(error, capsys):
    with pytest.raises(typer.Exit) as end, errors_in_one_line(SimpleNamespace(obj=False)):
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        end.value.exit_code == 2 and line.startswith("error: memory ran out") and "--memory" in line
    )


def test_a_disk_that_fails_anywhere_is_told_in_one_line(capsys):
    with pytest.raises(typer.Exit) as end, errors_in_one_line(SimpleNamespace(obj=False)):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/there/a.log")
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.exit_code == 2 and line.startswith(
        'error: cannot write "/there/a.log": read-only'
    )
