"""The documentation as its tests read it: fenced blocks, tables, headings and links of Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CHANGELOG.md", *DOCS.glob("*.md")])

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, and where it begins."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str, page: Path | None = None, after: str = "", before: str = "") -> list[Block]:
    """Return the blocks of some languages, of one page or all, perhaps only those between two headings."""
    found: list[Block] = []
    for path in [page] if page else PAGES:
        text = path.read_text()
        start = text.index(after) if after else 0
        end = text.index(before, start) if before else len(text)
        found += [
            Block(path, text.count("\n", 0, match.start()) + 1, match[1], match[2])
            for match in _FENCE.finditer(text)
            if match[1] in languages and start <= match.start() < end
        ]
    return found


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def rows(page: Path, *, after: str = "") -> list[list[str]]:
    """Return the cells of the tables' rows, those below a heading at the most, without headers and rules."""
    text = prose(page)
    if after:
        text = re.split(rf"^{re.escape(after)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
        level = after.partition(" ")[0]
        text = re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = text.splitlines()
    cells = []
    for number, line in enumerate(lines):
        is_row = line.startswith("|") and not line.startswith("|---")
        is_header = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if is_row and not is_header:
            cells.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return cells


def code(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = (re.sub(r"[`*_]", "", heading).strip().lower() for heading in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Return where a page's links and images lead."""
    return _LINK.findall(re.sub(r"`[^`\n]+`", "", prose(page)))
