"""The doctor: what it says about this very installation, and about one that lacks things."""

from __future__ import annotations

from importlib import metadata

import pytest

from hgc_video.cli import doctor


@pytest.fixture(scope="module")
def findings():
    return {finding.name: finding for finding in doctor.examine()}


def test_versions_are_the_installed_ones(findings):
    for name in ("torch", "diffusers", "transformers", "hgc-video"):
        assert findings[name].value == metadata.version(name)
        assert findings[name].ok


def test_every_extra_has_a_line(findings):
    assert {n for n, f in findings.items() if f.section == "extras"} == {
        "pose", "cluster", "notebooks", "eval", "dev",
    }  # fmt: skip


def test_the_extra_that_runs_this_test_is_complete(findings):
    assert findings["dev"].value == "complete"


def test_what_is_missing_comes_with_its_command(findings):
    for finding in findings.values():
        if not finding.ok:
            assert finding.remedy


def test_a_missing_package_and_a_missing_extra_are_named(monkeypatch):
    def without(*names):
        installed = metadata.version

        def version(name):
            if name in names:
                raise metadata.PackageNotFoundError(name)
            return installed(name)

        return version

    monkeypatch.setattr(metadata, "version", without("accelerate", "mypy"))
    found = {finding.name: finding for finding in doctor.examine()}
    assert not found["accelerate"].ok
    assert "pip install" in found["accelerate"].remedy
    assert found["dev"].value == "lacks mypy"
    assert found["dev"].remedy.endswith('[dev]"')


def test_the_install_command_names_this_python_and_the_extra():
    import sys

    command = doctor.install_command("pose")
    assert command.startswith(f"{sys.executable} -m pip install ")
    assert command.endswith('[pose]"')


def test_devices_and_threads_are_told(findings):
    assert findings["threads"].value.startswith("1 ")
    assert "cores" in findings["cpu"].value
    assert findings["NVIDIA driver"].value in {"found", "none"}


def test_the_embedded_model_is_complete(findings):
    assert findings["puppet"].value.startswith("complete"), findings["puppet"].value
