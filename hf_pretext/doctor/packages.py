"""Checks of installed packages: Python, requirements, torch with torchvision, and extras.

metadata of installed packages -> checks
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
FOR_DEVELOPERS = {"test", "dev", "bench"}  # extras that training does not need
PAIR = "pip install --force-reinstall torch torchvision"  # one command, so that pip picks versions that fit


def python() -> Iterator[Check]:
    """Checks that the package supports this version of Python."""
    from packaging.specifiers import SpecifierSet

    version, bounds = sys.version.split()[0], SpecifierSet(metadata.metadata(PACKAGE)["Requires-Python"] or "")
    detail = f"{version}, in {sys.prefix}"
    if bounds.contains(version.rstrip("+"), prereleases=True):  # builds from a checkout end in a +
        yield Check("Python", "fine", detail)
    else:
        yield Check(
            "Python", "broken", f"{detail}, but it needs {bounds}", f"Create an environment with Python {bounds}."
        )


def packages() -> Iterator[Check]:
    """Checks that the required packages are installed in supported versions."""
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
    """Checks that transformers supports this version of huggingface_hub, which is a requirement of transformers."""
    for requirement in requirements("transformers"):
        if canonical(requirement.name) == "huggingface-hub":
            detail, fits = installed(requirement)
            yield Check("huggingface_hub", *(("fine", detail) if fits else ("broken", detail, mend_of(requirement))))


def extras() -> Iterator[Check]:
    """Checks for each extra whether its packages are installed."""
    always = {str(requirement) for requirement in requirements(PACKAGE)}
    for extra in metadata.metadata(PACKAGE).get_all("Provides-Extra") or ():
        if extra in FOR_DEVELOPERS:
            continue
        required = [each for each in requirements(PACKAGE, extra) if str(each) not in always]
        results = {requirement.name: installed(requirement) for requirement in required}
        detail = ", ".join(f"{name} {detail}" for name, (detail, _) in results.items())
        if all(fits for _, fits in results.values()):
            yield Check(extra, "fine", detail)
        else:
            yield Check(extra, "lacking", detail, f"pip install '{PACKAGE}[{extra}]'")


def requirements(package: str, extra: str = "") -> list:
    """Returns the requirements of an installed package on this machine, as `packaging` Requirements.

    Raises `PackageNotFoundError` if it is not installed."""
    from packaging.requirements import Requirement

    required = map(Requirement, metadata.requires(package) or ())
    return [each for each in required if each.marker is None or each.marker.evaluate({"extra": extra})]


def installed(requirement) -> tuple[str, bool]:
    """Returns the version of a required package or its problem, and whether it meets the requirement."""
    bounds = str(requirement.specifier) or "any"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"missing, needs {bounds}", False
    if not requirement.specifier.contains(version, prereleases=True):  # accepts nightly builds
        return f"{version}, but it needs {bounds}", False
    names = modules(requirement.name)
    if names and not any(map(util.find_spec, names)):  # some list modules that they do not contain
        return f"{version}, but its files are missing", False
    return version, True


def modules(package: str) -> list[str]:
    """Returns the import names of an installed package, if its metadata list them."""
    listed = (metadata.distribution(package).read_text("top_level.txt") or "").split()
    return [name for name in listed if name.isidentifier() and not name.startswith("_")]


def mend_of(requirement) -> str:
    """Returns the command that installs a supported version. torch and torchvision are installed together."""
    if requirement.name in ("torch", "torchvision"):
        pair = [each for each in requirements(PACKAGE) if each.name in ("torch", "torchvision")]
        return "pip install -U " + " ".join(f"'{each.name}{each.specifier}'" for each in pair)
    return f"pip install --force-reinstall --no-deps '{requirement.name}{requirement.specifier}'"


def canonical(name: str) -> str:
    """Returns the normalised name of a package (PEP 503): lower case, `-` for each run of `-`, `_` and `.`"""
    return re.sub(r"[-_.]+", "-", name).lower()


def pair() -> Iterator[Check]:
    """Checks that torchvision fits torch. A torchvision for another torch can be imported but lacks operators."""
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
    """Checks that the FFmpeg libraries of PyAV are installed and decode."""
    fix = f"pip install --force-reinstall '{PACKAGE}[video]'"
    if not util.find_spec("av"):
        yield Check("FFmpeg", "lacking", "PyAV, which contains it, is not installed: no video", fix)
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
        yield Check("FFmpeg", "lacking", f"PyAV does not decode: {summary(error)}", fix)
    else:
        yield Check("FFmpeg", "fine", f"libavcodec {version} of PyAV decodes ({samples:,} samples of a sound)")
