"""Checks of the machine: devices, distributed training, free space on disks and in shared memory.

torch, the driver, the system -> checks
"""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

from .check import Check, first_line, summary
from .packages import PAIR

BUILDS = "https://pytorch.org/get-started/locally"
LOW_DISK, NO_DISK = 5e9, 0.2e9  # bytes
LOW_SHARED = 64 * 2**20  # bytes; docker's default, less than a batch of photographs needs


def devices() -> Iterator[Check]:
    """Checks each device with a matrix product. Reports GPUs that the driver lists but torch does not."""
    import torch

    from ..utils.machine import cores, has_bf16, processor

    with warnings.catch_warnings(record=True) as reasons:  # torch only warns of an old driver
        warnings.simplefilter("always")
        accelerated = torch.accelerator.is_available()
    if accelerated:
        yield from accelerators()
        return
    for gpu in driver_gpus():
        yield unseen(gpu, str(reasons[0].message) if reasons else "")
    multiply(torch.device("cpu"))
    bf16 = "fast" if has_bf16(use_cpu=True) else "slow"
    yield Check("device", "fine", f"CPU only: {cores()} cores of {processor()}; bf16 is {bf16}")


def accelerators() -> Iterator[Check]:
    """Checks each accelerator. The state is `broken` only if all of them fail."""
    import torch

    works, fails = [], []
    for index in range(torch.accelerator.device_count()):
        device = torch.device(torch.accelerator.current_accelerator().type, index)
        try:
            works.append(Check(str(device), "fine", described(device)))
        except Exception as error:
            fails.append((str(device), summary(error)))
    fix = (
        f"Free its memory, exclude it (CUDA_VISIBLE_DEVICES), train with --use_cpu, or install a torch build for it: "
        f"{BUILDS}"
    )
    yield from works
    for name, reason in fails:
        yield Check(name, "lacking" if works else "broken", f"computation fails: {reason}", fix)


def described(device) -> str:
    """Returns name, memory and bf16 support of an accelerator. Raises torch's error if a matrix product fails."""
    import torch

    from ..utils.machine import has_bf16

    multiply(device)
    module = getattr(torch, device.type)
    facts = [module.get_device_name(device) if hasattr(module, "get_device_name") else f"{device.type.upper()} device"]
    with suppress(Exception):  # Apple's GPUs share the machine's memory and report none
        free, total = torch.accelerator.get_memory_info(device)
        facts.append(f"{gigabytes(free)} free of {gigabytes(total)}")
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        facts.append("bf16" if has_bf16() else "no fast bf16")
    return ", ".join(facts)


def multiply(device) -> None:
    """Computes a matrix product on a device. Raises `RuntimeError` if it fails or the result is wrong."""
    import torch

    ones = torch.ones(64, 64, device=device)
    total = (ones @ ones).sum().item()
    if total != 64**3:
        raise RuntimeError(f"a matrix product of ones sums to {total} instead of {64**3}")


def driver_gpus() -> list[str]:
    """Returns the names of the GPUs that NVIDIA's driver lists; empty without a working driver."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", listed, re.MULTILINE)


def unseen(gpu: str, reason: str) -> Check:
    """Returns the check of a GPU that the driver lists but torch does not. reason: torch's warning, or empty."""
    import torch

    hidden, built = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.version.cuda
    if built is None:
        reason = f"torch {torch.__version__} is built without CUDA"
        fix = f"Install the CUDA build of torch and torchvision: {BUILDS}"
    elif hidden is not None:
        reason, fix = f"CUDA_VISIBLE_DEVICES={hidden!r} may exclude it", "unset CUDA_VISIBLE_DEVICES"
    else:
        reason = reason or f"torch is built for CUDA {built}"
        fix = f"Update the driver, or install a CUDA build of torch and torchvision that supports it: {BUILDS}"
    return Check("GPU", "lacking", f"{gpu}: found by the driver, but not by torch ({first_line(reason)})", fix)


def distributed() -> Iterator[Check]:
    """Checks that torch supports distributed training."""
    import torch
    from torch import distributed

    if not distributed.is_available():
        yield Check("distributed", "lacking", "this torch build can't train in several processes", PAIR)
        return
    backends = [name for name in ("gloo", "nccl", "xccl", "mpi") if getattr(distributed, f"is_{name}_available")()]
    needed = "nccl" if torch.cuda.is_available() and torch.cuda.device_count() > 1 and os.name != "nt" else "gloo"
    if needed in backends:
        yield Check("distributed", "fine", ", ".join(backends))
    else:
        detail = f"this torch build has no {needed} (it has {', '.join(backends) or 'no backend'})"
        yield Check("distributed", "lacking", detail, PAIR)


def disks() -> Iterator[Check]:
    """Checks the free disk space for the output of a run and for downloads."""
    from huggingface_hub import constants

    here = "Free disk space, work on another disk, or keep fewer checkpoints: --save_total_limit 1"
    yield disk("disk", Path.cwd(), here)
    yield disk("HF_HOME", Path(constants.HF_HOME), "Free disk space (hf cache prune), or: export HF_HOME=/another/disk")


def disk(name: str, folder: Path, fix: str) -> Check:
    """Returns the check of the disk of a folder, which need not exist yet."""
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    state = "broken" if free < NO_DISK else "lacking" if free < LOW_DISK else "fine"
    detail = f"{gigabytes(free)} free in {folder}"
    if not os.access(existing, os.W_OK):
        return Check(name, "broken" if state == "broken" else "lacking", f"{detail}, which is not writable", fix)
    return Check(name, state, detail, "" if state == "fine" else fix)


def shared_memory() -> Iterator[Check]:
    """Checks the shared memory through which loader workers send batches, on systems with `/dev/shm`."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    detail = f"{gigabytes(free)} free in {folder}"
    if free > LOW_SHARED:
        yield Check("shared memory", "fine", detail)
    else:
        fix = "docker run --shm-size 8g, or train with --dataloader_num_workers 0"
        yield Check("shared memory", "lacking", f"{detail}: too little for loader workers", fix)


def gigabytes(size: float) -> str:
    """Returns a size in bytes as text, in GB or MB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
