"""The README is true: its commands and its Python run, its links and its tree exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hgc_video.cli import app

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
def test_python_runs(code, monkeypatch, few_steps):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    for written in re.findall(r'save\("([^"]+)"\)', code):
        assert (ROOT / written).stat().st_size > 0


def commands():
    """Lines of the shell blocks that call our command; the set-up scripts are run elsewhere."""
    lines = [line for code in blocks("bash") for line in code.splitlines()]
    return [line for line in lines if line.startswith("hgc-video")]


@pytest.mark.slow
@pytest.mark.parametrize("line", commands(), ids=lambda line: " ".join(line.split()[:2]))
def test_commands_run(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(line)
    if arguments[0] == "generate":
        arguments += ["--num-inference-steps", "2"]
    done = CliRunner().invoke(app, arguments)
    assert program == "hgc-video" and done.exit_code == 0, done.output
    for written in re.findall(r"(?:--out|--report) (\S+)", line):
        assert (ROOT / written).stat().st_size > 0


def test_the_command_is_installed():
    """The lines are taken apart as a shell does, and what they call lies beside this Python."""
    command = Path(sys.executable).parent / "hgc-video"
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("hgc-video ")
    assert not [line for line in commands() if set(line) & set("|<>$*&;`")]


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


def test_the_packages_page_names_every_file():
    """Every file and room has its line there, and no line is of something gone."""
    page = (ROOT / "hgc_video" / "README.md").read_text()
    (tree,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    named, room = set(), ""
    for line in tree.splitlines():
        name = line.split()[0]
        room = name if name.endswith("/") else room
        named.add(name if name == room else room + name)
    package = ROOT / "hgc_video"
    files = {p for p in package.rglob("*.py") if p.name != "__init__.py"}
    rooms = {f"{p.parent.relative_to(ROOT)}/" for p in package.rglob("*.py")}
    assert named == {str(p.relative_to(ROOT)) for p in files} | rooms


PAGES = [
    page for room in ("hgc_video", "configs") for page in sorted((ROOT / room).rglob("README.md"))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_of_other_pages_exist(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


def test_readme_is_short():
    assert len(TEXT.splitlines()) <= 180


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
