"""What all tests share: one torch thread, no deadlines, and the real clips where they are at hand."""

from __future__ import annotations

import functools
import gc
import os
import pwd
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import hgc_video
from hgc_video.plan.explain import StepSummary
from hgc_video.plan.schedule import Schedule, StepPlan
from hgc_video.report import Report
from tests.shared_clips import DATA

# Before torch is imported anywhere: on a busy small machine, spinning threads are ten times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

gc.disable()  # until all tests are collected

# How long an example takes, and how long it takes to draw, says how busy the machine is.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: begun last, one of them would keep one process busy at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported stays: to look through it for garbage again and again took a tenth of all the time."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(700, 10, 100)  # what tests import is looked through less often


@pytest.fixture(scope="session", autouse=True)
def own_folder_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the package keeps of its own goes to a folder of this test run, never to the user's. The processes
    of a run share it: a block graph is built once for all."""
    own = tmp_path_factory.getbasetemp()
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "hgc_video"
    home.mkdir(exist_ok=True)
    os.environ["HGC_VIDEO_HOME"] = str(home)


@pytest.fixture(scope="session", autouse=True)
def one_loading_of_the_embedded_model() -> Iterator[None]:
    """Runs of a process share its pipelines, as a run leaves models as they were; threads have their own."""
    from hgc_video.models.load import load_pipeline  # loads torch
    from hgc_video.models.parts import ModelParts

    kept: dict[str, tuple[Any, Any]] = {}

    def load(*asked: Any, **options: Any) -> Any:
        stock = options.get("parts") in (None, ModelParts())
        main = threading.current_thread() is threading.main_thread()
        if asked[0] != "puppet" or not stock or not main:
            return load_pipeline(*asked, **options)
        key = repr((asked, options))
        if key not in kept:
            pipe = load_pipeline(*asked, **options)
            kept[key] = pipe, pipe.scheduler
        pipe, pipe.scheduler = kept[key]
        return pipe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hgc_video.generator.load_pipeline", load)
        yield


@pytest.fixture
def stock_signals() -> Iterator[None]:
    """Ctrl-C interrupts and SIGTERM ends, whatever a shell has ignored, or Ray has put in their place."""
    stock = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in stock.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without a home folder, as in a container with a user id of its own, in an empty folder."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "HGC_VIDEO_HOME"):
        monkeypatch.delenv(name, raising=False)
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of hgc_video.generate that name no number of steps take two."""
    few = functools.partial(hgc_video.generate, num_inference_steps=2)
    monkeypatch.setattr(hgc_video, "generate", few)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, which the project does not ship."""
    if not DATA.is_dir():
        pytest.skip(f"real clips are not at {DATA}")
    return DATA


@pytest.fixture
def report() -> Report:
    """A small report with round numbers."""
    return Report(
        prompt="a dancer in a café",
        negative_prompt=None,
        model="puppet",
        preset="balanced",
        num_inference_steps=2,
        guidance_scale=2.5,
        conditioning_scale=1.0,
        seed=7,
        num_frames=16,
        height=128,
        width=96,
        fps=8.0,
        device="cpu",
        dtype="float32",
        macs_by_part={"unet": 300 * 10**9, "controlnet": 100 * 10**9},
        macs_baseline_by_part={"unet": 800 * 10**9, "controlnet": 200 * 10**9},
        seconds={"load": 1.0, "denoise": 4.25, "total": 5.5},
        peak_nbytes=3 * 2**20,
        cache_nbytes=2**20,
        memory="level 1: windows of 16 frames, whole layers",
        predicted_peak_nbytes=0,
        schedule=Schedule("balanced", (StepPlan(), StepPlan(frozenset({"unet.x"}), reason="y"))),
        steps=(
            StepSummary(0, "key", 2, 3, 3, 400 * 10**9, 500 * 10**9, 2**20, "code F"),
            StepSummary(1, "skip", 2, 0, 3, 0, 500 * 10**9, 0, "code H"),
        ),
        versions={"hgc_video": "0.1.0", "torch": "2.13.0"},
        options={"prompt": "a dancer in a café", "seed": 7},
    )
