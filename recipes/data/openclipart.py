"""Downloads and renders several thousand images of the Open Clip Art Library, with titles and keywords as captions.

    python recipes/data/openclipart.py                # prints the folder, which has one Parquet file
    python recipes/data/openclipart.py path/to/svgs   # renders your own folder of SVG files
    python recipes/data/openclipart.py --side 128     # another size, in pixels

The captions are as noisy as those of the web. The drawings are in the public domain. They come from the Debian package
`openclipart-svg` (25 MB), whose hash is checked; no file of it is part of this repository. The download needs apt and
dpkg (Debian, Ubuntu). Your own folder of SVG files needs neither. To render, run
`pip install 'hf_pretext[openclipart]'` first.
"""

import argparse
import hashlib
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import datasets
from huggingface_hub import constants
from tqdm.auto import tqdm

from hf_pretext.utils.files import made_once

PACKAGE = "openclipart-svg=1:0.18+dfsg-19"
HASH = "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"
SIDE = 96  # pixels, larger than the input of small encoders, so that crops keep detail
LARGEST = 400_000  # bytes of an SVG file. Few are larger, and they take as long as all others together
DC, RDF = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "text": datasets.Value("string"),
        "keywords": datasets.List(datasets.Value("string")),
    }
)


def openclipart(drawings: Path | None = None, side: int = SIDE) -> Path:
    """Returns the folder with the Parquet file of all drawings that have a title. Makes it on the first call.

    drawings: a folder of SVG files; default: the Debian package.
    side: height and width of the images in pixels.

    Raises `ValueError` if the folder does not exist, if the side is below 1, if the package cannot be downloaded, if
    resvg_py is missing, or if no drawing can be rendered.
    """
    if drawings is not None and not drawings.is_dir():
        raise ValueError(f"There is no folder {drawings}. Give an existing folder of SVG files.")
    check_side(side)
    name = "openclipart" if side == SIDE else f"openclipart_{side}px"
    if drawings is not None:
        files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in svgs(drawings)]
        name += f"-{hashlib.sha256(repr(files).encode()).hexdigest()[:8]}"
    return made_once(Path(constants.HF_HOME) / "hf_pretext" / name, lambda folder: write(drawings, folder, side))


def write(drawings: Path | None, folder: Path, side: int) -> None:
    """Writes the drawings that have a title to a Parquet file in `folder`. Downloads them if `drawings` is None."""
    render = renderer(side)  # before the download, which it may make pointless
    with tempfile.TemporaryDirectory() as name:
        rows = list(rendered(drawings or fetch(Path(name)), render))
    if not rows:
        raise ValueError(f"{drawings} has no SVG file with a title that can be rendered. Give another folder.")
    datasets.Dataset.from_list(rows, FEATURES).to_parquet(folder / "train.parquet")


def fetch(folder: Path) -> Path:
    """Downloads the Debian package and unpacks it into `folder`, without installing it.

    Returns the folder of SVG files. Raises `ValueError` if the download fails or its hash differs.
    """
    done = subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=folder, capture_output=True, text=True)
    packages = list(folder.glob("*.deb"))
    if done.returncode or not packages:
        raise ValueError(
            f"apt-get cannot download {PACKAGE}: {done.stderr.strip()[-300:]} Give a folder of SVG files instead: "
            "python recipes/data/openclipart.py path/to/svgs."
        )
    digest = hashlib.sha256(packages[0].read_bytes()).hexdigest()
    if digest != HASH:
        raise ValueError(
            f"The download of {PACKAGE} has the SHA-256 {digest}, but {HASH} is expected. Give a folder of SVG files "
            "instead: python recipes/data/openclipart.py path/to/svgs."
        )
    subprocess.run(["dpkg", "-x", packages[0], folder], check=True)
    return folder / "usr" / "share" / "openclipart" / "svg"


def check_side(side: int) -> None:
    """Raises `ValueError` if no image can have this height and width."""
    if side < 1:
        raise ValueError(f"--side {side} is no size of an image. Give a number of pixels, 1 or more.")


def renderer(side: int) -> Callable[..., bytes]:
    """Returns a function that renders an SVG file (`svg_path`) or document (`svg_string`) on white, as a PNG file.

    side: height and width of the images in pixels. Raises `ValueError` if resvg_py is missing.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ValueError("Rendering drawings needs resvg_py. Run: pip install 'hf_pretext[openclipart]'") from error
    return partial(svg_to_bytes, width=side, height=side, dpi=96, background="white")


def rendered(drawings: Path, render: Callable[..., bytes]) -> Iterator[dict]:
    """Yields one row per drawing that has a title. Skips files that are damaged or larger than `LARGEST`."""
    for path in tqdm(svgs(drawings), desc="rendering drawings", leave=False):
        title, keywords = title_and_keywords(path)
        if not title or path.stat().st_size > LARGEST:
            continue
        try:
            png = bytes(render(svg_path=str(path)))
        except (ValueError, RuntimeError, OSError):  # damaged drawings
            continue
        yield {"image": {"bytes": png, "path": None}, "text": title, "keywords": keywords}


def svgs(drawings: Path) -> list[Path]:
    """Returns all SVG files of a folder and its sub-folders, sorted."""
    return sorted(drawings.rglob("*.svg"))


def title_and_keywords(path: Path) -> tuple[str, list[str]]:
    """Returns title and keywords from the metadata of a drawing. They are empty if the metadata cannot be read."""
    try:
        parts = ElementTree.parse(path).iter()
        work = next((part for part in parts if str(part.tag).endswith("}Work")), None)  # two namespaces are in use
    except ElementTree.ParseError:
        return "", []
    if work is None:
        return "", []
    title = " ".join((work.findtext(f"{DC}title") or "").replace("_", " ").split())
    keywords = [(item.text or "").strip() for item in work.iterfind(f"{DC}subject/{RDF}Bag/{RDF}li")]
    return title, [keyword for keyword in keywords if keyword]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawings", type=Path, nargs="?", help="a folder of SVG files; default: the Debian package")
    parser.add_argument("--side", type=int, default=SIDE, help="height and width of the images in pixels")
    arguments = parser.parse_args()
    print(openclipart(arguments.drawings, arguments.side))
