"""Figures are those of configs/results, and those are of the weights that are shipped: pages, pictures,
notebooks and schedules. What falls behind is made again by scripts/reproduce."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hgc_video.evaluate.results_header import FIELDS, png_header
from hgc_video.models.identity import model_hash
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.policies.searched import load_coded_schedule
from hgc_video.plan.presets import SEARCHED

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "configs" / "results"
SCHEDULES = ROOT / "configs" / "schedules"
TABLE = runpy.run_path(str(ROOT / "scripts" / "results_table.py"))
PAGES = TABLE["PAGES"]
AGAIN = "of other weights; run scripts/reproduce"
# A number with a unit, or with a decimal point.
FIGURE = re.compile(
    r"\d+(?:\.\d+)? ?(?:dB|%|ms|s|T|KB|MB|GB|KiB|MiB|GiB|minutes|hours)(?!\w)|\b\d+\.\d+\b"
)
VERSION = re.compile(r"Python 3\.11(?:, 3\.12)? or 3\.1[23]|on 3\.13|Stable Diffusion 1\.5, 2\.1")


@pytest.fixture(scope="module")
def rewritten():
    """A page with its figures as the files have them."""
    made = TABLE["sections"](RESULTS)
    return lambda text: TABLE["rewritten"](text, made)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_page_is_what_the_files_say(page, rewritten):
    assert rewritten(page.read_text()) == page.read_text(), "run scripts/results_table.py"


def sections(text):
    return re.findall(
        r"<!-- ([^:>]+): scripts/results_table.py -->\n(.*?)\n<!-- end of \1 -->", text, re.DOTALL
    )


def test_every_section_stands_in_a_page_and_every_mark_is_of_a_section():
    marked = {name for page in PAGES for name, _ in sections(page.read_text())}
    assert marked == set(TABLE["sections"](RESULTS))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_figure_that_is_changed_by_hand_is_found(page, rewritten):
    """Whichever figure of whichever section."""
    text = page.read_text()
    figures = 0
    for _, body in sections(text):
        begin = text.index(body)
        for found in re.finditer(r"\d+\.\d+", body):
            at = begin + found.end() - 1
            changed = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
            figures += 1
            assert rewritten(changed) == text != changed
    assert figures > 2


def test_a_figure_that_changes_in_a_file_changes_both_pages(tmp_path):
    for file in RESULTS.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    told = json.loads((tmp_path / "compare-25.json").read_text())
    for figure in told["figures"]:
        if figure["method"] == "balanced":
            figure["psnr_db"] -= 3
    (tmp_path / "compare-25.json").write_text(json.dumps(told))
    copies = []
    for page in PAGES[:2]:
        copies.append(tmp_path / f"{page.parent.name}-{page.name}")
        copies[-1].write_text(page.read_text())
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "results_table.py", "--results", tmp_path, "--pages", *copies],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for page, copy in zip(PAGES[:2], copies, strict=True):
        assert copy.read_text() != page.read_text()


# Figures that stand in the text itself, with what they are figures of.


def schedule(name):
    return load_coded_schedule(SCHEDULES / f"{name}.yaml")


def in_the_text():
    kinds = {3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth"}
    shares = {name: schedule(name).metadata["share"] for name in ("fast", "turbo")}
    return {
        "quality": f"| `quality` | {schedule('quality').step_ratio:g} times as many steps",
        "balanced": f"| `balanced` | {100 * schedule('balanced').metadata['budget']:.0f} % of the MACs",
        **{n: f"| `{n}` | a {kinds[round(1 / share)]} of the MACs" for n, share in shares.items()},
    }


def test_readmes_table_of_presets_says_what_the_schedules_cost():
    for told in in_the_text().values():
        assert told in PAGES[0].read_text()


def strays(text):
    """Figures outside the written sections, of code, of versions, and of what is held above."""
    for name, body in sections(text):
        begin, end = TABLE["marks"](name)
        text = text.replace(f"{begin}\n{body}\n{end}", "")
    for told in in_the_text().values():
        text = text.replace(told, "")
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return FIGURE.findall(VERSION.sub("", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_no_figure_stands_outside_of_what_is_written_from_files(page):
    text = page.read_text()
    assert strays(text) == []
    assert strays(text + "\nIt saves 12 % at 41.5 dB.\n") == ["12 %", "41.5 dB"]


# What was measured on other weights


def results():
    return sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", results(), ids=lambda path: path.stem)
def test_every_file_says_what_it_was_measured_on_and_that_is_what_is_shipped(path):
    header = json.loads(path.read_text())["header"]
    assert tuple(header) == FIELDS
    assert header["date"] and header["commit"]
    check(header)


def check(header):
    model = header["model"]
    if model is None:
        assert header["model_hash"] is None
    else:
        named = model if model == "puppet" else str(ROOT / model)
        assert header["model_hash"] == model_hash(named), AGAIN


def test_every_picture_is_of_the_weights_that_are_shipped():
    pictures = [*RESULTS.glob("*.png"), *(ROOT / "examples").rglob("*.png")]
    assert len(pictures) >= 3
    for path in pictures:
        check(png_header(path))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_the_outputs_of_a_notebook_are_of_the_weights_that_are_shipped(path):
    check(json.loads(path.read_text())["metadata"]["hgc_video"])


def test_calibration_and_schedules_are_of_the_weights_that_are_shipped():
    shipped = model_hash("puppet")
    calibration = load_calibration(ROOT / "configs" / "puppet-calibration.yaml")
    assert calibration.setting.model_hash == shipped, AGAIN
    own = [
        *(f"{name}" for name in SEARCHED),
        *(f"solvers/{p.stem}" for p in SCHEDULES.glob("solvers/*")),
    ]
    for name in own:
        assert schedule(name).metadata["model_hash"] == shipped, AGAIN
