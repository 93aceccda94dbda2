"""What a saved processor says about the clips that its encoder was trained on, for a later evaluation.

processor, clips of training -> preprocessor_config.json with the entry `pretext` -> SavedClips
"""

import copy
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.dataclasses import strict

from ..utils.foreign import read_json
from ..utils.settings import accepts_ints, make_settings

ENTRY = "pretext"
FILES = "*processor_config.json"


@accepts_ints
@strict
@dataclass
class SavedClips:
    """The clips that an encoder was trained on: the entry `pretext` of its processor.

    kind: "audio" or "video"; None without an entry. seconds: length of a clip; None: the full video. num_frames, fps:
    see `VideoArguments`; of videos.
    """

    kind: str | None = None
    seconds: float | None = None
    num_frames: int | None = None
    fps: float | None = None

    def validate_ranges(self):
        for name in ("seconds", "num_frames", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, but is {value}.")


def with_clips(processor, clips: SavedClips):
    """Returns a copy of a processor that saves `clips`, too."""
    processor = copy.copy(processor)
    setattr(processor, ENTRY, {name: value for name, value in dataclasses.asdict(clips).items() if value is not None})
    return processor


def without_clips(processor):
    """Returns a copy of a processor that saves no clips: of an encoder that is now trained on something else."""
    processor = copy.copy(processor)
    vars(processor).pop(ENTRY, None)
    return processor


def saved_clips(folder: str | os.PathLike) -> SavedClips:
    """Returns what the processors of a folder say. Raises `ValueError` for an entry that can't be read."""
    for path in sorted(Path(folder).glob(FILES)):
        entry = read_json(path).get(ENTRY)
        if entry is None:
            continue
        try:
            return make_settings(SavedClips, **entry)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} has a wrong entry {ENTRY}: {error} Correct or remove it.") from error
    return SavedClips()
