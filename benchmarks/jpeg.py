"""Compares a loader worker that decodes JPEG images with Pillow, as ours do, and with torchvision.

Both decode, crop and flip the same images. These have as many pixels as 375 x 500, so that Pillow can't decode them at
a reduced size. CPU time is measured, and the turns alternate. The gain of the whole loader is smaller, since reading
and batching take as long with both.

    python benchmarks/jpeg.py                   # about a minute on 1 core

With Pillow 13.0 (libjpeg-turbo 3.2) and torchvision 0.29 all pixels are equal. On a calm core torchvision decodes in
1.22 ms what takes Pillow 1.33 ms, and it needs no copy of the pixels (0.24 ms). That makes 1.15 to 1.19 times the
images per second of a worker. A second decoder is not worth its code for less than 1.25 times, so the loader uses
Pillow only.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from glob import glob
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import torch
from stream import SIDE, make_images
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from hf_pretext.data.decoding import open_image, to_image, upright_size
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modules.crops import crop_and_resize, random_box
from hf_pretext.utils.machine import describe

PIXELS = 433  # side: 433 x 433 is about 375 x 500
SCALES = (0.08, 0.25, 0.5)


def decoded(content: bytes) -> Tensor:
    """Decodes a JPEG with torchvision. Returns uint8 `(3, H, W)`."""
    return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)


class OfTorchvision(Image):
    """Images that are decoded by torchvision, after Pillow has read their headers."""

    def _cropped(self, row: dict, draws: Sequence[float]) -> Tensor:
        size = upright_size(open_image(row["image"], self.limits))
        box = random_box(size, self.augmentation.crop_scale, draws)
        return crop_and_resize(decoded(row["image"]["bytes"]), box, self.size)


def rate(images: Image, rows: list[dict]) -> float:
    """Returns images per second of CPU time."""
    random = np.random.default_rng(0)
    begun = time.process_time()
    for row in rows:
        images({"image": row["image"]}, random)
    return len(rows) / (time.process_time() - begun)


def decoder_times(contents: list[bytes], turns: int) -> dict[str, float]:
    """Returns milliseconds of CPU time for each image, without crop and resize."""
    tensors = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
    decoders = {
        "Pillow": (lambda content: PIL.Image.open(io.BytesIO(content)).load(), contents),
        "torchvision": (lambda tensor: decode_jpeg(tensor, mode=ImageReadMode.RGB), tensors),
    }
    times = {name: [] for name in decoders}
    for _ in range(turns):
        for name, (decode, values) in decoders.items():
            begun = time.process_time()
            for value in values:
                decode(value)
            times[name].append((time.process_time() - begun) / len(values) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), options.images, PIXELS, PIXELS)
        data = datasets.Dataset.from_parquet(glob(f"{folder}/*.parquet"), cache_dir=f"{folder}/cache")
        rows = data.cast_column("jpg", datasets.Image(decode=False))
        rows = [{"image": image} for image in rows["jpg"]]
    contents = [row["image"]["bytes"] for row in rows]
    print(f"largest difference: {max(int((to_image(c).int() - decoded(c).int()).abs().max()) for c in contents)}")
    results = {"decoders": decoder_times(contents, options.turns)}
    print("decoding alone: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in results["decoders"].items()))
    for scale in SCALES:
        kinds = [kind(default_processor(SIDE), Augmentation(crop_scale=scale)) for kind in (Image, OfTorchvision)]
        turns = [[rate(images, rows) for images in kinds] for _ in range(options.turns + 1)][1:]
        pillow, other = (statistics.median(turn[i] for turn in turns) for i in range(2))
        ratio = statistics.median(turn[1] / turn[0] for turn in turns)
        results[scale] = {"Pillow": pillow, "torchvision": other, "ratio": ratio}
        print(f"crop_scale {scale}: Pillow {pillow:.0f}/s, torchvision {other:.0f}/s, ratio {ratio:.2f}")
    print(json.dumps({"results": results, "machine": describe(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
