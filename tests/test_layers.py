"""Which room may import which, read from the sources; and what no file may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hgc_video

PACKAGE = Path(hgc_video.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Each room and what it may import of ours, besides itself and errors. What is not listed here may
# import everything but the edge.
MAY_IMPORT = {
    "errors": set(),
    "atomic": {"paths"},
    "paths": set(),
    "stopwatch": set(),
    "plan": set(),
    "cache": {"plan"},
    "models": {"plan", "measure", "paths"},
    "measure": {"plan"},
    "media": {"atomic", "paths"},
    "report": {"atomic", "savings"},
    "saved": {"savings"},
    "savings": set(),
    "clip": {"report", "media"},
    "request": {"media", "models"},
    "denoise": {"plan", "guidance"},
    "guidance": set(),
    "hosts": {"guidance", "measure", "models", "request", "text"},
    "text": {"travel"},
    "travel": set(),
    "puppet": {"media", "models", "measure"},
}
EDGE = {"cli", "batch"}
READS_ENVIRONMENT = {*EDGE, "paths"}  # where a user says that our own folder is to be
# Only these may load a library when they are imported; the others must wait until they are used.
PURE = {
    "__init__",
    "errors",
    "atomic",
    "paths",
    "stopwatch",
    "plan",
    "report",
    "saved",
    "savings",
    "cli",
    "doctor",
}
HEAVY = {"torch", "diffusers", "transformers", "numpy", "av", "PIL"}


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree, path):
    """Dotted names imported anywhere in a file; relative ones made absolute."""
    here = ["hgc_video", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*module, alias.name]) for alias in node.names)


def rooms_used(path):
    for name in imports(ast.parse(path.read_text()), path):
        parts = name.split(".")
        if parts[0] == "hgc_video" and len(parts) > 1:
            yield parts[1]


def ids(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_arrows_point_one_way(path):
    own = room(path)
    used = set(rooms_used(path)) - {own, "errors", "__version__"}
    assert not used & EDGE, f"nobody imports {used & EDGE}"
    if own in MAY_IMPORT:
        assert used <= MAY_IMPORT[own], f"{own} must not import {used - MAY_IMPORT[own]}"


def test_the_walk_sees_relative_and_absolute_imports():
    code = (
        "from ..errors import A\nfrom . import b\nimport hgc_video.cli\n"
        "def f():\n from ..x.y import z"
    )
    found = set(imports(ast.parse(code), PACKAGE / "plan" / "some.py"))
    assert found == {"hgc_video.errors.A", "hgc_video.plan.b", "hgc_video.cli", "hgc_video.x.y.z"}


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) == "plan"], ids=ids)
def test_plans_are_made_without_a_tensor(path):
    used = {name.split(".")[0] for name in imports(ast.parse(path.read_text()), path)}
    assert not used & HEAVY


def test_pure_modules_load_nothing_heavy():
    pure = [p for p in SOURCES if room(p) in PURE]
    names = [".".join(("hgc_video", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in pure]
    names = [name.removesuffix(".__init__") for name in names]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"heavy = sorted(set({sorted(HEAVY)!r}) & set(sys.modules))\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_only_one_file_replaces_a_forward(path):
    text = path.read_text()
    assigns = re.search(r"\.forward\s*=[^=]|setattr\([^)]*[\"']forward[\"']", text)
    assert not assigns or path == PACKAGE / "cache" / "patch.py"


def replaced_methods(tree):
    """Attributes of objects other than self that are given a function made on the spot."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    inner = {
        n.name for f in functions for n in ast.walk(f) if isinstance(n, ast.FunctionDef) and n != f
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            made = isinstance(node.value, ast.Lambda) or (
                isinstance(node.value, ast.Name) and node.value.id in inner
            )
            for target in node.targets:
                of_self = isinstance(getattr(target, "value", None), ast.Name) and (
                    target.value.id == "self"
                )
                if made and isinstance(target, ast.Attribute) and not of_self:
                    yield target.attr


def test_only_one_file_replaces_a_method_of_an_instance():
    code = "def f(s):\n def g(): pass\n s.set_timesteps = g\n s.a.step = lambda: 0\n s.n = 1"
    assert list(replaced_methods(ast.parse(code))) == ["set_timesteps", "step"]
    found = {ids(p): list(replaced_methods(ast.parse(p.read_text()))) for p in SOURCES}
    assert {name for name, attributes in found.items() if attributes} <= {"cache/patch.py"}


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_no_file_has_mutable_globals_or_reads_the_environment(path):
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    if room(path) not in READS_ENVIRONMENT:
        assert "os.environ" not in path.read_text()
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Dict | ast.List):
            names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
            assert names[0].isupper() or names[0].startswith("__") or names[0].lstrip("_").isupper()


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_every_module_says_what_it_is(path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))
