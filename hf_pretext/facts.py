"""What a result was measured with: the machine and the versions."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from . import __version__

PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "scikit-learn", "timm")


def machine(device: torch.device) -> dict[str, str | int]:
    """Processor, cores that this process may use, and the accelerator where there is one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count()
    found = {"device": device.type, "cores": cores, "processor": processor(), "system": platform.system()}
    if device.type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def processor() -> str:
    """The processor's name, as the system says it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python, of hf_pretext and of what its figures depend on."""
    found = {"python": sys.version.split()[0], "hf_pretext": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
