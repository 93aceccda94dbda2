"""Audio: a part of each clip, or of the sound of a video, through a feature extractor of transformers.

row {"audio"} or {"video"} -> decode, one channel -> part at `at` -> input_values (T,) or (frames, mels)

Padding depends on the encoder. Waveform encoders with `feat_extract_norm="group"` include padding in the norm, so their
clips are cropped or padded to one length. With "layer", clips are padded to the longest of a batch, with an
attention_mask. For spectrogram encoders the feature extractor sets the length.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoFeatureExtractor, PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

from ..data.clips import to_clip
from ..data.limits import LIMITS, Limits
from ..encoders import TRIED, noise
from ..utils.foreign import refuse_custom_code
from ..utils.paths import relative
from ..utils.settings import accepts_ints
from ._modality import Batch, Context, Example, Modality

SAMPLING_RATE = 16_000  # Hz
LONGEST = 10.0  # seconds of a clip; used for saved encoders
OF_CONFIG = ("num_mel_bins", "max_length")  # settings of a feature extractor that the encoder's config also has
TRIED_FRAMES = 100  # of log-mel features; used if the config has no length
TRIED_SAMPLES = 8_000  # of a waveform: half a second at 16 kHz


USAGE = """
import torch
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
audio = torch.zeros(extractor.sampling_rate).numpy()  # for your audio: one channel, at this sampling rate
batch = extractor(audio, sampling_rate=extractor.sampling_rate, return_tensors="pt")
with torch.no_grad():
    hidden = encoder(**batch{{ hidden_of }}
features = hidden.mean(1)
print(encoder.__class__.__name__, features.shape)
"""


@accepts_ints
@strict
@dataclass
class AudioArguments:
    """Options of audio.

    audio_column: Column of the audio. If not set: detected from the column names and types; without an audio column,
        the sound of the videos.
    eval_audio_column: Column of the audio in --eval_dataset. Default: as for audio_column.
    seconds: Length of the part of each audio clip that the encoder takes, in seconds.
    feature_extractor: Folder or Hub id of a feature extractor. Default: the feature extractor of --encoder, or else the
        default of the encoder's architecture.
    max_sound_seconds: Sounds that are longer, in seconds, count as bad samples.
    """

    _argument_group_name: ClassVar[str] = "sounds"

    audio_column: str | None = None
    eval_audio_column: str | None = None
    seconds: float = 2.0
    feature_extractor: str | None = None
    max_sound_seconds: float = LIMITS.seconds

    def validate_seconds(self):
        for name in ("seconds", "max_sound_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, but is {getattr(self, name)}.")


class Audio(Modality):
    """Audio.

    processor: a transformers feature extractor. It sets the sampling rate. seconds: length of a part, in seconds.
    padded: True if all waveforms are padded to `seconds`; else to the longest of a batch, with an attention_mask.
    limits: of one sound.
    """

    name = "audio"
    columns = ("audio", "video")
    options = (AudioArguments,)
    samples = "audio clips"
    role = "feature_extractor"
    timed = True
    fractions = (0.01, 0.1, 1.0)
    task_type = "audio-classification"
    packages = ("soundfile",)
    usage = USAGE

    def __init__(
        self, processor, seconds: float, padded: bool = False, brought_by: str | None = None, limits: Limits = LIMITS
    ):
        """brought_by: folder or Hub id of the feature extractor; None for a default one, which `fit` replaces."""
        self.processor, self.seconds, self.padded, self.brought_by = processor, seconds, padded, brought_by
        self.limits = limits

    @classmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Audio":
        """Builds the modality from options. Raises `ValueError` if --feature_extractor is no feature extractor."""
        settings: AudioArguments = options[AudioArguments]
        given, brought_by = settings.feature_extractor, settings.feature_extractor or context.start
        processor = None if brought_by is None else saved_extractor(brought_by)
        if processor is None and given is not None:
            raise ValueError(
                f"--feature_extractor {given} has no feature extractor. Give a folder or Hub id with a "
                "preprocessor_config.json."
            )
        if processor is None:
            processor = Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE)
        limits = replace(context.limits, seconds=settings.max_sound_seconds)
        return cls(processor, settings.seconds, brought_by=brought_by, limits=limits)

    @classmethod
    def from_saved(cls, folder: str, encoder: PreTrainedModel, source: str, *of_images: int | None) -> "Audio":
        """Builds the modality for a saved encoder. Raises `ValueError` if it has no feature extractor."""
        processor = saved_extractor(folder)
        if processor is None:
            raise ValueError(f"{source} has no feature extractor. Save the encoder's feature extractor in its folder.")
        audio = cls(processor, LONGEST, brought_by=source)
        audio.fit(encoder)
        return audio

    @staticmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Returns batches of noise: a waveform, or log-mel features with the frames or the bins first."""
        config, name = encoder.config, encoder.main_input_name
        name = name if name in ("input_values", "input_features") else "input_values"
        names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel")
        bins = next((value for value in (getattr(config, name, None) for name in names) if value), None)
        if bins is None:
            return [{name: noise(encoder, TRIED, TRIED_SAMPLES)}]
        frames = getattr(config, "max_length", None) or TRIED_FRAMES
        shapes = [(frames, bins), (bins, frames)]
        positions = getattr(config, "max_source_positions", None)
        shapes += [(bins, 2 * positions)] if positions else []  # Whisper's encoder takes only this number of frames
        return [{name: noise(encoder, TRIED, *shape)} for shape in shapes]

    @staticmethod
    def words(results: Mapping) -> str:
        """Returns a description of the encoder's inputs from the results of a run."""
        return f"audio clips of {results['seconds']:g} seconds at {results['sampling_rate']:,} Hz"

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Returns a sentence for a card about length, padding and feature extractor."""
        extractor = results["feature_extractor"]["class"]
        seconds, padded = results["seconds"], results["sounds_padded"]
        return [f"Audio: parts of {seconds:g} seconds, padded {padded}, processed by {extractor}."]

    def largest(self) -> str:
        """Returns a description of `noise` with its options."""
        return f"Audio clips of {self.seconds:g} seconds (--seconds)"

    @property
    def encoder_input(self) -> str:
        """Argument name of the encoder: `input_values` or `input_features`."""
        return self.processor.model_input_names[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """All columns that an example may have."""
        return self.encoder_input, "attention_mask"

    @property
    def fills(self) -> dict[str, float]:
        """Padding value of each column that is padded along time."""
        return {self.encoder_input: self.processor.padding_value, "attention_mask": 0}

    @property
    def length(self) -> int:
        """Number of samples of a part."""
        return round(self.seconds * self.processor.sampling_rate)

    def __call__(self, row: dict, random: np.random.Generator | None, at: float) -> Example:
        """Returns the encoder's input, `(T,)` or `(frames, mels)`, and an attention_mask if lengths vary.

        Raises `BadSample` for audio that can't be read."""
        rate = self.processor.sampling_rate
        clip = to_clip(row[self.column(row)], self.seconds, at=at, sampling_rate=rate, limits=self.limits)
        return self.extracted(clip.sound[: int(clip.mask.nonzero()[-1]) + 1])

    def extracted(self, sound: Tensor) -> Example:
        """Returns the encoder's input for a waveform (`(T,)`): `(T,)` or `(frames, mels)`, and an attention_mask if
        lengths vary."""
        fixed = {"padding": "max_length", "max_length": self.length, "truncation": True} if self.padded else {}
        rate = self.processor.sampling_rate
        extracted = self.processor(sound.numpy(), sampling_rate=rate, return_tensors="pt", **fixed)
        values = extracted[self.encoder_input][0]
        if self.padded or (values.ndim > 1 and "attention_mask" not in extracted):  # all have the same length
            return {self.encoder_input: values}
        return {self.encoder_input: values, "attention_mask": torch.ones(len(values), dtype=torch.long)}

    def shape(self) -> dict[str, int | float]:
        """Returns `sampling_rate`, in Hz, and `seconds`."""
        return {"sampling_rate": self.processor.sampling_rate, "seconds": self.seconds}

    def fit(self, encoder: PreTrainedModel) -> None:
        """Replaces a default feature extractor by that of the encoder's architecture. Pads to one length if the
        encoder's norm includes padding.

        Raises `ValueError` if the feature extractor has another output than the encoder's input."""
        config = encoder.config
        norm = getattr(config, "feat_extract_norm", None)
        if self.brought_by is None:
            self.processor = default_extractor(config, self.processor.sampling_rate)
            self.processor.return_attention_mask = norm == "layer"
        self.padded = norm == "group"
        if self.encoder_input != encoder.main_input_name:
            raise ValueError(
                f"The feature extractor, {type(self.processor).__name__}, outputs {self.encoder_input}, but "
                f"{type(encoder).__name__} takes {encoder.main_input_name}. Give the encoder's feature extractor with "
                "--feature_extractor."
            )

    def noise(self, count: int = 2) -> Batch:
        """Returns noise of the full length, processed: `(count, T)` or `(count, frames, mels)`."""
        examples = [self.extracted(0.1 * torch.randn(self.length)) for _ in range(count)]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def waves_of(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Returns the waveforms of a batch of examples, float `(B, T)`; None if the extractor gave log-mel features."""
        values = batch[self.encoder_input]
        return values.float() if values.ndim == 2 else None

    def lengths_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the number of samples of each waveform of `waves_of`, without padding, `(B,)`."""
        values = batch[self.encoder_input]
        return batch.get("attention_mask", torch.ones(values.shape, dtype=torch.long)).sum(1)

    def padding(self) -> str:
        """Returns a description of the padding for results.json."""
        example = self.extracted(torch.zeros(self.length))
        if "attention_mask" in example:
            return "to the longest of a batch"
        return "to --seconds" if self.padded else "to the one length that the extractor gives"

    def facts(self) -> dict:
        """Returns length, sampling rate, padding and feature extractor for results.json."""
        extractor = {"from": relative(self.brought_by), "class": type(self.processor).__name__}
        return {
            "seconds": self.seconds,
            "sampling_rate": self.processor.sampling_rate,
            "sounds_padded": self.padding(),
            "feature_extractor": extractor,
        }


def saved_extractor(path: str):
    """Returns the feature extractor of a folder or Hub id, or None if it has none.

    Raises `ValueError` for one that needs custom code."""
    try:
        return AutoFeatureExtractor.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        refuse_custom_code(path, error)
        return None


def default_extractor(config, sampling_rate: int):
    """Returns the feature extractor for an encoder without one: that of its architecture, with the sizes of its config.
    Architectures without one get a `Wav2Vec2FeatureExtractor`.

    sampling_rate: in Hz."""
    extractor = FEATURE_EXTRACTOR_MAPPING.get(type(config), None) or Wav2Vec2FeatureExtractor
    takes = inspect.signature(extractor.__init__).parameters
    sizes = {name: getattr(config, name) for name in OF_CONFIG if name in takes and hasattr(config, name)}
    return extractor(sampling_rate=sampling_rate, **sizes)
