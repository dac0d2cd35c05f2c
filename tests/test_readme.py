"""The README is true: its commands and its Python run, its links and its tree exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [code for kind, skip, code in BLOCKS if kind == language and not skip]


@pytest.fixture(autouse=True)
def runs_folder():
    (ROOT / "runs").mkdir(exist_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for written in re.findall(r'save\("([^"]+)"\)', code):
        assert (ROOT / written).stat().st_size > 0


def commands():
    """Lines of the shell blocks that call our command; the set-up scripts are run elsewhere."""
    lines = [line for code in blocks("bash") for line in code.splitlines()]
    return [line for line in lines if line.startswith("hgc-video")]


@pytest.mark.slow
@pytest.mark.parametrize("line", commands(), ids=lambda line: " ".join(line.split()[:2]))
def test_commands_run(line):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line, shell=True, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for written in re.findall(r"(?:--out|--report) (\S+)", line):
        assert (ROOT / written).stat().st_size > 0


def test_the_first_two_commands_are_scripts_that_can_be_run():
    first, second = (code.strip() for code in blocks("bash")[:2])
    assert (first, second) == ("scripts/demo", "scripts/check")
    for script in (first, second, ".ci/run"):
        assert os.access(ROOT / script, os.X_OK)
        subprocess.run(["bash", "-n", ROOT / script], check=True)
    subprocess.run(["bash", "-n", ROOT / "scripts" / "bootstrap"], check=True)


def test_links_exist():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    gone = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not gone


def test_the_tree_is_the_package():
    """Every file and room of the package has its line, and no line is of something gone."""
    (tree,) = blocks("text")
    named = set(re.findall(r"^  (\S+)", tree, re.MULTILINE))
    top = {p for p in (ROOT / "hgc_video").iterdir() if p.name not in {"__pycache__", "py.typed"}}
    there = {f"{p.name}/" if p.is_dir() else p.name for p in top}
    assert named == there
    for folder in re.findall(r"^(\w+/)", tree, re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_top_level_holds_only_what_it_may():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    if not any(tracked):
        pytest.skip("this is no git checkout")
    top = {name.split("/")[0] for name in tracked if name}
    assert {name for name in top if not name.startswith(".")} <= {
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
        "hgc_video", "tests", "examples", "configs", "scripts",
    }  # fmt: skip
