"""recipes/data/emoji_large.py without network: a stand-in for npm copies small packages, which the test makes."""

import hashlib
import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile

import datasets
import pyarrow.parquet as pq
import pytest
from conftest import EMOJI
from recipe_runs import RECIPES, REPOSITORY

SHARDS = {"train-00000": 9, "train-00001": 8, "validation-00000": 6, "test-00000": 7}  # rows of each
SCRIPT = RECIPES / "data" / "emoji_large.py"


def colour(style, name):
    return tuple(hashlib.sha256(f"{style}/{name}".encode()).digest()[:3])


def body(style, name):
    """A drawing of 16 x 16 units: white on the left, a colour of its own on the right."""
    return f'<rect x="8" width="8" height="16" fill="rgb{colour(style, name)}"/>'


def pack(path, style, names, **more):
    """Writes a package as npm does. Returns its SHA-256."""
    icons = {name: {"body": body(style, name)} for name in names} | more
    content = json.dumps({"prefix": style, "icons": icons}).encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The script, with the first rows of the real emoji, drawings of two colours, and an npm that copies them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    module = importlib.import_module("emoji_large")
    (tmp_path / "emoji").mkdir()
    for shard, rows in SHARDS.items():
        table = pq.read_table(next(EMOJI.glob(f"{shard}-*.parquet")))
        pq.write_table(table.slice(0, rows), tmp_path / "emoji" / f"{shard}.parquet")
    (tmp_path / "packed").mkdir()
    names = set(embedded(tmp_path / "emoji")["name"])
    packages = {
        style: (version, pack(tmp_path / "packed" / f"{style}.tgz", style, names))
        for style, (version, _) in module.PACKAGES.items()
    }
    monkeypatch.setattr(module, "PACKAGES", packages)
    monkeypatch.setattr(module, "EMBEDDED", tmp_path / "emoji")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    packed = shlex.quote(str(tmp_path / "packed"))
    npm.write_text(f'#!/bin/sh\n[ "$1" = pack ] && set=${{3#@iconify-json/}} && cp {packed}/"${{set%@*}}.tgz" .\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    return module


def embedded(folder, split=None):
    files = sorted(str(path) for path in folder.glob(f"{split or ''}*.parquet"))
    rows = datasets.load_dataset("parquet", data_files=files, split="train")
    return rows.cast_column("image", datasets.Image(decode=False))


@pytest.mark.parametrize("side", [128, 40])
def test_only_the_images_differ(module, side):
    folder = module.emoji_large(side)
    assert sorted(path.name for path in folder.iterdir()) == ["test.parquet", "train.parquet", "validation.parquet"]
    for split in module.SPLITS:
        before = embedded(module.EMBEDDED, split)
        after = datasets.load_dataset("parquet", data_files=str(folder / f"{split}.parquet"), split="train")
        assert len(before) == sum(rows for shard, rows in SHARDS.items() if shard.startswith(split))
        assert before.column_names == after.column_names
        assert before.remove_columns("image").to_list() == after.remove_columns("image").to_list()
        for row in after:
            assert (row["image"].size, row["image"].mode) == ((side, side), "RGB")
            assert row["image"].getpixel((side // 4, side // 2)) == (255, 255, 255)
            assert row["image"].getpixel((3 * side // 4, side // 2)) == colour(row["style"], row["name"])


def test_it_is_made_once_for_each_side(module):
    folder = module.emoji_large(32)
    written = (folder / "train.parquet").stat().st_mtime_ns
    assert module.emoji_large(32) == folder and (folder / "train.parquet").stat().st_mtime_ns == written
    assert module.emoji_large(33) != folder


def test_drawings_that_are_not_square_are_centred(module):
    icons = {"icons": {"wide": {"body": '<rect width="32" height="16" fill="#f00"/>', "width": 32}}, "height": 16}
    file = module.webp(module.documents(icons)["wide"], module.renderer(64))
    image = datasets.Image().decode_example({"bytes": file, "path": None})
    assert [image.getpixel((x, y)) for x, y in [(1, 8), (1, 20), (62, 44), (62, 56)]] == [
        (255, 255, 255),
        (255, 0, 0),
        (255, 0, 0),
        (255, 255, 255),
    ]


def test_a_package_that_differs_is_refused(module, tmp_path):
    pack(tmp_path / "packed" / "noto-v1.tgz", "noto-v1", ["other"])
    with pytest.raises(ValueError, match=r"@iconify-json/noto-v1@1.2.5 has the SHA-256 .* is expected.*--dataset"):
        module.emoji_large()
    assert not any((tmp_path / "home" / "hf_pretext").iterdir())  # nothing half made


def test_a_download_that_fails_says_why(module, tmp_path):
    (tmp_path / "packed" / "noto.tgz").unlink()
    with pytest.raises(ValueError, match=r"npm cannot download @iconify-json/noto@1.2.9: .*noto.tgz.*--dataset"):
        module.emoji_large()


def test_what_is_missing_is_named(module, monkeypatch):
    with pytest.raises(ValueError, match="--side 0"):
        module.emoji_large(0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"npm.* is not installed. Install Node.js.*--dataset"):
        module.emoji_large()
    monkeypatch.setitem(sys.modules, "resvg_py", None)  # checked before the download
    with pytest.raises(ValueError, match=r"pip install 'hf_pretext\[openclipart\]'"):
        module.emoji_large()


@pytest.mark.parametrize("name", ["emoji_large", "openclipart"])
def test_the_scripts_have_an_option_for_the_size(name):
    command = [sys.executable, SCRIPT.with_name(f"{name}.py"), "--side", "-1"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode and "ValueError: --side -1" in done.stderr
