"""The machine: what it has, how it is used best, and what a result says of it."""

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .. import __version__

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's mallopt()
ARENAS = 2  # heaps that threads share: by default there may be eight for each core, each with holes of its own
PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "scikit-learn", "timm")


def describe(device: torch.device) -> dict[str, str | int]:
    """Processor, cores that this process may use, and the accelerator where there is one."""
    facts = {"device": device.type, "cores": cores(), "processor": processor(), "system": platform.system()}
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts


def has_bf16(use_cpu: bool = False) -> bool:
    """Whether bf16 is fast here: a GPU that has it, or a CPU with instructions for it (elsewhere it is emulated)."""
    if torch.cuda.is_available() and not use_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def default_workers(use_cpu: bool = False) -> int:
    """Processes that decode and augment: none where the model computes on the same cores, whose threads they would
    hold up; beside a GPU, this process's share of the cores, up to 8."""
    if use_cpu or not torch.accelerator.is_available():
        return 0
    return min(8, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def keep_freed_memory() -> bool:
    """Has the C library keep what PyTorch frees on a CPU, since the next step asks for the same again.

    By default glibc may hand it back to the system: then a step of the emoji recipe takes 10,000 page faults and a
    sixth longer, and whether it does is luck, by what was allocated before. Threads that read ahead allocate what
    others free, so their heaps are few, or what is kept grows by a tenth. Returns whether there was a glibc to tell.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    wanted = {M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: ARENAS}
    return all(mallopt(name, value) for name, value in wanted.items())


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as the system says it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def code_revision() -> str | None:
    """The commit of the checkout that this package lies in, with a + where files were changed since; None where it was
    installed without one."""
    folder = Path(__file__).parent
    try:
        tracked = git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # or it is another project's
        return tracked and git(folder, "rev-parse", "HEAD") + ("+" if git(folder, "status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def git(folder: Path, *words: str) -> str:
    """What git says of a folder. Raises `SubprocessError` where it fails, `OSError` where it is not there."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


@contextmanager
def energy() -> Iterator[dict]:
    """Has codecarbon, where it is installed, measure what is drawn meanwhile: then `kwh` is in what this gives."""
    measured = {}
    try:
        from codecarbon import OfflineEmissionsTracker

        tracker = OfflineEmissionsTracker(country_iso_code="USA", save_to_file=False, log_level="critical")
        tracker.start()
    except Exception:  # not installed, or it can't measure here: nothing to end a run for
        yield measured
        return
    try:
        yield measured
    finally:
        with suppress(Exception):
            tracker.stop()
            measured["kwh"] = float(tracker.final_emissions_data.energy_consumed)


def versions() -> dict[str, str]:
    """Versions of Python, of hf_pretext and of what its figures depend on."""
    result = {"python": sys.version.split()[0], "hf_pretext": __version__}
    for package in PACKAGES:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            continue
    return result
