"""Sounds: a part of each, through any of transformers' feature extractors; of a film, its sound.

row {"audio"} or {"video"} -> decode, one channel -> part at `at` -> input_values (T,) or (frames, mels)

Encoders of waveforms that normalise over groups (`feat_extract_norm="group"`) let padding into the norm, so that their
sounds are cropped or padded to one length; with "layer" batches are padded to their longest, with an attention_mask.
Encoders of spectrograms have the one length of their extractor.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoFeatureExtractor, PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

from ..data.decoding import sound_of_video, to_sound
from ..encoders import TRIED, noise
from ..utils.paths import relative
from ..utils.settings import accepts_ints
from ._modality import Batch, Context, Example, Modality

SAMPLING_RATE = 16_000  # Hz
LONGEST = 10.0  # seconds of a sound, where nothing says it
OF_CONFIG = ("num_mel_bins", "max_length")  # settings of an extractor that an encoder's config repeats
TRIED_FRAMES = 100  # of log-mel features, where no config names a number
TRIED_SAMPLES = 8_000  # of a waveform: half a second at 16 kHz


USAGE = """
import torch
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
sound = torch.zeros(extractor.sampling_rate).numpy()  # yours: one channel, at this rate
batch = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
with torch.no_grad():
    hidden = encoder(**batch{{ hidden_of }}
features = hidden.mean(1)
print(encoder.__class__.__name__, features.shape)
"""


@accepts_ints
@strict
@dataclass
class AudioArguments:
    """How sounds are read.

    audio_column: Their column, where its type and name don't show it; without one, the sound of the videos is read.
    eval_audio_column: The same in --eval_dataset.
    seconds: Length of the part of each sound that is seen, in seconds.
    feature_extractor: A folder or Hub id; an --encoder brings its own, and a fresh one gets its architecture's usual.
    """

    _argument_group_name: ClassVar[str] = "sounds"

    audio_column: str | None = None
    eval_audio_column: str | None = None
    seconds: float = 2.0
    feature_extractor: str | None = None

    def validate_seconds(self):
        if self.seconds <= 0:
            raise ValueError(f"seconds must lie above 0, but is {self.seconds}.")


class Audio(Modality):
    """Sounds.

    processor: a transformers feature extractor, which says the sampling rate. seconds: of a part. padded: whether all
    waveforms are padded to `seconds`, not to the longest of a batch with an attention_mask.
    """

    name = "audio"
    columns = ("audio", "video")
    options = (AudioArguments,)
    samples = "sounds"
    role = "feature_extractor"
    timed = True
    fractions = (0.01, 0.1, 1.0)
    task_type = "audio-classification"
    packages = ("soundfile",)
    usage = USAGE

    def __init__(self, processor, seconds: float, padded: bool = False, brought_by: str | None = None):
        """brought_by: the folder or Hub id of the extractor; None for a default one, which `fit` may replace."""
        self.processor, self.seconds, self.padded, self.brought_by = processor, seconds, padded, brought_by

    @classmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Audio":
        """Sounds as options say. Raises `ValueError` for a --feature_extractor that is none."""
        settings: AudioArguments = options[AudioArguments]
        asked, brought_by = settings.feature_extractor, settings.feature_extractor or context.start
        processor = None if brought_by is None else saved_extractor(brought_by)
        if processor is None and asked is not None:
            raise ValueError(f"--feature_extractor {asked} is neither a folder with one nor a Hub id of one.")
        if processor is None:
            return cls(Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE), settings.seconds)
        return cls(processor, settings.seconds, brought_by=brought_by)

    @classmethod
    def from_saved(cls, folder: str, encoder: PreTrainedModel, source: str, size: int | None = None) -> "Audio":
        """Sounds as a saved encoder takes them. Raises `ValueError` where it has no feature extractor."""
        processor = saved_extractor(folder)
        if processor is None:
            raise ValueError(f"{source} has no feature extractor. Save the one that the encoder was made for with it.")
        sounds = cls(processor, LONGEST, brought_by=source)
        sounds.fit(encoder)
        return sounds

    @staticmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """A waveform, or log-mel features with frames or with bins first."""
        config, name = encoder.config, encoder.main_input_name
        name = name if name in ("input_values", "input_features") else "input_values"
        names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel")
        bins = next((value for value in (getattr(config, name, None) for name in names) if value), None)
        if bins is None:
            return [{name: noise(encoder, TRIED, TRIED_SAMPLES)}]
        frames = getattr(config, "max_length", None) or TRIED_FRAMES
        shapes = [(frames, bins), (bins, frames)]
        positions = getattr(config, "max_source_positions", None)
        shapes += [(bins, 2 * positions)] if positions else []  # Whisper's encoder takes this number of frames alone
        return [{name: noise(encoder, TRIED, *shape)} for shape in shapes]

    @staticmethod
    def words(results: Mapping) -> str:
        """What an encoder takes, of the results of a run."""
        return f"sounds of {results['seconds']:g} seconds at {results['sampling_rate']:,} Hz"

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Length and extractor."""
        extractor = results["feature_extractor"]["class"]
        return [f"Sounds: parts of {results['seconds']:g} seconds, padded {results['sounds_padded']}, by {extractor}."]

    def largest(self) -> str:
        """What `noise` is, in words that name the options."""
        return f"Sounds of {self.seconds:g} seconds (--seconds)"

    @property
    def encoder_input(self) -> str:
        """What an encoder takes it as: `input_values`, or `input_features`."""
        return self.processor.model_input_names[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """All columns that an example may have."""
        return self.encoder_input, "attention_mask"

    @property
    def fills(self) -> dict[str, float]:
        """Columns padded along time, and with what."""
        return {self.encoder_input: self.processor.padding_value, "attention_mask": 0}

    @property
    def length(self) -> int:
        """Samples of a part."""
        return round(self.seconds * self.processor.sampling_rate)

    def __call__(self, row: dict, random: np.random.Generator | None, at: float) -> Example:
        """Returns the encoder's input and, of waveforms of several lengths, an attention_mask, `(T,)`. Raises
        `BadSample` for a sound that can't be read."""
        column = self.column(row)
        decode = to_sound if column == "audio" else sound_of_video
        return self.extracted(decode(row[column], self.processor.sampling_rate, self.seconds, at))

    def extracted(self, sound: Tensor) -> Example:
        """A sound's input, `(T,)` or `(frames, mels)`, and its attention_mask."""
        fixed = {"padding": "max_length", "max_length": self.length, "truncation": True} if self.padded else {}
        rate = self.processor.sampling_rate
        extracted = self.processor(sound.numpy(), sampling_rate=rate, return_tensors="pt", **fixed)
        values = extracted[self.encoder_input][0]
        if self.padded or (values.ndim > 1 and "attention_mask" not in extracted):  # of one length
            return {self.encoder_input: values}
        return {self.encoder_input: values, "attention_mask": torch.ones(len(values), dtype=torch.long)}

    def shape(self) -> dict[str, int | float]:
        """Returns `sampling_rate`, in Hz, and `seconds`."""
        return {"sampling_rate": self.processor.sampling_rate, "seconds": self.seconds}

    def fit(self, encoder: PreTrainedModel) -> None:
        """Takes the encoder's usual extractor where none was brought, and pads to one length where its norm sees
        padding. Raises `ValueError` for an extractor that gives another input than the encoder takes."""
        config = encoder.config
        norm = getattr(config, "feat_extract_norm", None)
        if self.brought_by is None:
            self.processor = default_extractor(config, self.processor.sampling_rate)
            self.processor.return_attention_mask = norm == "layer"
        self.padded = norm == "group"
        if self.encoder_input != encoder.main_input_name:
            raise ValueError(
                f"The feature extractor, {type(self.processor).__name__}, gives {self.encoder_input}, but "
                f"{type(encoder).__name__} takes {encoder.main_input_name}. Give its own with --feature_extractor."
            )

    def noise(self, count: int = 2) -> Batch:
        """Returns noise of the full length, through the extractor: `(count, T)` or `(count, frames, mels)`."""
        examples = [self.extracted(0.1 * torch.randn(self.length)) for _ in range(count)]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def padding(self) -> str:
        """How sounds become one length, in words."""
        example = self.extracted(torch.zeros(self.length))
        if "attention_mask" in example:
            return "to the longest of a batch"
        return "to --seconds" if self.padded else "to the one length that the extractor gives"

    def facts(self) -> dict:
        """Returns length and extractor."""
        extractor = {"from": relative(self.brought_by), "class": type(self.processor).__name__}
        return {
            "seconds": self.seconds,
            "sampling_rate": self.processor.sampling_rate,
            "sounds_padded": self.padding(),
            "feature_extractor": extractor,
        }


def saved_extractor(path: str):
    """The feature extractor that a folder or Hub id brings, or None."""
    try:
        return AutoFeatureExtractor.from_pretrained(path)
    except (OSError, ValueError):
        return None


def default_extractor(config, sampling_rate: int):
    """The feature extractor of an encoder that came without one: its architecture's, with the sizes of its config;
    `Wav2Vec2FeatureExtractor` where it has none."""
    extractor = FEATURE_EXTRACTOR_MAPPING.get(type(config), None) or Wav2Vec2FeatureExtractor
    takes = inspect.signature(extractor.__init__).parameters
    sizes = {name: getattr(config, name) for name in OF_CONFIG if name in takes and hasattr(config, name)}
    return extractor(sampling_rate=sampling_rate, **sizes)
