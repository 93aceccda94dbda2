"""Suffixes of image files, and the formats that an optional package reads.

files of a folder -> those that are images here; bytes of an image -> further formats for Pillow
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import features

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
HEIC, AVIF = (".heic", ".heif"), (".avif",)
HOW = {  # to read the files that can't be read without it
    **dict.fromkeys(HEIC, "pip install 'hf_pretext[heic]'"),
    **dict.fromkeys(AVIF, "pip install --upgrade pillow"),
}
BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # of both formats
NO_DATA = ("readme", "license", "licence")  # names of files, without their suffix, that are not reported


def has_heic() -> bool:
    """Returns True if pillow-heif is installed (the extra `heic`)."""
    return find_spec("pillow_heif") is not None


@cache
def image_suffixes() -> frozenset[str]:
    """Returns the suffixes of files that are read as images."""
    return frozenset({*SUFFIXES, *(HEIC if has_heic() else ()), *(AVIF if features.check("avif") else ())})


def further_formats(content: bytes) -> tuple[str, ...]:
    """Returns the names of Pillow's formats for HEIC and AVIF content; `()` for other content.

    Registers the reader of HEIC at the first such content. Raises `ValueError` if neither can be read."""
    if content[4:8] != b"ftyp" or content[8:12] not in BRANDS:
        return ()
    formats = (*(["AVIF"] if features.check("avif") else []), *(["HEIF"] if has_heic() else []))
    if "HEIF" in formats:
        register_heic()
    elif content[8:9] == b"h" or not formats:
        raise ValueError(f"HEIC can't be read without a package: {HOW['.heic']}")
    return formats


@cache
def register_heic() -> None:
    """Adds the reader of HEIC to Pillow."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def left_out_note(files: Sequence[Path], used: set[Path]) -> str | None:
    """Returns the number of files by suffix that are not used, with the fix if a package reads them; None for none.

    Hidden files and those of `NO_DATA` do not count."""
    others = [file for file in files if file not in used and not file.name.startswith(".")]
    counts = Counter(file.suffix.lower() for file in others if file.stem.lower() not in NO_DATA)
    if not counts:
        return None
    words = [
        f"{count:,} {suffix or 'without a suffix'}{f' (to read them: {HOW[suffix]})' if suffix in HOW else ''}"
        for suffix, count in counts.most_common()
    ]
    return f"{sum(counts.values()):,} files are left out, by suffix: {', '.join(words)}"
