import io
import os
import socket
import struct
import subprocess
import sys

import pytest
from media import RATE, TONE, sound, video
from PIL import Image

from hf_pretext.data.clips import to_clip
from hf_pretext.data.decoding import BadSample, content_of, read_file, to_image
from hf_pretext.data.limits import Limits

buffer = io.BytesIO()
Image.new("RGB", (30, 20)).save(buffer, "PNG")
PNG = buffer.getvalue()


def listening(path) -> None:
    """Makes a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


NOT_FILES = {
    "pipe": (os.mkfifo, "it is a pipe, device or socket"),
    "zero": (lambda path: path.symlink_to("/dev/zero"), "it is a pipe, device or socket"),
    "random": (lambda path: path.symlink_to("/dev/urandom"), "it is a pipe, device or socket"),
    "socket": (listening, "No such device"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
    "circle": (lambda path: path.symlink_to(path), "Too many levels"),
    "missing": (lambda path: None, "No such file"),
}


def test_a_path_that_is_no_regular_file_is_a_bad_sample(tmp_path):
    """In a process of its own, which can be ended: without the check some of them hang."""
    for name, (make, _) in NOT_FILES.items():
        make(tmp_path / name)
    code = (
        "import sys\nfrom hf_pretext.data.decoding import BadSample, to_image\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        to_image({'bytes': None, 'path': path})\n"
        "    except BadSample as error:\n        print(error)"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in NOT_FILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for line, (_, reason) in zip(done.stdout.splitlines(), NOT_FILES.values(), strict=True):
        assert line.startswith(f"unreadable file: {reason}")


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "a" * 10_000, 0, 1, -1, True, ["a"], {"a": 1}, 2.5, b"\0"])
def test_a_value_that_is_no_path_is_a_bad_sample(path):
    with pytest.raises(BadSample, match="unreadable file: .+"):
        content_of({"bytes": None, "path": path})


def test_too_many_bytes_are_a_bad_sample_in_a_row_and_in_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    row, file = {"bytes": PNG, "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}
    for value in (PNG, bytearray(PNG), row, file):
        assert to_image(value, Limits(bytes=len(PNG))).shape == (3, 20, 30)
        for decode in (to_image, lambda value, limits: to_clip(value, 1.0, sampling_rate=RATE, limits=limits)):
            with pytest.raises(BadSample, match=rf"{len(PNG)} bytes, more than {len(PNG) - 1} \(--max_sample_bytes\)"):
                decode(value, Limits(bytes=len(PNG) - 1))
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(BadSample, match="1,099,511,627,776 bytes, more than"):
        read_file(str(tmp_path / "sparse"))


def test_frames_that_take_too_much_memory_together():
    """16 frames of 9,000 x 9,000 pixels, in a GIF of 100 kB, took 19 GB."""
    assert to_clip(video(), frames=8, limits=Limits(pixels=48 * 64)).frames.shape[0] == 8
    with pytest.raises(BadSample, match=r"9 frames of 64x48 pixels, more than 24,576 \(8 times --max_image_pixels\)"):
        to_clip(video(), frames=9, limits=Limits(pixels=48 * 64))


def test_frames_that_are_larger_than_the_container_says_are_not_decoded():
    small, large = (video(5, size, "mpegts", "mpeg2video") for size in ((48, 64), (480, 640)))
    with pytest.raises(BadSample, match="640x480 pixels, more than 5,000"):
        to_clip(small + large, frames=10, limits=Limits(pixels=5_000))


def test_a_sampling_rate_that_needs_gigabytes_to_resample():
    content = bytearray(sound(samples=TONE))
    content[24:28] = struct.pack("<I", 500_000_003)
    with pytest.raises(BadSample, match="500,000,003 Hz"):
        to_clip(bytes(content), 1.0, sampling_rate=RATE)
