"""Some thousand drawings of the Open Clip Art Library with their titles and keywords, as noisy as captions of the web.

    python recipes/data/openclipart.py                # prints the folder: one Parquet file
    python recipes/data/openclipart.py path/to/svgs   # the same of any folder of SVG files

They are in the public domain, and come from the Debian package `openclipart-svg` (25 MB), whose hash is checked;
nothing of it is part of this repository. It takes apt and dpkg, as Debian and Ubuntu have them, or a folder of SVG
files, and `pip install 'hf_pretext[openclipart]'`, which renders them.
"""

import hashlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import datasets
from huggingface_hub import constants
from tqdm.auto import tqdm

from hf_pretext.utils.files import made_once

PACKAGE = "openclipart-svg=1:0.18+dfsg-19"
HASH = "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"
SIDE = 96  # pixels: crops of them are still larger than what small encoders see
LARGEST = 400_000  # bytes of a drawing: few are larger, and those take as long as all the others
DC, RDF = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "text": datasets.Value("string"),
        "keywords": datasets.List(datasets.Value("string")),
    }
)


def openclipart(drawings: Path | None = None) -> Path:
    """The folder of a Parquet file of all drawings that have a title; made when first asked for.

    drawings: a folder of SVG files, instead of the package's. Raises `ValueError` where it can't be had.
    """
    if drawings is not None and not drawings.is_dir():
        raise ValueError(f"There is no folder {drawings} of drawings.")
    name = "openclipart"
    if drawings is not None:
        files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in svgs(drawings)]
        name += f"-{hashlib.sha256(repr(files).encode()).hexdigest()[:8]}"
    return made_once(Path(constants.HF_HOME) / "hf_pretext" / name, lambda folder: write(drawings, folder))


def write(drawings: Path | None, folder: Path) -> None:
    """Fetches the drawings, if need be, and writes those that have a title into a folder."""
    with tempfile.TemporaryDirectory() as name:
        rows = list(rendered(drawings or fetch(Path(name))))
    if not rows:
        raise ValueError(f"{drawings} has no SVG file with a title that can be rendered.")
    datasets.Dataset.from_list(rows, FEATURES).to_parquet(folder / "train.parquet")


def fetch(folder: Path) -> Path:
    """The drawings of the Debian package, unpacked into a folder, which is not installed."""
    done = subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=folder, capture_output=True, text=True)
    packages = list(folder.glob("*.deb"))
    if done.returncode or not packages:
        raise ValueError(
            f"The drawings could not be fetched. Give a folder of SVG files. apt-get said: {done.stderr.strip()[-300:]}"
        )
    digest = hashlib.sha256(packages[0].read_bytes()).hexdigest()
    if digest != HASH:
        raise ValueError(f"{PACKAGE} has the hash {digest}, not {HASH}: it is not what was expected.")
    subprocess.run(["dpkg", "-x", packages[0], folder], check=True)
    return folder / "usr" / "share" / "openclipart" / "svg"


def rendered(drawings: Path) -> Iterator[dict]:
    """A row for each drawing with a title."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ValueError("Rendering drawings needs resvg_py: pip install 'hf_pretext[openclipart]'") from error
    for path in tqdm(svgs(drawings), desc="rendering drawings", leave=False):
        title, keywords = title_and_keywords(path)
        if not title or path.stat().st_size > LARGEST:
            continue
        try:
            png = bytes(svg_to_bytes(svg_path=str(path), width=SIDE, height=SIDE, dpi=96, background="white"))
        except (ValueError, RuntimeError, OSError):  # damaged drawings
            continue
        yield {"image": {"bytes": png, "path": None}, "text": title, "keywords": keywords}


def svgs(drawings: Path) -> list[Path]:
    return sorted(drawings.rglob("*.svg"))


def title_and_keywords(path: Path) -> tuple[str, list[str]]:
    """A drawing's own title and keywords, as its metadata says; nothing where they can't be read."""
    try:
        parts = ElementTree.parse(path).iter()
        work = next((part for part in parts if str(part.tag).endswith("}Work")), None)  # of one of two namespaces
    except ElementTree.ParseError:
        return "", []
    if work is None:
        return "", []
    title = " ".join((work.findtext(f"{DC}title") or "").replace("_", " ").split())
    keywords = [(item.text or "").strip() for item in work.iterfind(f"{DC}subject/{RDF}Bag/{RDF}li")]
    return title, [keyword for keyword in keywords if keyword]


if __name__ == "__main__":
    print(openclipart(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
