"""Measures samples per second of our stream, `datasets` and WebDataset on the same files, with two workers each.

    python benchmarks/stream.py                   # about 8 minutes on 2 cores

The data are JPEG images with sides of 256 to 480 pixels (mosaics of the emoji), written as Parquet files and as tars.
All contenders read and decode them and take a random crop of 224x224. All use our decoding function. `datasets` and
WebDataset also run with the usual code: Pillow, then torchvision's RandomResizedCrop. `datasets` and WebDataset shuffle
in a buffer of 1,000 samples. Each run is a separate process. The runs alternate, and the rates are medians over the
turns.

Then the benchmark measures the quality of shuffling, the time to resume after 10^4 and 10^6 samples, and the growth of
memory over 200,000 samples after the first 100,000.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms import v2
from tqdm.auto import tqdm

from hf_pretext.data.sources import Source, open_source
from hf_pretext.modalities.image import Augmentation, default_processor
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.utils.machine import describe

EMOJI = Path(__file__).parent.parent / "hf_pretext" / "samples" / "emoji"
SIDE, BATCH, WORKERS, BUFFER, SHARDS = 224, 64, 2, 1000, 8
SEEDS = 10  # epochs over which shuffling is measured; the correlation of one epoch varies too much
WARM = 20  # batches before the clock starts: buffers are full then, so that refilling them is part of the time
CONTENDERS = (
    "ours, Parquet",
    "datasets, Parquet",
    "ours, tars",
    "WebDataset, tars",
    "datasets, tars",
    "datasets, Parquet, usual decoding",
    "WebDataset, tars, usual decoding",
)
PROCESSING = ImageModality(default_processor(SIDE), Augmentation(crop_scale=0.25, color_jitter=0.0))
USUAL = v2.Compose([v2.RandomResizedCrop(SIDE, (0.25, 1.0), antialias=True), v2.RandomHorizontalFlip()])


def make_images(folder: Path, count: int, least: int, most: int) -> None:
    """Writes numbered JPEG images as Parquet files (row groups of 100) and as tars, `SHARDS` files each.

    least, most: range of the height and width, in pixels.
    """
    rows = datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*.parquet"), split="train")
    tiles = np.stack([np.asarray(row["image"].convert("RGB")) for row in rows.select(range(0, len(rows), 4))])
    random = np.random.default_rng(0)
    images = []
    for _ in tqdm(range(count), desc="making images", leave=False):
        height, width = random.integers(least, most + 1, 2)
        across = -(-width // 64)
        down = -(-height // 64)
        mosaic = tiles[random.integers(len(tiles), size=(down, across))].transpose(0, 2, 1, 3, 4)
        mosaic = mosaic.reshape(down * 64, across * 64, 3)[:height, :width]
        mosaic = (mosaic + random.normal(0, 6, mosaic.shape)).clip(0, 255).astype(np.uint8)  # noise, as of a camera
        buffer = io.BytesIO()
        Image.fromarray(mosaic).save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
    features = datasets.Features({"jpg": datasets.Image(), "number": datasets.Value("int64")})
    for shard in range(SHARDS):
        numbers = range(shard * count // SHARDS, (shard + 1) * count // SHARDS)
        part = {"jpg": [{"bytes": images[i], "path": None} for i in numbers], "number": list(numbers)}
        data = datasets.Dataset.from_dict(part, features)
        data.to_parquet(folder / f"train-{shard:05d}.parquet", batch_size=100)
        with tarfile.open(folder / f"train-{shard:05d}.tar", "w") as tar:
            for i in numbers:
                for name, content in ((f"{i:08d}.jpg", images[i]), (f"{i:08d}.cls", str(i).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def ours_decoded(content: bytes) -> torch.Tensor:
    """Decodes, crops and flips an image with our function. Returns `(3, 224, 224)`."""
    return PROCESSING({"image": content}, np.random.default_rng())["pixel_values"]


def usually_decoded(content: bytes) -> torch.Tensor:
    """Decodes, crops and flips an image with Pillow and torchvision. Returns `(3, 224, 224)`."""
    return v2.functional.pil_to_tensor(USUAL(Image.open(io.BytesIO(content)).convert("RGB")))


class Decoded(IterableDataset):
    """A stream of `datasets` that is decoded in the workers. Each worker reads different shards."""

    def __init__(self, data: datasets.IterableDataset, decode):
        self.data, self.decode = data, decode

    def __iter__(self):
        for row in self.data:
            yield self.decode(row["jpg"]["bytes"])


def of_datasets(kind: str, files: list[str], decode) -> Iterator:
    """Yields batches of `datasets`, without end."""
    data = datasets.load_dataset(kind, data_files=files, split="train", streaming=True)
    data = data.cast_column("jpg", datasets.Image(decode=False)).shuffle(seed=0, buffer_size=BUFFER)
    epoch = 0
    while True:
        data.set_epoch(epoch)
        yield from DataLoader(Decoded(data, decode), batch_size=BATCH, num_workers=WORKERS)
        epoch += 1


def of_webdataset(files: list[str], decode) -> Iterator:
    """Yields batches of WebDataset, without end."""
    data = webdataset.WebDataset(files, shardshuffle=SHARDS, resampled=True, nodesplitter=None, seed=0)
    data = data.shuffle(BUFFER).map(lambda sample: decode(sample["jpg"])).batched(BATCH, collation_fn=torch.stack)
    yield from webdataset.WebLoader(data, batch_size=None, num_workers=WORKERS)


def of_ours(files: str) -> Iterator:
    """Yields batches of our stream, without end."""
    loader = StreamLoader(open_source(files), PROCESSING, BATCH, num_workers=WORKERS)
    try:
        while True:
            yield from loader
    finally:
        loader.close()


def rate(batches: Iterator, count: int) -> float:
    """Returns samples per second over `count` batches, after the first `WARM`."""
    for _ in range(WARM):
        next(batches)
    begun = time.perf_counter()
    for _ in range(count):
        next(batches)
    seconds = time.perf_counter() - begun
    batches.close()  # ends the workers before the next run starts
    return count * BATCH / seconds


def contender(name: str, folder: Path) -> Iterator:
    """Returns the batches of one contender."""
    parquet, tars = (sorted(map(str, folder.glob(f"*.{kind}"))) for kind in ("parquet", "tar"))
    made = {
        "ours, Parquet": lambda: of_ours(str(folder / "*.parquet")),
        "ours, tars": lambda: of_ours(str(folder / "*.tar")),
        "datasets, Parquet": lambda: of_datasets("parquet", parquet, ours_decoded),
        "datasets, tars": lambda: of_datasets("webdataset", tars, ours_decoded),
        "WebDataset, tars": lambda: of_webdataset(tars, ours_decoded),
        "datasets, Parquet, usual decoding": lambda: of_datasets("parquet", parquet, usually_decoded),
        "WebDataset, tars, usual decoding": lambda: of_webdataset(tars, usually_decoded),
    }
    return made[name]()


def apart(name: str, folder: Path, count: int) -> float:
    """Runs one contender in a new process. Returns samples per second.

    Workers that fork from a process which used much memory before are up to 20 % slower.
    """
    command = [sys.executable, __file__, "--contender", name, "--folder", str(folder), "--batches", str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return float(done.stdout.splitlines()[-1])


def speed(folder: Path, turns: int, count: int) -> list[dict[str, float]]:
    """Returns samples per second of each contender, for each turn."""
    rates = []
    for _ in range(turns):
        rates.append({name: apart(name, folder, count) for name in CONTENDERS})
        print("  ".join(f"{name} {value:.0f}/s" for name, value in rates[-1].items()), file=sys.stderr)
    return rates


def shuffle_quality(order: np.ndarray, count: int) -> dict[str, float]:
    """Returns the correlation of an order with the original order, and the share of neighbours from the same shard.

    order: the original positions of the samples of an epoch, in their shuffled order.
    """
    shards = order * SHARDS // count
    return {
        "correlation": float(np.corrcoef(order, np.arange(len(order)))[0, 1]),
        "same_shard": float((shards[1:] == shards[:-1]).mean()),
    }


def shuffles(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Returns `shuffle_quality` of our order and of a buffer: means of absolute values over `SEEDS` epochs."""
    source = open_source(str(folder / "*.parquet"))
    shard = {Path(file).name: number for number, file in enumerate(sorted(folder.glob("*.parquet")))}
    files = sorted(map(str, folder.glob("*.parquet")))
    data = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True).select_columns("number")
    orders = {"ours": [], f"buffer of {BUFFER}": []}
    for seed in tqdm(range(SEEDS), desc="shuffling", leave=False):
        reader = StreamLoader(source, None, BATCH, seed=seed).reader
        positions = [reader.key(g).split(":") for g in range(count)]
        reader.close()
        ours = np.array([shard[name] * count // SHARDS + int(row) for name, row in positions])
        buffered = np.array([row["number"] for row in data.shuffle(seed=seed, buffer_size=BUFFER)])
        for order, qualities in zip((ours, buffered), orders.values(), strict=True):
            qualities.append(shuffle_quality(order, count))
    return {
        name: {key: float(np.mean([abs(quality[key]) for quality in qualities])) for key in qualities[0]}
        for name, qualities in orders.items()
    }


def length(row: dict, random: np.random.Generator) -> dict[str, int]:
    """Returns the number of bytes of an image, which needs no decoding."""
    return {"length": len(row["image"]["bytes"])}


def resume_seconds(source: Source, start: int) -> float:
    """Returns the seconds until the first batch after `start` samples, with the windows read again."""
    begun = time.perf_counter()
    loader = StreamLoader(source, length, BATCH, start=start // BATCH * BATCH)
    next(iter(loader))
    seconds = time.perf_counter() - begun
    loader.close()
    return seconds


def memory_growth(source: Source, samples: int) -> dict[str, float]:
    """Reads 1.5 times `samples` samples and measures the peak memory of this process, in MiB.

    warm_mb: peak over the first third. most_mb: peak over the last third. growth: relative growth between them.
    """
    loader = StreamLoader(source, length, BATCH)
    seen, memory = 0, []
    total = samples + samples // 2
    with tqdm(total=total, desc="watching memory", unit="samples", leave=False) as bar:
        while seen < total:
            for _ in loader:
                seen += BATCH
                bar.update(BATCH)
                if seen % (50 * BATCH) == 0:
                    memory.append(resident())
    loader.close()
    span = len(memory) // 3  # equal numbers of measurements, because a maximum over more of them is larger
    warm, most = max(memory[:span]), max(memory[-span:])
    return {"warm_mb": warm, "most_mb": most, "growth": most / warm - 1}


def resident() -> float:
    """Returns the resident memory of this process, in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=9600)
    parser.add_argument("--sides", type=int, nargs=2, default=(256, 480), help="range of height and width, in pixels")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batches", type=int, default=100, help=f"batches of {BATCH} samples per turn")
    parser.add_argument("--samples", type=int, default=200_000, help="samples over which memory is measured")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    if options.contender:
        print(rate(contender(options.contender, options.folder), options.batches))
        return
    if (options.batches + WARM) * BATCH > options.images:
        parser.error(
            f"a turn must end within the first epoch, because our stream keeps decoded images for the next epoch, but "
            f"--batches {options.batches} and {WARM} batches of warm-up need {(options.batches + WARM) * BATCH} images "
            f"and --images is {options.images}. Raise --images or lower --batches."
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, options.images, *options.sides)
        os.sync()  # without it the files are still written to disk during the first turn
        size = sum(file.stat().st_size for file in folder.glob("*.parquet")) / options.images
        print(f"{options.images:,} images of {options.sides[0]} to {options.sides[1]} px, {size / 1024:.0f} KiB each")
        turns = speed(folder, options.turns, options.batches)
        results = {"images_kib": size / 1024, "turns": turns, "ratios": ratios(turns)}
        for name in turns[0]:
            print(f"  {name:36s} {statistics.median(turn[name] for turn in turns):7.0f} samples/s")
        for name, ratio in results["ratios"].items():
            print(f"  {name}: {ratio:.2f}")
        results["shuffle"] = shuffles(folder, options.images)
        for name, quality in results["shuffle"].items():
            print(
                f"  {name}: correlation with the original position {quality['correlation']:.3f} (absolute), "
                f"share of neighbours from the same shard {quality['same_shard']:.3f} (at random: {1 / SHARDS:.3f})"
            )
        source = open_source(str(folder / "*.parquet"))
        results["resume_seconds"] = {
            seen: statistics.median(resume_seconds(source, seen + 64 * i) for i in range(9)) for seen in (10**4, 10**6)
        }
        times = ", ".join(f"after {seen:,} samples {s:.3f} s" for seen, s in results["resume_seconds"].items())
        print(f"  time to the first batch of a resumed run: {times}")
        results["memory"] = memory_growth(source, options.samples)
        print(f"  growth of memory over {options.samples:,} samples: {results['memory']['growth']:+.1%}")
    print(json.dumps({**results, "machine": describe(torch.device("cpu"))}))


def ratios(turns: list[dict[str, float]]) -> dict[str, float]:
    """Returns our rate on each kind of files, divided by the rate of the best other contender.

    The other contender reads the same files, or any files. Each rate is the median over the turns.
    """
    rates = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    result = {}
    for kind in ("Parquet", "tars"):
        for decoding in ("", ", usual decoding"):
            others = [n for n in rates if not n.startswith("ours") and n.endswith("usual decoding") == bool(decoding)]
            for which, names in (("the same files", [n for n in others if kind in n]), ("any files", others)):
                best = max(rates[name] for name in names)
                result[f"ours, {kind} / best of the others{decoding}, on {which}"] = rates[f"ours, {kind}"] / best
    return result


if __name__ == "__main__":
    main()
