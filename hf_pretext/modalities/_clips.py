"""Clips of films and sounds for the modalities of a row: decoded once for all, and kept where they are the whole file.

row {"video": {"bytes"}} -> parts that the modalities need -> one `to_clip` -> row {"video": Clip}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from huggingface_hub.dataclasses import strict

from ..data.clips import Clip, length_of, to_clip
from ..data.limits import LIMITS, Limits
from ..utils.settings import accepts_ints

if TYPE_CHECKING:
    from ._modality import Modality

KEPT_BYTES = 2**28  # memory for decoded clips, in each worker
OVERHANG = 1e-6  # seconds by which a file may be longer than its clip; the frames and samples are the same


@accepts_ints
@strict
@dataclass
class ClipArguments:
    """Options of clips, which are parts of videos and audio.

    seconds: Length of a clip, in seconds. In training its place is random. Audio and video of a row are of the same
        seconds.
    """

    _argument_group_name: ClassVar[str] = "clips"

    seconds: float = 2.0

    def validate_seconds(self):
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds must be above 0, but is {self.seconds}.")


@dataclass(frozen=True)
class Part:
    """What a modality needs of a film or sound: arguments of `to_clip`."""

    seconds: float | None
    fps: float | None = None
    frames: int = 0
    sampling_rate: int | None = None
    min_loudness: float | None = None
    limits: Limits = LIMITS

    def clip(self, value: dict | bytes | Clip, at: float, until: float | None = None) -> Clip:
        """Decodes a part of a film or sound. at: its place, 0 (first possible) to 1 (last possible). until: see
        `to_clip`. Returns a clip that is decoded already. Raises `BadSample`, see `to_clip`."""
        return value if isinstance(value, Clip) else to_clip(value, at=at, until=until, **vars(self))

    def length_of(self, value: dict | bytes) -> float:
        """Returns the length of a film or sound in seconds. Raises `BadSample`, see `to_clip`."""
        return length_of(value, self.frames, self.sampling_rate, self.limits)

    def joined(self, other: "Part") -> "Part":
        """Returns a part with the frames of one and the sound of the other, of the same seconds."""
        frames, sound = (self, other) if self.frames else (other, self)
        limits = replace(frames.limits, seconds=sound.limits.seconds)
        return replace(frames, sampling_rate=sound.sampling_rate, min_loudness=sound.min_loudness, limits=limits)


class Clips:
    """Decodes the clips of rows, and keeps those that are the whole file, up to `KEPT_BYTES`.

    Decoding is most of the work. A clip that is a part of its file is decoded each time, since its place is drawn
    again. The first clips stay: after a shuffle all are equally likely to come again."""

    def __init__(self):
        self._kept: dict[tuple[str, str], Clip] = {}
        self._room = KEPT_BYTES

    def decoded(
        self,
        row: dict,
        modalities: Sequence["Modality"],
        at: float,
        only: "Modality | None" = None,
        within: Sequence["Modality"] = (),
    ) -> dict:
        """Returns a row with clips in place of the films and sounds that these modalities read. A column is decoded
        once, unless they need different seconds of it: then it stays as it is, and each modality decodes it.

        Clips of several files, such as a film and a sound, are of the same seconds: within the shortest file. All calls
        must be for the same modalities. only: decodes for this one, and keeps no clip. within: modalities whose files
        count as well. Raises `BadSample`, see `to_clip`."""
        parts = joined_parts(row, modalities)
        files = {**joined_parts(row, within), **parts}
        kept = {name: self._kept[row.get("key"), name] for name in parts if (row.get("key"), name) in self._kept}
        until = None
        if len(files) > 1 and len(kept) < len(parts):
            until = min(part.length_of(row[name]) for name, part in files.items())
        if only is not None:
            parts = {name: part for name, part in joined_parts(row, [only]).items() if name in parts}
        clips = {name: kept[name] if name in kept else part.clip(row[name], at, until) for name, part in parts.items()}
        for name in clips if only is None and "key" in row else ():
            if name not in kept:
                self._keep((row["key"], name), clips[name], at)
        return {**row, **clips}

    def _keep(self, name: tuple[str, str], clip: Clip, at: float) -> None:
        size = sum(tensor.nbytes for tensor in clip[:3] if tensor is not None)
        if at > 0 and clip.start <= OVERHANG * at and size <= self._room:
            self._kept[name] = clip
            self._room -= size


def joined_parts(row: Mapping, modalities: Sequence["Modality"]) -> dict[str, Part]:
    """Returns what the modalities together need of each column of a row, without columns of which they need different
    seconds, and without decoded ones."""
    parts: dict[str, Part | None] = {}
    for modality in modalities:
        column, part = modality.column(row), modality.part
        if part is None or column is None or isinstance(row[column], Clip):
            continue
        if column not in parts:
            parts[column] = part
        elif parts[column] is not None:
            same = parts[column].seconds == part.seconds and part.seconds is not None
            parts[column] = parts[column].joined(part) if same else None
    return {column: part for column, part in parts.items() if part is not None}
