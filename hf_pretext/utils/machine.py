"""The machine: its hardware, good settings for it, and its entries in results.json."""

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
ARENAS = 2  # heaps of all threads; the default of up to eight per core fragments memory
PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "scikit-learn", "timm")


def describe(device: torch.device) -> dict[str, str | int]:
    """Returns a dict with device, cores, processor, system and, on a CUDA GPU, accelerator.

    cores: those that may compute at the same time: no more than all threads of PyTorch on this machine."""
    threads = torch.get_num_threads() * local_processes()
    facts = {
        "device": device.type,
        "cores": min(cores(), threads),
        "processor": processor(),
        "system": platform.system(),
    }
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts


def has_bf16(use_cpu: bool = False) -> bool:
    """Returns True if bf16 is fast: on GPUs that support it, and on CPUs with AMX.

    CPUs with AVX512-BF16 alone multiply in bf16, but convert for all other operations: the recipes on emoji and on
    reviews train 1.3 to 1.7 times as fast in float32."""
    if torch.cuda.is_available() and not use_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()


def default_workers(use_cpu: bool = False) -> int:
    """Returns the default number of processes that decode and augment.

    On a CPU: 0, since workers would slow down the model on the same cores. With a GPU: the cores divided by the
    processes of this machine, at most 8."""
    if use_cpu or not torch.accelerator.is_available():
        return 0
    return min(8, cores() // local_processes())


def keep_freed_memory() -> bool:
    """Makes glibc keep the memory that PyTorch frees on a CPU, since the next step allocates it again.

    By default glibc may return this memory to the system, depending on earlier allocations. Then a step of the emoji
    recipe has 10,000 page faults and takes a sixth longer. It also limits the number of heaps: memory that is allocated
    by one thread and freed by another would otherwise make the process a tenth larger. Returns True if glibc accepted
    the settings.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    options = {M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: ARENAS}
    return all(mallopt(name, value) for name, value in options.items())


def local_processes() -> int:
    """Returns the number of training processes of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def cores() -> int:
    """Returns the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def processor() -> str:
    """Returns the name of the processor, as the system reports it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def code_revision() -> str | None:
    """Returns the commit of this package's git checkout, with a + if files have changed; None without a checkout."""
    folder = Path(__file__).parent
    try:
        tracked = git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # fails in another project's checkout
        return tracked and git(folder, "rev-parse", "HEAD") + ("+" if git(folder, "status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def git(folder: Path, *words: str) -> str:
    """Returns the output of a git command in a folder. Raises `SubprocessError` if it fails, `OSError` without git."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


@contextmanager
def energy() -> Iterator[dict]:
    """Measures energy with codecarbon, if it is installed. Yields a dict that has `kwh` after the context ends."""
    measured = {}
    try:
        from codecarbon import OfflineEmissionsTracker

        tracker = OfflineEmissionsTracker(country_iso_code="USA", save_to_file=False, log_level="critical")
        tracker.start()
    except Exception:  # not installed, or no measurement on this machine: the run continues
        yield measured
        return
    try:
        yield measured
    finally:
        with suppress(Exception):
            tracker.stop()
            measured["kwh"] = float(tracker.final_emissions_data.energy_consumed)


def versions() -> dict[str, str]:
    """Returns the versions of Python, of hf_pretext and of the packages that affect results."""
    result = {"python": sys.version.split()[0], "hf_pretext": __version__}
    for package in PACKAGES:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            continue
    return result
