"""README's figures are those of configs/results: the tables are what the script makes of the files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "configs" / "results" / "README.md")


def rewritten(tmp_path, results):
    copies = []
    for page in PAGES:
        copies.append(tmp_path / f"{page.parent.name}-{page.name}")
        copies[-1].write_text(page.read_text())
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "results_table.py", "--results", results, "--pages", *copies],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [copy.read_text() for copy in copies]


def test_every_table_is_what_the_files_say(tmp_path):
    assert rewritten(tmp_path, ROOT / "configs" / "results") == [p.read_text() for p in PAGES]


def test_a_figure_that_changes_changes_both_pages(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for file in (ROOT / "configs" / "results").glob("*.json"):
        (results / file.name).write_text(file.read_text())
    told = json.loads((results / "compare-25.json").read_text())
    for figure in told["figures"]:
        if figure["method"] == "balanced":
            figure["psnr_db"] -= 3
    (results / "compare-25.json").write_text(json.dumps(told))
    for page, text in zip(PAGES, rewritten(tmp_path, results), strict=True):
        assert text != page.read_text()


@pytest.mark.parametrize(
    "name", ["compare-25", "rivals-25", "rivals-2026", "other-settings", "guard"]
)
def test_every_file_says_what_it_was_measured_on(name):
    told = json.loads((ROOT / "configs" / "results" / f"{name}.json").read_text())
    for one in told if isinstance(told, list) else [told]:
        assert one["task"] and one["figures"]
    first = told[0] if isinstance(told, list) else told
    assert first["date"] and first["machine"]
