"""The page in a real browser: clips with their control, progress and result, comparisons, and faults."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest

from hgc_video.jobs.shot import read_shot
from hgc_video.media.sound import has_sound
from hgc_video.media.video import read_frames, write_video
from tests.ui.conftest import ROOT

pytestmark = pytest.mark.slow
PROMPT = "a dancer in a red shirt and blue trousers on a beach"
STEPS = 150_000  # milliseconds that a few steps may take on a machine that others work on too
SHOTS = os.environ.get("HGC_VIDEO_SCREENSHOTS")  # a folder, to look at what the tests saw


@pytest.fixture
def page(browser, server, request):
    """A tab of its own; every request that it makes must stay on this machine, and nothing may be thrown."""
    server.wait_for_model()
    context = browser.new_context(viewport={"width": 1000, "height": 700}, accept_downloads=True)
    made, asked, thrown = context.new_page(), [], []
    made.on("request", lambda one: asked.append(one.url))
    made.on("pageerror", lambda error: thrown.append(str(error)))
    made.set_default_timeout(STEPS)
    made.goto(server.url)
    made.locator("#field-prompt").wait_for()
    yield made
    picture(made, request.node.name)
    context.close()
    far = [
        u
        for u in asked
        if urlparse(u).scheme in ("http", "https", "ws") and urlparse(u).hostname != "127.0.0.1"
    ]
    assert asked and not far and not thrown


def picture(page, name):
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def fill(page, clip, *, frames=2, steps=2, prompt=PROMPT, preset="balanced"):
    page.set_input_files("#field-control_video", clip)
    page.fill("#field-prompt", prompt)
    page.fill("#field-num_frames", str(frames))
    page.fill("#field-preset", preset)
    page.locator("summary", has_text="Steps and cost").click()
    page.fill("#field-num_inference_steps", str(steps))
    page.locator("#control-view .told", has_text="clip of skeletons").wait_for()


def saved(page, link, folder):
    with page.expect_download() as waiting:
        page.click(link)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def all_that_is_said_from_now_on(page, mark):
    """Texts of an element, every one of them: a step may take less than the time between two looks at it."""
    page.evaluate(
        "mark => { const told = document.querySelector(mark); window.said = []; "
        "new MutationObserver(() => window.said.push(told.textContent))"
        ".observe(told, {childList: true, characterData: true, subtree: true}) }",
        mark,
    )
    return lambda: page.evaluate("window.said")


def test_a_clip_is_made_played_and_downloaded(page, control_clip, tmp_path):
    fill(page, control_clip, steps=12)
    # An estimate for what was filled in before may come first, and one whose time is not known yet.
    estimate = page.locator("#estimate", has_text="2 frames of 128x128, 12 steps")
    estimate.filter(has_text=re.compile(r"Time\s*about \d+ s")).wait_for()
    told = page.inner_text("#estimate")
    assert "uncached" in told and "at most for the model" in told
    said = all_that_is_said_from_now_on(page, "#run-told")
    page.click("#run")
    page.locator("#result").wait_for()
    assert any(re.search(r"step \d+ of 12", text) for text in said()), said()
    clip = saved(page, "#save-clip", tmp_path)
    frames = read_frames(clip)
    assert frames.shape == (2, 128, 128, 3) and frames.std() > 20 and has_sound(clip)
    report = json.loads(saved(page, "#save-report", tmp_path).read_text())
    assert report["prompt"] == PROMPT and report["num_inference_steps"] == 12
    assert "MACs" in page.inner_text("#report")
    shot = saved(page, "#save-shot", tmp_path)
    (tmp_path / control_clip.name).write_bytes(control_clip.read_bytes())
    options = read_shot(shot).checked()
    assert options.control_clips == {"pose": str(tmp_path / "pose.mp4")} and options.num_frames == 2
    played = page.evaluate(
        "async () => { const v = document.getElementById('clip'); v.muted = true; await v.play(); "
        "return [v.videoWidth, v.duration, v.error] }"
    )
    assert played[0] == 128 and played[1] == pytest.approx(0.25, abs=0.1) and played[2] is None


def test_a_cancelled_run_leaves_nothing(page, server, control_clip):
    fill(page, control_clip, frames=4, steps=900, preset="off")
    before = {path for path in server.folder.iterdir() if path.is_dir()}
    runs = len(server.state()["tasks"])
    page.dblclick("#run")
    page.locator("#preview").wait_for()
    assert len(server.state()["tasks"]) == runs + 1
    assert page.evaluate("document.getElementById('preview').naturalWidth") == 3 * 128
    page.click("#cancel")
    page.locator("#run-told", has_text="cancelled; nothing was kept").wait_for()
    assert {path for path in server.folder.iterdir() if path.is_dir()} == before
    assert page.locator("#preview").is_hidden() and page.locator("#result").is_hidden()


def test_a_reload_finds_the_running_job_and_another_tab_is_undisturbed(
    page, browser, server, control_clip
):
    fill(page, control_clip, frames=4, steps=900, preset="off")
    page.click("#run")
    page.locator("#run-told", has_text="of 900").wait_for()
    other = browser.new_page()
    other.set_default_timeout(STEPS)
    other.goto(server.url)
    other.locator("#line", has_text="1 running, 0 waiting").wait_for()
    assert other.input_value("#field-prompt") == "" and other.locator("#running").is_hidden()
    page.reload()
    page.locator("#run-told", has_text=re.compile(r"step \d+ of 900")).wait_for()
    assert page.input_value("#field-prompt") == PROMPT
    fill(other, control_clip)
    other.click("#run")
    other.locator("#run-told", has_text="waiting for the runs before it").wait_for()
    other.click("#tab-queue")
    other.locator("#runs", has_text="waiting").wait_for()
    picture(other, "queue")
    page.click("#cancel")
    other.click("#tab-make")
    other.locator("#result").wait_for()
    assert "cancelled" in page.inner_text("#run-told")
    other.close()


def test_presets_are_compared_in_step(page, control_clip):
    fill(page, control_clip, steps=4)
    page.click("#tab-compare")
    page.uncheck("[name=preset][value=balanced]")
    page.check("[name=preset][value=turbo]")
    page.click("#compare-run")
    page.locator("#compared table").wait_for()
    rows = page.locator("#compared tr").all_inner_texts()[1:]
    assert [row.split()[0] for row in rows] == ["off", "turbo"]
    assert "reference" in rows[0] and float(re.search(r"([\d.]+) dB", rows[1])[1]) > 15
    page.click("#play-all")
    time.sleep(0.5)
    page.click("#play-all")
    times = page.evaluate(
        "[...document.querySelectorAll('#compared video')].map(v => v.currentTime)"
    )
    assert len(times) == 4 and max(times) - min(times) < 0.1
    page.fill("#wipe", "20")
    assert "20%" in page.evaluate(
        "document.querySelectorAll('.over-each-other video')[1].style.clipPath"
    )
    assert page.locator("svg.plot circle").count() == 1


def test_wrong_and_over_large_files_are_told_beside_their_field(page, server, tmp_path):
    (tmp_path / "notes.txt").write_text("no clip")
    (tmp_path / "broken.mp4").write_bytes(b"no clip either" * 100)
    (tmp_path / "large.mp4").write_bytes(bytes(2**20 + 1))
    held = list((server.folder / "uploads").iterdir())
    for name, says in (
        ("notes.txt", "is no video file"),
        ("broken.mp4", "broken.mp4"),
        ("large.mp4", "larger than 1 MiB"),
    ):
        page.set_input_files("#field-control_video", tmp_path / name)
        page.locator("#fault-control_video", has_text=says).wait_for()
        assert page.get_attribute("#field-control_video", "aria-invalid") == "true"
    assert list((server.folder / "uploads").iterdir()) == held


def test_a_refused_value_is_told_beside_its_field(page, control_clip):
    fill(page, control_clip)
    for name, value, says in (
        ("num_frames", "9", "num_frames=9"),
        ("preset", "balancd", "balanced"),
    ):
        before = page.input_value(f"#field-{name}")
        page.fill(f"#field-{name}", value)
        page.locator(f"#fault-{name}", has_text=says).wait_for()
        page.click("#run")
        page.locator(f"#fault-{name}", has_text=says).wait_for()
        page.fill(f"#field-{name}", before)
    page.locator("#estimate", has_text="MACs").wait_for()


def test_the_schedule_gives_reasons(page, control_clip):
    fill(page, control_clip, steps=10)
    page.click("#tab-schedule")
    page.locator(".chart svg").wait_for()
    page.locator("#schedule summary").click()
    steps = page.locator("#schedule li").count()
    assert steps >= 10 and page.locator(".chart svg g > title").count() == 2 * steps
    assert "lossless" in page.inner_text("#schedule ol")


def test_a_raw_video_shows_its_control_beside_it(page, tmp_path):
    pytest.importorskip("cv2", reason="edges need OpenCV, which is not installed")
    colours = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    raw = write_video(tmp_path / "raw.mp4", colours.repeat(16, 1).repeat(16, 2), 8)
    page.set_input_files("#field-control_video", raw)
    page.locator("#field-extract").wait_for()
    page.select_option("#field-control", "canny")
    assert page.input_value("#field-extract") == "canny"
    page.locator("#control-view .told", has_text="3 frames at 8").wait_for()
    page.fill("#frame", "2")
    page.wait_for_timeout(300)
    assert page.inner_text("#frame-told") == "3 of 3"
    assert page.evaluate("document.getElementById('control-frame').naturalWidth") == 128
    assert page.get_attribute("#source-frame", "src").endswith("/frames/2")
    page.fill("#field-prompt", PROMPT)  # the embedded model has no ControlNet for edges
    page.locator("#fault-control", has_text="control=canny is not possible").wait_for()


def test_several_controls_loras_and_prompts_are_given_as_rows(page, control_clip, tmp_path):
    fill(page, control_clip, frames=4)
    page.locator("#estimate", has_text="MACs").wait_for()
    macs = page.inner_text("#estimate")
    for heading in ("What is made", "Control", "Model"):
        page.locator("summary", has_text=re.compile(f"^{heading}$")).click()
    page.click("#add-more_controls")
    page.set_input_files("#more_controls-0-clip", ROOT / "examples" / "dance_depth.mp4")
    page.locator("img.small").wait_for()
    assert page.input_value("#more_controls-0-kind") == "depth"
    page.wait_for_function(
        "told => !['', told].includes(document.getElementById('estimate').innerText)", arg=macs
    )
    page.select_option("#more_controls-0-kind", "pose")
    page.locator("#fault-more_controls", has_text="two clips are for pose").wait_for()
    page.click("#remove-more_controls-0")
    page.click("#add-prompt_at")
    page.fill("#prompt_at-0-text", "a dancer in a forest")
    page.locator("#fault-prompt_at", has_text="no from frame").wait_for()
    page.fill("#prompt_at-0-frame", "4")
    page.locator("#fault-prompt_at", has_text="the clip has 4 frames").wait_for()
    page.fill("#prompt_at-0-frame", "2")
    page.locator("#estimate", has_text="MACs").wait_for()
    (tmp_path / "style.safetensors").write_bytes(b"no weights")
    page.click("#add-lora")
    page.set_input_files("#lora-0-file", tmp_path / "style.safetensors")
    page.locator("#fault-lora", has_text="no readable safetensors file").wait_for()
    page.fill("#lora-0-scale", "0.5")
    page.reload()
    assert page.input_value("#prompt_at-0-text") == "a dancer in a forest"
    assert page.input_value("#lora-0-scale") == "0.5"


def test_it_works_by_keyboard_at_phone_width_in_the_dark(page):
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 700})
    page.focus("#tab-make")
    for name in ("compare", "schedule", "queue", "make"):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == f"tab-{name}"
        assert page.locator(f"#{name}").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert max(map(int, re.findall(r"\d+", dark))) < 60
    unlabelled = page.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length && "
        "!e.getAttribute('aria-label')).map(e => e.id)"
    )
    assert not unlabelled
