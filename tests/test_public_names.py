"""The public surface: every name is there, documented, typed, and loaded on first use only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hgc_video
from hgc_video import errors


def test_the_public_names_are_these():
    assert hgc_video.__all__ == [
        "Clip", "Generator", "HGCVideoError", "Report", "__version__", "disable_cache", "enable_cache",
        "generate", "resume", "run_shot",
    ]  # fmt: skip
    assert set(hgc_video.__all__) <= set(dir(hgc_video))


@pytest.mark.parametrize("name", [n for n in hgc_video.__all__ if not n.startswith("_")])
def test_every_public_name_is_found_and_documented(name):
    assert getattr(hgc_video, name).__doc__


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        _ = hgc_video.generat


def test_the_version_is_the_newest_one_of_the_changelog_or_the_one_after_it():
    """Where the newest changes are not released, the version is that of the last release or, before the
    first, 0.1.0."""
    import re

    root = Path(__file__).resolve().parent.parent
    released = re.findall(r"^## \[(\d\S*)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert hgc_video.__version__ == (released[0] if released else "0.1.0")


def test_every_error_is_one_of_ours():
    defined = [v for v in vars(errors).values() if isinstance(v, type)]
    ours = [kind for kind in defined if kind.__module__ == errors.__name__]
    raised = [kind for kind in ours if not issubclass(kind, Warning)]
    assert len(raised) > 5
    assert all(issubclass(error, hgc_video.HGCVideoError) for error in raised)


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, hgc_video; dir(hgc_video); hgc_video.HGCVideoError;"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
