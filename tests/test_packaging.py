"""What is in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "django_chat_sessions"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return ZipFile(next(directory.glob("*.whl")))


def test_every_file_of_the_package_is_in_the_wheel(wheel: ZipFile) -> None:
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {str(path.relative_to(ROOT)) for path in files} <= set(wheel.namelist())
    assert "django_chat_sessions/py.typed" in wheel.namelist()


def test_nothing_else_is(wheel: ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert len(tops) == 2
    assert {top for top in tops if not top.endswith(".dist-info")} == {"django_chat_sessions"}


def test_only_django_and_its_rest_framework_are_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [requirement.split(">")[0] for requirement in project["dependencies"]] == ["Django", "djangorestframework"]
