"""Sheets of pictures in rows and columns, with heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_FONT_SIZE, _LINE, _GAP = 16, 20, 5  # pixels


def draw_sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    top: Sequence[str] = (),
    left: Sequence[str] = (),
    below: Sequence[str] = (),
    side: int = 128,
) -> np.ndarray:
    """Return a (H, W, 3) uint8 sheet of (h, h, 3) uint8 pictures; None leaves a place empty.

    Pictures are squares of at least `side` pixels: the largest one is repeated a whole number of times, so that it keeps
    its pixels. Texts stand above columns, beside rows and below groups of columns.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    largest = max((len(one) for row in rows for one in row if one is not None), default=side)
    step = -(-side // largest) * largest + _GAP
    lines = max((text.count("\n") + 1 for text in top), default=0)
    head = lines * _LINE + 2 * _GAP if lines else 0
    margin = max((round(font.getlength(text)) + 2 * _GAP for text in left), default=0)
    size = (margin + step * len(rows[0]) - _GAP, head + step * len(rows) - _GAP + (_LINE + 2 * _GAP if below else 0))
    sheet = Image.new("RGB", size, "white")
    for row, pictures in enumerate(rows):
        for column, one in enumerate(pictures):
            if one is not None:
                square = Image.fromarray(one).resize((step - _GAP, step - _GAP), Image.Resampling.NEAREST)
                sheet.paste(square, (margin + step * column, head + step * row))
    draw, middle = ImageDraw.Draw(sheet), (step - _GAP) / 2
    for column, text in enumerate(top):
        place = (margin + step * column + middle, head - _GAP)
        draw.multiline_text(place, text, "black", font, anchor="md", align="center")
    for row, text in enumerate(left):
        draw.text((margin - _GAP, head + step * row + middle), text, "black", font, anchor="rm")
    for number, text in enumerate(below):
        width = step * len(rows[0]) / len(below)
        draw.text((margin + width * (number + 0.5), size[1] - _GAP), text, "black", font, anchor="md")
    return np.asarray(sheet)


def with_note(sheet: np.ndarray, note: str) -> np.ndarray:
    """Return the sheet with a text below it."""
    font = ImageFont.load_default(_FONT_SIZE)
    width = max(sheet.shape[1], round(font.getlength(note)) + 2 * _GAP)
    result = Image.new("RGB", (width, len(sheet) + _LINE + 2 * _GAP), "white")
    result.paste(Image.fromarray(sheet), ((width - sheet.shape[1]) // 2, 0))
    ImageDraw.Draw(result).text((width / 2, result.height - _GAP), note, "black", font, anchor="md")
    return np.asarray(result)
