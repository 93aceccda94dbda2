"""What is installed: Python, what the package requires, torch with a torchvision that fits it, optional parts.

metadata of what is installed -> checks
"""

import io
import re
import sys
import wave
from collections.abc import Iterator
from importlib import metadata, util

from .check import Check, summary

PACKAGE = "hf_pretext"
SEPARATE_LINES = ("torch", "torchvision", "transformers", "datasets", "accelerate")  # the others share one
FOR_DEVELOPERS = {"test", "dev", "bench"}  # extras that no training asks for
PAIR = "pip install --force-reinstall torch torchvision"  # one command: apart, pip may pick two that do not fit


def python() -> Iterator[Check]:
    """Whether this Python is one that the package is made for."""
    from packaging.specifiers import SpecifierSet

    version, bounds = sys.version.split()[0], SpecifierSet(metadata.metadata(PACKAGE)["Requires-Python"] or "")
    detail = f"{version}, in {sys.prefix}"
    if bounds.contains(version.rstrip("+"), prereleases=True):  # builds from a checkout end in a +
        yield Check("Python", "fine", detail)
    else:
        yield Check(
            "Python", "broken", f"{detail}, but it takes {bounds}", f"Make an environment with Python {bounds}."
        )


def packages() -> Iterator[Check]:
    """Whether what the package requires is installed, in versions that it takes."""
    others = []
    for requirement in requirements(PACKAGE):
        detail, fits = installed(requirement)
        if not fits:
            yield Check(requirement.name, "broken", detail, mend_of(requirement))
        elif requirement.name in SEPARATE_LINES:
            yield Check(requirement.name, "fine", detail)
        else:
            others.append(f"{requirement.name} {detail}")
    if others:
        yield Check("others", "fine", ", ".join(others))


def hub_package() -> Iterator[Check]:
    """Whether huggingface_hub is one that transformers takes, through which it is required here."""
    for requirement in requirements("transformers"):
        if canonical(requirement.name) == "huggingface-hub":
            detail, fits = installed(requirement)
            yield Check("huggingface_hub", *(("fine", detail) if fits else ("broken", detail, mend_of(requirement))))


def extras() -> Iterator[Check]:
    """For each optional part, whether it is installed."""
    always = {str(requirement) for requirement in requirements(PACKAGE)}
    for extra in metadata.metadata(PACKAGE).get_all("Provides-Extra") or ():
        if extra in FOR_DEVELOPERS:
            continue
        wanted = [each for each in requirements(PACKAGE, extra) if str(each) not in always]
        looked = {requirement.name: installed(requirement) for requirement in wanted}
        detail = ", ".join(f"{name} {detail}" for name, (detail, _) in looked.items())
        if all(fits for _, fits in looked.values()):
            yield Check(extra, "fine", detail)
        else:
            yield Check(extra, "lacking", detail, f"pip install '{PACKAGE}[{extra}]'")


def requirements(package: str, extra: str = "") -> list:
    """What an installed package requires here, as `packaging` Requirements. Raises `PackageNotFoundError`."""
    from packaging.requirements import Requirement

    required = map(Requirement, metadata.requires(package) or ())
    return [each for each in required if each.marker is None or each.marker.evaluate({"extra": extra})]


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
        yield Check("torch pair", "broken", f"torchvision does not work with this torch: {summary(error)}", PAIR)
    else:
        yield Check("torch pair", "fine", f"torchvision works with torch {torch.__version__}")


def ffmpeg() -> Iterator[Check]:
    """Whether FFmpeg, which PyAV brings along, is there and decodes."""
    mend = f"pip install --force-reinstall '{PACKAGE}[video]'"
    if not util.find_spec("av"):
        yield Check("FFmpeg", "lacking", "none: PyAV would bring it, for video", mend)
        return
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 1600))
    file.seek(0)
    try:
        import av

        with av.open(file) as sound:
            samples = sum(frame.samples for frame in sound.decode(audio=0))
        version = ".".join(map(str, av.library_versions["libavcodec"]))
    except Exception as error:
        yield Check("FFmpeg", "lacking", f"PyAV does not decode: {summary(error)}", mend)
    else:
        yield Check("FFmpeg", "fine", f"libavcodec {version} of PyAV decodes ({samples:,} samples of a sound)")
