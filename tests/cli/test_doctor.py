"""The doctor: what it says about this very installation, and about one that lacks things."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from hgc_video.cli import doctor
from hgc_video.errors import ModelError


@pytest.fixture(scope="module")
def findings():
    return {finding.name: finding for finding in doctor.examine()}


def test_versions_are_the_installed_ones(findings):
    for name in ("torch", "diffusers", "transformers", "hgc-video"):
        assert findings[name].value == metadata.version(name)
        assert findings[name].ok


def test_every_extra_has_a_line(findings):
    assert {n for n, f in findings.items() if f.section == "extras"} == {
        "pose", "edges", "rtmpose", "softedge", "scenes", "lora", "prompts", "cluster", "ui", "notebooks",
        "eval", "dev",
    }  # fmt: skip


def test_the_extra_that_runs_this_test_is_complete(findings):
    assert findings["dev"].value == "complete"


def test_what_is_missing_comes_with_its_command(monkeypatch):
    """With a driver that torch cannot use, a package and an extra's package gone, and no model."""

    def version(name, installed=metadata.version):
        if name in ("accelerate", "hypothesis"):
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    def no_model(name):
        raise ModelError("the model is not there")

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("hgc_video.models.load.model_folder", no_model)
    lacking = {finding.name: finding for finding in doctor.examine() if not finding.ok}
    assert set(lacking) >= {"accelerate", "dev", "cuda", "puppet"}
    for name, part in (("dev", '[dev]"'), ("cuda", "CUDA build"), ("puppet", "restore")):
        assert part in lacking[name].remedy
    assert all(finding.remedy for finding in lacking.values())


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
    if "-e " in command:
        folder = Path(command.split('"')[1].removesuffix("[pose]"))
        assert (folder / "pyproject.toml").is_file()


def test_devices_and_threads_are_told(findings):
    assert findings["threads"].value.startswith("1 ")
    assert "cores" in findings["cpu"].value
    assert findings["NVIDIA driver"].value in {"found", "none"}


def test_the_embedded_model_is_complete(findings):
    assert findings["puppet"].value.startswith("complete"), findings["puppet"].value
