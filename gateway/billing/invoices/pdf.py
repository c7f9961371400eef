"""An invoice as a PDF: A4, every page numbered, fonts embedded, the same bytes for the same invoice.

Run as a program it reads a document from standard input and writes its PDF: shaping hundreds of lines takes a second or
two, for which no call of anybody's is to wait (drawing.py).

Names come in all scripts: the fonts are Noto's (packages of their own, none has to be installed on the machine), shaped
by HarfBuzz, and only those that a text needs are read. What no font has is left out, never a reason to fail.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import manimgx_fonts
import noto_cjk_sans_jp_regular
import uharfbuzz
from fontTools.ttLib import TTFont
from fpdf import FPDF
from fpdf.enums import TextMode
from fpdf.fonts import FontFace

from gateway.billing.invoices.document import Document, Party, Sum, parsed

FAMILY = "body"
SHAPED_BY = uharfbuzz.__version__
"""Named here because fpdf does without where it is not installed, and then joins and turns no letters."""
INK, GREY, RULE = (20, 24, 31), (96, 104, 116), (205, 210, 218)
WIDTHS = (92, 24, 27, 33)
"""Of the table's columns, in millimetres, as the page has them between its margins."""
MARGIN, BOTTOM = 17, 20
_SCRIPTS = (
    "Arabic", "Armenian", "Bengali", "Devanagari", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew", "Kannada",
    "Khmer", "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Symbols", "Tamil", "Telugu", "Thai",
)  # fmt: skip

# fontTools says much of what it leaves out of a subset.
logging.getLogger("fontTools").setLevel(logging.ERROR)
logging.getLogger("fpdf").setLevel(logging.ERROR)


def pdf_of(document: Document) -> bytes:
    """Return an invoice as a PDF."""
    sheet = _Sheet(document)
    sheet.add_page()
    _head(sheet, document)
    rows = [(row.description, row.quantity, row.unit_price, row.amount) for row in document.rows]
    _table(sheet, ("Description", "Quantity", "Unit price", "Amount (USD)"), WIDTHS, rows)
    _sums(sheet, document.sums)
    if document.others:
        others = [(row.description, row.quantity, row.amount) for row in document.others]
        _table(sheet, ("In other assets, in no sum above", "Quantity", "Amount"), (92, 24, 60), others)
    _notes(sheet, document.notes)
    return bytes(sheet.output())


class _Sheet(FPDF):
    """The pages: what repeats on each of them."""

    def __init__(self, document: Document) -> None:
        super().__init__(format="A4")
        self.document = document
        self.set_margins(MARGIN, MARGIN, MARGIN)
        self.set_auto_page_break(True, BOTTOM)
        self.set_title(f"{document.title} {document.number}")
        self.set_author(document.seller.lines[0] if document.seller.lines else "")
        self.set_creator("Tollway")
        self.set_producer("Tollway")
        self.set_lang("en")
        self.set_creation_date(document.moment)
        self._fonts(_text_of(document))
        self.alias_nb_pages("{pages}")

    def _fonts(self, text: str) -> None:
        body = _file(manimgx_fonts, "NotoSans[wght].ttf")
        self.add_font(FAMILY, "", body)
        missing = {ord(letter) for letter in text} - _letters(body)
        others: list[str] = []
        for name, path in _fallbacks():
            if missing & _letters(path):
                self.add_font(name, "", path)
                others.append(name)
                missing -= _letters(path)
        if others:
            self.set_fallback_fonts(others, exact_match=False)
        self.set_text_shaping(True)

    def style(self, size: float, colour: tuple[int, int, int] = INK, *, strong: bool = False) -> None:
        """Choose how the next text looks. Strong has an outline: a second font would take a second to make."""
        # Another size first: fpdf writes a font down where it differs, and forgets that a fallback came between.
        self.set_font(FAMILY, "", size + 1)
        self.set_font(FAMILY, "", size)
        self.set_text_color(*colour)
        self.set_draw_color(*colour)
        self.set_line_width(size / 140)
        self.text_mode = TextMode.FILL_STROKE if strong else TextMode.FILL

    def footer(self) -> None:
        """Write whose page this is, and which of how many."""
        self.set_y(-15)
        self.style(8, GREY)
        self.cell(0, 5, f"{self.document.title} {self.document.number}", align="L")
        self.set_x(self.w - MARGIN - 22)  # from the left: how wide the number of pages is nobody knows yet
        self.cell(22, 5, f"Page {self.page_no()} of {{pages}}", align="L")


def _head(sheet: _Sheet, document: Document) -> None:
    sheet.style(20, strong=True)
    sheet.cell(0, 10, document.title, new_x="LMARGIN", new_y="NEXT")
    if document.mark:
        sheet.style(11, GREY, strong=True)
        sheet.cell(0, 6, document.mark, new_x="LMARGIN", new_y="NEXT")
    sheet.ln(5)
    top = sheet.get_y()
    third = sheet.epw / 3
    bottoms = [
        _party(sheet, document.seller, MARGIN, top, third - 6),
        _party(sheet, document.buyer, MARGIN + third, top, third - 6),
        _facts(sheet, document.facts, MARGIN + 2 * third, top, third),
    ]
    sheet.set_xy(MARGIN, max(bottoms) + 8)


def _party(sheet: _Sheet, party: Party, left: float, top: float, width: float) -> float:
    sheet.set_xy(left, top)
    sheet.style(8, GREY)
    sheet.cell(width, 5, party.title)
    sheet.set_xy(left, top + 5)
    for index, line in enumerate(party.lines):
        sheet.style(9.5, strong=index == 0)
        sheet.set_x(left)
        sheet.multi_cell(width, 4.8, line, align="L", new_x="LEFT", new_y="NEXT")
    return float(sheet.get_y())


def _facts(sheet: _Sheet, facts: list[tuple[str, str]], left: float, top: float, width: float) -> float:
    sheet.set_xy(left, top)
    for label, value in facts:
        y = sheet.get_y()
        sheet.style(8, GREY)
        sheet.set_xy(left, y)
        sheet.cell(18, 4.8, label)
        sheet.style(9)
        sheet.set_xy(left + 18, y)
        sheet.multi_cell(width - 18, 4.8, value, align="R", new_x="LEFT", new_y="NEXT")
    return float(sheet.get_y())


def _table(sheet: _Sheet, titles: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[str]]) -> None:
    sheet.style(8.5)
    sheet.set_draw_color(*RULE)
    with sheet.table(
        col_widths=tuple(widths), text_align=("LEFT", *["RIGHT"] * (len(widths) - 1)), width=sheet.epw,
        borders_layout="HORIZONTAL_LINES", headings_style=FontFace(color=GREY), line_height=4.6,
        padding=(1.3, 1, 1.3, 1),
    ) as table:  # fmt: skip
        table.row(titles)
        for row in rows:
            table.row(row)
    sheet.ln(4)


def _sums(sheet: _Sheet, sums: list[Sum]) -> None:
    height = 6.0
    if sheet.get_y() + height * len(sums) > sheet.h - BOTTOM:
        sheet.add_page()
    widest = 35.0
    for one in sums:
        sheet.style(10)
        widest = max(widest, sheet.get_string_width(one.amount) + 6)
    for one in sums:
        sheet.style(10 if one.strong else 9, strong=one.strong)
        sheet.set_x(MARGIN)
        sheet.cell(sheet.epw - widest, height, one.label, align="R")
        sheet.cell(widest, height, one.amount, align="R", new_x="LMARGIN", new_y="NEXT")
    sheet.ln(5)


def _notes(sheet: _Sheet, notes: list[str]) -> None:
    for note in notes:
        sheet.style(8, GREY)
        sheet.multi_cell(0, 4.4, note, align="L", new_x="LMARGIN", new_y="NEXT")
        sheet.ln(1)


def _text_of(document: Document) -> str:
    """Return every letter that somebody else may have chosen."""
    texts = [*document.seller.lines, *document.buyer.lines, *document.notes]
    texts += [row.description + row.amount for row in [*document.rows, *document.others]]
    return "".join(texts)


def _file(package: ModuleType, name: str) -> Path:
    """Return a font's file."""
    return Path(str(package.__file__)).parent / name


@cache
def _fallbacks() -> list[tuple[str, Path]]:
    found = [(script, _file(manimgx_fonts, f"NotoSans{script}[wght].ttf")) for script in _SCRIPTS]
    found.append(("CJK", _file(noto_cjk_sans_jp_regular, "NotoSansCJKjp-Regular.otf")))
    return [*found, ("Emoji", _file(manimgx_fonts, "NotoEmoji[wght].ttf"))]


@cache
def _letters(path: Path) -> frozenset[int]:
    """Return the characters that a font has a shape for."""
    font: Any = TTFont(path, lazy=True)
    try:
        return frozenset(font.getBestCmap())
    finally:
        font.close()


if __name__ == "__main__":
    sys.stdout.buffer.write(pdf_of(parsed(sys.stdin.buffer.read())))
