"""The machine: devices that compute, processes that train together, room on disks.

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
LOW_SHARED = 64 * 2**20  # what docker gives by default: one batch of photographs is more


def devices() -> Iterator[Check]:
    """What training computes on, each having multiplied; and GPUs that torch can't see."""
    import torch

    from ..utils.machine import cores, has_bf16, processor

    with warnings.catch_warnings(record=True) as reasons:  # of a driver too old there is only a warning
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
    """A check of each accelerator. It takes all of them failing to make training impossible."""
    import torch

    works, fails = [], []
    for index in range(torch.accelerator.device_count()):
        device = torch.device(torch.accelerator.current_accelerator().type, index)
        try:
            works.append(Check(str(device), "fine", described(device)))
        except Exception as error:
            fails.append((str(device), summary(error)))
    mend = (
        f"Free it, leave it out (CUDA_VISIBLE_DEVICES), train with --use_cpu, or install a torch built for it: {BUILDS}"
    )
    yield from works
    for name, reason in fails:
        yield Check(name, "lacking" if works else "broken", f"it can't compute: {reason}", mend)


def described(device) -> str:
    """An accelerator's name, memory and bf16, after a product on it. Raises what torch raises where it can't."""
    import torch

    from ..utils.machine import has_bf16

    multiply(device)
    module = getattr(torch, device.type)
    facts = [module.get_device_name(device) if hasattr(module, "get_device_name") else f"{device.type.upper()} device"]
    with suppress(Exception):  # Apple's share the machine's memory, and don't tell
        free, total = torch.accelerator.get_memory_info(device)
        facts.append(f"{gigabytes(free)} free of {gigabytes(total)}")
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        facts.append("bf16" if has_bf16() else "no fast bf16")
    return ", ".join(facts)


def multiply(device) -> None:
    """Raises `RuntimeError` where a device can't, or gives a wrong product."""
    import torch

    ones = torch.ones(64, 64, device=device)
    total = (ones @ ones).sum().item()
    if total != 64**3:
        raise RuntimeError(f"a product of ones sums to {total}, not to {64**3}")


def driver_gpus() -> list[str]:
    """Names of the GPUs that NVIDIA's driver lists; none where it is not there or does not work."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", listed, re.MULTILINE)


def unseen(gpu: str, reason: str) -> Check:
    """The check of a GPU that the driver sees, and torch does not."""
    import torch

    hidden, built = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.version.cuda
    if built is None:
        reason = f"torch {torch.__version__} is built without CUDA"
        mend = f"Install the CUDA build of torch and torchvision: {BUILDS}"
    elif hidden is not None:
        reason, mend = f"CUDA_VISIBLE_DEVICES={hidden!r} may hide it", "unset CUDA_VISIBLE_DEVICES"
    else:
        reason = reason or f"torch is built for CUDA {built}"
        mend = f"Update the driver, or install the CUDA build of torch and torchvision that fits it: {BUILDS}"
    return Check("GPU", "lacking", f"{gpu}: the driver sees it, torch does not ({first_line(reason)})", mend)


def distributed() -> Iterator[Check]:
    """Whether several processes can train together."""
    import torch
    from torch import distributed

    if not distributed.is_available():
        yield Check("distributed", "lacking", "this torch trains in one process only", PAIR)
        return
    backends = [name for name in ("gloo", "nccl", "xccl", "mpi") if getattr(distributed, f"is_{name}_available")()]
    wanted = "nccl" if torch.cuda.is_available() and torch.cuda.device_count() > 1 and os.name != "nt" else "gloo"
    if wanted in backends:
        yield Check("distributed", "fine", ", ".join(backends))
    else:
        yield Check("distributed", "lacking", f"no {wanted} in this torch ({', '.join(backends) or 'nothing'})", PAIR)


def disks() -> Iterator[Check]:
    """Room for what a run writes and for what is downloaded."""
    from huggingface_hub import constants

    here = "Make room, go to another disk, or keep fewer checkpoints: --save_total_limit 1"
    yield disk("disk", Path.cwd(), here)
    yield disk("HF_HOME", Path(constants.HF_HOME), "Make room (hf cache prune), or: export HF_HOME=/another/disk")


def disk(name: str, folder: Path, mend: str) -> Check:
    """The check of the disk that a folder lies on, or will once it is made."""
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    state = "broken" if free < NO_DISK else "lacking" if free < LOW_DISK else "fine"
    detail = f"{gigabytes(free)} free in {folder}"
    if not os.access(existing, os.W_OK):
        return Check(name, "broken" if state == "broken" else "lacking", f"{detail}, where you may not write", mend)
    return Check(name, state, detail, "" if state == "fine" else mend)


def shared_memory() -> Iterator[Check]:
    """Room for the batches that loader workers hand over, on systems that set it apart."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    detail = f"{gigabytes(free)} free in {folder}"
    if free > LOW_SHARED:
        yield Check("shared memory", "fine", detail)
    else:
        mend = "docker run --shm-size 8g, or train with --dataloader_num_workers 0"
        yield Check("shared memory", "lacking", f"{detail}: loader workers need it", mend)


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
