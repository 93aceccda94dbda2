"""The contact sheet: small images of evenly spaced rows with their texts, then near-duplicates next to each other.

rows -> blocks of (small image, lines under it) -> a PNG file
"""

import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import PIL.Image
from PIL import ImageDraw, ImageFont, PngImagePlugin

from ..utils.files import atomic_path
from .images import TILE
from .survey import Row, Survey

WRITER = "hf-pretext look"  # in the file, so that only own sheets are replaced
ABREAST, GAP, MARGIN = 8, 16, 24  # images in a row; pixels between images and around them
LETTERS, LINES, LINE = 21, 3, 15  # of a text under an image: letters of a line, lines, pixels of a line
TITLE = 44  # pixels
CLOSER = 5  # pixels by which the images of a pair move towards each other
FONT, BOLD = "DejaVuSans.ttf", "DejaVuSans-Bold.ttf"
GREY, RED, FRAME = "#57606a", "#cf222e", "#d0d7de"
PAIRED = "near-duplicates, in pairs"  # title of the second block
SHOWN = ("image", "video", "audio")  # kinds with a small image
PAIRS = 12


class Tile(NamedTuple):
    """An image of the sheet. image: a JPEG; empty for a row that can't be used. text: under it. alarm: in red."""

    image: bytes
    text: str
    alarm: bool = False


def check_free(path: str | os.PathLike) -> None:
    """Raises `ValueError` if a sheet can't be written to a path, or another file is there."""
    path = Path(path)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"--output {path} can't be written. Give a file in an existing, writable folder.")
    if path.suffix.lower() != ".png":
        raise ValueError(f"--output {path} is no PNG file. Give a name that ends in .png.")
    if path.exists() and not is_sheet(path):
        raise ValueError(f"--output {path} exists and was not written by {WRITER}. Give another name, or delete it.")


def is_sheet(path: Path) -> bool:
    """Returns True for a file that `draw` wrote."""
    try:
        with PIL.Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Software") == WRITER
    except (OSError, ValueError, SyntaxError):
        return False


def has_images(data_columns: Mapping[str, str]) -> bool:
    """Returns True if rows with these columns have images for a sheet."""
    return any(kind in data_columns for kind in SHOWN)


def draw(path: str | os.PathLike, survey: Survey, name: str, copies: dict | None) -> None:
    """Writes the sheet. name: of the data set. copies: what `copies_of` returned."""
    kind = next(kind for kind in SHOWN if any(kind in {**row.facts, **row.reasons} for row in survey.rows))
    labelled = len({row.label for row in survey.rows} - {None}) > 1  # the only class says nothing
    what = {"image": "images", "video": "films, by their middle frame", "audio": "spectrograms of sounds"}[kind]
    blocks = {f"{name}: {what}, evenly spaced": [tile(row, kind, labelled) for row in survey.rows if row.shown]}
    pairs = pairs_of(survey, kind, (copies or {}).get("near"))
    if pairs:
        blocks[PAIRED] = [tile(row, kind, labelled, with_split=True) for pair in pairs for row in pair]
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", WRITER)
    with atomic_path(path) as temporary:
        drawn(blocks).save(temporary, "PNG", pnginfo=info)


def pairs_of(survey: Survey, kind: str, near: dict | None) -> list[list[Row]]:
    """Returns the example pairs of near-duplicates whose small images are in memory."""
    places = {(row.split, row.key): row for row in survey.of(kind)}
    pairs = [[places[each["split"], each["key"]] for each in pair["rows"]] for pair in (near or {}).get("examples", [])]
    return [pair for pair in pairs if all(row.facts[kind].tile for row in pair)][:PAIRS]


def tile(row: Row, kind: str, labelled: bool = True, with_split: bool = False) -> Tile:
    """Returns the image of a row and the text under it: class and caption, or why it can't be used."""
    file = PurePath(row.path or row.key).name
    if kind not in row.facts:
        return Tile(b"", f"{file}: {row.reasons.get('row') or row.reasons.get(kind, 'empty')}", alarm=True)
    texts = [row.facts[each].excerpt for each in ("text", "subtitles") if each in row.facts]
    label = [f"[{row.label}]"] if labelled and row.label is not None else []
    where = [f"{row.split}:"] if with_split else []
    return Tile(row.facts[kind].tile, " ".join([*where, *label, *(texts or [file])]))


def drawn(blocks: Mapping[str, Sequence[Tile]]) -> PIL.Image.Image:
    """Draws blocks of images, each below its title. The images of `PAIRED` are drawn in pairs."""
    heights = {title: height_of(tiles) for title, tiles in blocks.items()}
    rows = {title: -(-len(tiles) // ABREAST) for title, tiles in blocks.items()}
    width = 2 * MARGIN + ABREAST * (TILE + GAP) - GAP
    sheet = PIL.Image.new("RGB", (width, MARGIN + sum(TITLE + rows[each] * heights[each] for each in blocks)), "white")
    pen, y = ImageDraw.Draw(sheet), MARGIN
    for title, tiles in blocks.items():
        pen.text((MARGIN, y), title, "black", font(BOLD, 18))
        y += TITLE
        for number, each in enumerate(tiles):
            row, column = divmod(number, ABREAST)
            moved = 0 if title != PAIRED else -CLOSER if number % 2 else CLOSER
            draw_tile(sheet, pen, each, MARGIN + column * (TILE + GAP) + moved, y + row * heights[title])
        y += rows[title] * heights[title]
    return sheet


def height_of(tiles: Sequence[Tile]) -> int:
    """Returns the height of a row of images with the longest of their texts, in pixels."""
    return TILE + max(len(lines_of(each.text)) for each in tiles) * LINE + GAP


def lines_of(text: str) -> list[str]:
    """Returns a text in lines, shortened if they are too many."""
    return textwrap.wrap(text, LETTERS, max_lines=LINES, placeholder=" …")


def draw_tile(sheet: PIL.Image.Image, pen: ImageDraw.ImageDraw, each: Tile, x: int, y: int) -> None:
    """Draws an image in the middle of its place, with a thin frame, and the text under it."""
    color = RED if each.alarm else GREY
    if each.image:
        image = PIL.Image.open(io.BytesIO(each.image))
        left, top = x + (TILE - image.width) // 2, y + (TILE - image.height) // 2
        sheet.paste(image, (left, top))
        pen.rectangle((left - 1, top - 1, left + image.width, top + image.height), outline=FRAME)
    else:
        pen.rectangle((x, y, x + TILE, y + TILE), outline=RED)
        pen.line((x, y, x + TILE, y + TILE), RED)
        pen.line((x, y + TILE, x + TILE, y), RED)
    pen.multiline_text((x, y + TILE + 3), "\n".join(lines_of(each.text)), color, font(FONT, 11), spacing=2)


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Returns a font of matplotlib's, which has more letters than Pillow's default."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", name)), size)
