"""Reading our own Markdown: links, headings, code spans, tables and fenced blocks. Only what our documents use."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)")
SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+){0,2})`")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after its fence, and its text."""

    words: tuple[str, ...]
    text: str


def documents() -> list[Path]:
    """Return every Markdown file for people."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks in order."""
    found = FENCE.finditer(document.read_text(encoding="utf-8"))
    return [Block(tuple(match["info"].split()), match["text"]) for match in found]


def prose(document: Path) -> str:
    """Return the text without its fenced blocks."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def links(document: Path) -> list[str]:
    """Return the targets of all links; code is not a link."""
    return [match["target"] for match in LINK.finditer(SPAN.sub("`code`", prose(document)))]


def spans(document: Path) -> list[str]:
    """Return the code spans of the prose, each on one line."""
    return [" ".join(text.split()) for text in SPAN.findall(prose(document))]


def shell_lines(document: Path) -> list[str]:
    """Return everything that a reader may type: shell blocks, commands of transcripts, and code spans."""
    lines: list[str] = []
    for block in blocks(document):
        if block.words[:1] == ("sh",):
            lines += block.text.splitlines()
        elif block.words[:1] == ("console",):
            lines += [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    return lines + spans(document)


def headings(document: Path) -> list[str]:
    """Return the headings as they are written."""
    return re.findall(r"^#{1,6} +(.+?) *#*$", prose(document), re.M)


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    found: set[str] = set()
    for heading in headings(document):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        kept = "".join(char for char in text if char in "-_ " or unicodedata.category(char)[0] in "LNM")
        anchor, number = kept.replace(" ", "-"), 0
        while (anchor if not number else f"{anchor}-{number}") in found:
            number += 1
        found.add(anchor if not number else f"{anchor}-{number}")
    return found


def rows(document: Path, start: str) -> list[list[str]]:
    """Return the cells of table rows that begin so."""
    lines = [line for line in prose(document).splitlines() if line.startswith(start)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
