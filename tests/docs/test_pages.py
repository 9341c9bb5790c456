"""The pages by themselves: their code compiles, their JSON is JSON, their links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs import pages


@pytest.mark.parametrize("block", pages.blocks("python"), ids=str)
def test_python_compiles(block: pages.Block) -> None:
    compile(block.code, str(block), "exec")


@pytest.mark.parametrize("block", pages.blocks("python"), ids=str)
def test_what_python_imports_is_there(block: pages.Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("django_chat_sessions"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("block", pages.blocks("json"), ids=str)
def test_json_is_json(block: pages.Block) -> None:
    json.loads(block.code)


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in pages.links(page):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in pages.anchors(target), link


def test_index_lists_every_page() -> None:
    listed = {name for block in _toctrees() for name in block.split()}
    written = {page.stem for page in pages.DOCS.glob("*.md")} - {"index"}
    assert written <= listed


def _toctrees() -> list[str]:
    text = (pages.DOCS / "index.md").read_text()
    return re.findall(r"```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)```", text, re.DOTALL)


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (pages.ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in pages.PAGES:
        named = re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text())
        assert set(named) <= targets, page.name


def test_extras_are_explained() -> None:
    extras = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    explained = [pages.code(row[0])[0] for row in pages.rows(pages.DOCS / "quickstart.md", after="## Installing")]
    assert explained == list(extras)
    readme = pages.README.read_text()
    assert all(f"`{extra}`" in readme for extra in extras)


def test_documentation_has_the_version_of_the_package() -> None:
    version = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'release = version = "{version}"' in (pages.DOCS / "conf.py").read_text()
    assert version in (pages.ROOT / "CHANGELOG.md").read_text()
