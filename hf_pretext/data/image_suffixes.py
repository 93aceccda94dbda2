"""Suffixes of image files, and the formats that an optional package reads.

suffixes of the files that are images here; bytes of an image -> further formats for Pillow
"""

from functools import cache
from importlib.util import find_spec

from PIL import features

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
HEIC, AVIF = (".heic", ".heif"), (".avif",)
HOW = {  # to read the files that can't be read without it
    **dict.fromkeys(HEIC, "pip install 'hf_pretext[heic]'"),
    **dict.fromkeys(AVIF, "pip install --upgrade pillow"),
}
BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # of both formats


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
