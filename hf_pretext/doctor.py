"""The check-up behind `hf-pretext doctor`: is everything here that training takes, and what mends what is not.

machine, packages, Hub -> examine() -> checks -> show() -> a table on the screen and an exit status
"""

import io
import os
import re
import shutil
import subprocess
import sys
import warnings
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path
from threading import Thread
from typing import Any, Literal

State = Literal["fine", "lacking", "broken"]

PACKAGE = "hf_pretext"
OWN_LINES = ("torch", "torchvision", "transformers", "datasets", "accelerate")  # the others share one
FOR_DEVELOPERS = {"test", "dev", "bench"}  # extras that no training asks for
PAIR = "pip install --force-reinstall torch torchvision"  # one command: apart, pip may pick two that do not fit
BUILDS = "https://pytorch.org/get-started/locally"
NET_SECONDS = 3
LOW_DISK, NO_DISK = 5e9, 0.2e9  # bytes
LOW_SHARED = 64 * 2**20  # what docker gives by default: one batch of photographs is more
HIDDEN = "***"
SIGNS = {"fine": ("✓", "+", "green"), "lacking": ("!", "!", "yellow"), "broken": ("✗", "x", "red")}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. mend: what to do about it; empty where it is fine."""

    name: str
    state: State
    found: str
    mend: str = ""


def examine() -> list[Check]:
    """Looks at everything. What fails in an unforeseen way is a check too; nothing is raised, no token is told."""
    secrets, found = known_tokens(), []
    for name, state, look in LOOKS:
        try:
            for check in look():
                found.append(check)
        except Exception as error:
            found.append(Check(name, state, f"this check failed: {said(error)}"))
    return [replace(check, found=safe(check.found, secrets), mend=safe(check.mend, secrets)) for check in found]


def show(checks: list[Check]) -> int:
    """Prints the checks and whether training is possible. Returns the exit status: 1 where it is not, else 0."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    encoding = console.encoding
    plain = not encoding.lower().startswith("utf")  # then a ✓ can't be written
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        *signs, color = SIGNS[check.state]
        # as it is: [audio] would be taken for markup
        text = Text(check.found.encode(encoding, "replace").decode(encoding))
        if check.mend:
            text.append(f"\nmend: {check.mend}", style="bold")
        table.add_row(Text(signs[plain], style=color), Text(check.name), text)
    console.print(table)
    states = [check.state for check in checks]
    if "broken" in states:
        sign = SIGNS["broken"][plain]
        console.print(f"Training is not possible here: first mend what is marked {sign}.", soft_wrap=True)
        return 1
    lacking = f"; what is marked {SIGNS['lacking'][plain]} is lacking for more" if "lacking" in states else ""
    console.print(f"Training is possible here{lacking}.", soft_wrap=True)
    return 0


# --- packages ---


def python() -> Iterator[Check]:
    """Whether this Python is one that the package is made for."""
    from packaging.specifiers import SpecifierSet

    version, bounds = sys.version.split()[0], SpecifierSet(metadata.metadata(PACKAGE)["Requires-Python"] or "")
    found = f"{version}, in {sys.prefix}"
    if bounds.contains(version.rstrip("+"), prereleases=True):  # builds from a checkout end in a +
        yield Check("Python", "fine", found)
    else:
        yield Check("Python", "broken", f"{found}, but it takes {bounds}", f"Make an environment with Python {bounds}.")


def packages() -> Iterator[Check]:
    """Whether what the package requires is installed, in versions that it takes."""
    others = []
    for requirement in requirements(PACKAGE):
        found, fits = installed(requirement)
        if not fits:
            yield Check(requirement.name, "broken", found, mend_of(requirement))
        elif requirement.name in OWN_LINES:
            yield Check(requirement.name, "fine", found)
        else:
            others.append(f"{requirement.name} {found}")
    if others:
        yield Check("others", "fine", ", ".join(others))


def hub_package() -> Iterator[Check]:
    """Whether huggingface_hub is one that transformers takes, through which it is required here."""
    for requirement in requirements("transformers"):
        if canonical(requirement.name) == "huggingface-hub":
            found, fits = installed(requirement)
            yield Check("huggingface_hub", *(("fine", found) if fits else ("broken", found, mend_of(requirement))))


def extras() -> Iterator[Check]:
    """For each optional part, whether it is installed."""
    always = {str(requirement) for requirement in requirements(PACKAGE)}
    for extra in metadata.metadata(PACKAGE).get_all("Provides-Extra") or ():
        if extra in FOR_DEVELOPERS:
            continue
        wanted = [each for each in requirements(PACKAGE, extra) if str(each) not in always]
        looked = {requirement.name: installed(requirement) for requirement in wanted}
        found = ", ".join(f"{name} {found}" for name, (found, _) in looked.items())
        if all(fits for _, fits in looked.values()):
            yield Check(extra, "fine", found)
        else:
            yield Check(extra, "lacking", found, f"pip install '{PACKAGE}[{extra}]'")


def energy_meter() -> Iterator[Check]:
    """Whether what a run draws can be measured: codecarbon, which no extra brings."""
    if util.find_spec("codecarbon"):
        yield Check("energy", "fine", f"codecarbon {metadata.version('codecarbon')}")
    else:
        yield Check("energy", "lacking", "codecarbon missing: no kWh in results", "pip install codecarbon")


def requirements(package: str, extra: str = "") -> list:
    """What an installed package requires here, as `packaging` Requirements. Raises `PackageNotFoundError`."""
    from packaging.requirements import Requirement

    found = map(Requirement, metadata.requires(package) or ())
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def installed(requirement) -> tuple[str, bool]:
    """The version of a required package, or what is wrong with it; and whether it will do."""
    bounds = str(requirement.specifier) or "any"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"missing, takes {bounds}", False
    if not requirement.specifier.contains(version, prereleases=True):  # a nightly build is a choice
        return f"{version}, but it takes {bounds}", False
    names = modules(requirement.name)
    if names and not any(map(util.find_spec, names)):  # some list more than they bring
        return f"{version}, but its files are gone", False
    return version, True


def modules(package: str) -> list[str]:
    """The names that an installed package is imported by, where it tells them."""
    listed = (metadata.distribution(package).read_text("top_level.txt") or "").split()
    return [name for name in listed if name.isidentifier() and not name.startswith("_")]


def mend_of(requirement) -> str:
    """The command that installs a version that will do; of torch and torchvision both, so that they fit."""
    if requirement.name in ("torch", "torchvision"):
        pair = [each for each in requirements(PACKAGE) if each.name in ("torch", "torchvision")]
        return "pip install -U " + " ".join(f"'{each.name}{each.specifier}'" for each in pair)
    return f"pip install --force-reinstall --no-deps '{requirement.name}{requirement.specifier}'"


def canonical(name: str) -> str:
    """A package's name as the registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pair() -> Iterator[Check]:
    """Whether torchvision fits torch: one built for another imports, and then lacks its operators."""
    try:
        import torch
        import torchvision
        from torchvision.transforms.v2 import functional

        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
        kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist()
        shape = tuple(functional.resize(torch.zeros(3, 8, 8, dtype=torch.uint8), [4, 4]).shape)
        if (kept, shape) != ([0], (3, 4, 4)):
            raise RuntimeError(f"boxes kept: {kept}, image resized to {shape}")
    except Exception as error:
        yield Check("torch pair", "broken", f"torchvision does not work with this torch: {said(error)}", PAIR)
    else:
        yield Check("torch pair", "fine", f"torchvision works with torch {torch.__version__}")


def torchcodec() -> Iterator[Check]:
    """Where torchcodec is installed, whether it decodes: it imports also without the libraries of FFmpeg."""
    if not util.find_spec("torchcodec"):
        return
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 1600))
    try:
        from torchcodec.decoders import AudioDecoder

        samples = AudioDecoder(file.getvalue()).get_all_samples().data
    except Exception as error:
        mend = "Install FFmpeg with its shared libraries (apt install ffmpeg), or: pip uninstall torchcodec"
        yield Check("torchcodec", "lacking", f"it decodes nothing: {said(error)}", mend)
    else:
        yield Check("torchcodec", "fine", f"decodes ({samples.shape[-1]:,} samples of a sound)")


# --- the machine ---


def devices() -> Iterator[Check]:
    """What training computes on, each having multiplied; and GPUs that torch can't see."""
    import torch

    from .machine import cores, has_bf16, processor

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
            fails.append((str(device), said(error)))
    mend = (
        f"Free it, leave it out (CUDA_VISIBLE_DEVICES), train with --use_cpu, or install a torch built for it: {BUILDS}"
    )
    yield from works
    for name, reason in fails:
        yield Check(name, "lacking" if works else "broken", f"it can't compute: {reason}", mend)


def described(device) -> str:
    """An accelerator's name, memory and bf16, after a product on it. Raises what torch raises where it can't."""
    import torch

    from .machine import has_bf16

    multiply(device)
    module = getattr(torch, device.type)
    told = [module.get_device_name(device) if hasattr(module, "get_device_name") else f"{device.type.upper()} device"]
    with suppress(Exception):  # Apple's share the machine's memory, and don't tell
        free, total = torch.accelerator.get_memory_info(device)
        told.append(f"{gigabytes(free)} free of {gigabytes(total)}")
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        told.append("bf16" if has_bf16() else "no fast bf16")
    return ", ".join(told)


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
    there = [name for name in ("gloo", "nccl", "xccl", "mpi") if getattr(distributed, f"is_{name}_available")()]
    wanted = "nccl" if torch.cuda.is_available() and torch.cuda.device_count() > 1 and os.name != "nt" else "gloo"
    if wanted in there:
        yield Check("distributed", "fine", ", ".join(there))
    else:
        yield Check("distributed", "lacking", f"no {wanted} in this torch ({', '.join(there) or 'nothing'})", PAIR)


def disks() -> Iterator[Check]:
    """Room for what a run writes and for what is downloaded."""
    from huggingface_hub import constants

    here = "Make room, go to another disk, or keep fewer checkpoints: --save_total_limit 1"
    yield disk("disk", Path.cwd(), here)
    yield disk("HF_HOME", Path(constants.HF_HOME), "Make room (hf cache prune), or: export HF_HOME=/another/disk")


def disk(name: str, folder: Path, mend: str) -> Check:
    """The check of the disk that a folder lies on, or will once it is made."""
    folder = folder.expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    state = "broken" if free < NO_DISK else "lacking" if free < LOW_DISK else "fine"
    found = f"{gigabytes(free)} free in {folder}"
    if not os.access(there, os.W_OK):
        return Check(name, "broken" if state == "broken" else "lacking", f"{found}, where you may not write", mend)
    return Check(name, state, found, "" if state == "fine" else mend)


def shared_memory() -> Iterator[Check]:
    """Room for the batches that loader workers hand over, on systems that set it apart."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    found = f"{gigabytes(free)} free in {folder}"
    if free > LOW_SHARED:
        yield Check("shared memory", "fine", found)
    else:
        mend = "docker run --shm-size 8g, or train with --dataloader_num_workers 0"
        yield Check("shared memory", "lacking", f"{found}: loader workers need it", mend)


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


# --- the Hub ---


def hub() -> Iterator[Check]:
    """Whether the Hub answers, and whom it takes us for."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        yield Check(
            "Hub", "fine", f"offline mode (HF_HUB_OFFLINE): {endpoint} is not asked, only what is cached is read"
        )
        yield Check("token", "fine", "not asked for in offline mode")
        return
    try:
        status = ask("HEAD", endpoint).status_code
        trouble = f"answers with status {status}" if status >= 500 or status == 407 else ""  # 407 is a proxy's
    except Exception as error:
        trouble = f"can't be reached: {said(error)}"
    if trouble:
        mend = "Check HF_ENDPOINT and the proxy (HTTPS_PROXY), or work offline: export HF_HUB_OFFLINE=1"
        yield Check("Hub", "lacking", f"{endpoint} {trouble}", mend)
    else:
        yield Check("Hub", "fine", f"{endpoint} answers")
    yield account(reached=not trouble)


def account(reached: bool) -> Check:
    """The check of the token. Of what fails it tells the kind alone: the text might quote the token."""
    from huggingface_hub import constants, get_token

    mend = "hf auth login --force" + (", or another HF_TOKEN, which goes first" if os.environ.get("HF_TOKEN") else "")
    try:
        token = within(get_token)
        if not token:
            return Check("token", "lacking", "none: no push, and only what is public", "hf auth login")
        if not reached:
            return Check("token", "fine", "there is one; the Hub was not asked whose")
        answer = ask("GET", f"{constants.ENDPOINT}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code in (401, 403):
            return Check("token", "lacking", "there is one, but the Hub does not know it", mend)
        if answer.status_code != 200:
            return Check("token", "lacking", f"there is one; asked whose, the Hub answers {answer.status_code}", mend)
        told = answer.json()
        role = told.get("auth", {}).get("accessToken", {}).get("role")
        return Check("token", "fine", f"of {told['name']}" + (f", role {role}" if role else ""))
    except Exception as error:
        return Check("token", "lacking", f"the Hub could not be asked whose it is ({type(error).__name__})", mend)


def ask(method: str, address: str, **options) -> Any:
    """The response to a request through the session of huggingface_hub, so with its proxies. Raises what that raises,
    and `TimeoutError`."""
    from huggingface_hub.utils import get_session

    return within(lambda: get_session().request(method, address, timeout=NET_SECONDS, **options))


def within(call: Callable[[], Any]) -> Any:
    """What a call returns or raises, or `TimeoutError`: looking up a name knows no limit of its own."""
    future = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()  # it must not hold up the end of the process
    return future.result(NET_SECONDS + 1)


# --- what may be said ---


def known_tokens() -> list[str]:
    """The tokens that must not be shown."""
    found = [os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")]
    with suppress(Exception):
        from huggingface_hub import get_token

        found.append(within(get_token))
    return [token.strip() for token in found if token and token.strip()]


def safe(text: str, secrets: list[str]) -> str:
    """Text without tokens, passwords in addresses, and what would steer a terminal."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = re.sub(r"\bhf_[A-Za-z0-9]{16,}", HIDDEN, text)
    text = re.sub(r"://[^/\s]*@", f"://{HIDDEN}@", text)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def said(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(str(error))}".removesuffix(": ")


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


# name and state of a line that tells of a failed check, and what looks
LOOKS: tuple[tuple[str, State, Callable[[], Iterator[Check]]], ...] = (
    ("Python", "lacking", python),
    ("packages", "lacking", packages),
    ("huggingface_hub", "broken", hub_package),
    ("torch pair", "broken", pair),
    ("device", "broken", devices),
    ("distributed", "lacking", distributed),
    ("disk", "lacking", disks),
    ("shared memory", "lacking", shared_memory),
    ("Hub", "lacking", hub),
    ("extras", "lacking", extras),
    ("energy", "lacking", energy_meter),
    ("torchcodec", "lacking", torchcodec),
)
