"""Audio: a part of each clip, or of the sound of a video, as the feature extractor of an encoder gives it.

row {"audio"} or {"video"} -> decode, one channel -> part at `at` -> wave (T,), sound_length, sound_start  in a worker
batch (B, T) float32 -> random changes -> normalise, or log-mel -> input_values (B, T) or (B, frames, mels)  on device

The device gives the same as the feature extractor, which is checked at the start (see `modules.log_mel`). An extractor
that it can't match is used itself, in the workers. Image encoders of one channel take log-mel as an image: pixel_values
`(B, 1, mels, frames)`.

Padding depends on the encoder. Waveform encoders with `feat_extract_norm="group"` include padding in the norm, so their
clips are padded to one length. With "layer", clips are padded to the longest of a batch, with an attention_mask. For
log-mel the feature extractor sets the length.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import FeatureExtractionMixin, PreTrainedModel, Wav2Vec2FeatureExtractor

from ..encoders import TRIED, takes_images
from ..utils.paths import relative
from ..utils.units import in_seconds
from ._audio_options import AudioArguments
from ._clips import ClipArguments, Part
from ._feature_extractor import (
    USUAL_BINS,
    check_seconds,
    check_takes,
    default_extractor,
    noise_for,
    saved_extractor,
    spectrogram_frames,
)
from ._modality import Batch, Context, Example
from ._saved_clips import saved_clips
from ._waves import Waves

__all__ = ["Audio", "AudioArguments"]
SAMPLING_RATE = 16_000  # Hz
LONGEST = 10.0  # seconds of a clip; used for saved encoders whose extractor has no length
WAVEFORM, LOG_MEL, IMAGE = "waveform", "log-mel", "log-mel image"  # what an encoder takes


USAGE = """
import torch
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("{{ folder }}"{{ subfolder }})
encoder = AutoModel.from_pretrained("{{ folder }}"{{ subfolder }})
audio = torch.zeros(extractor.sampling_rate).numpy()  # for your audio: one channel, at this sampling rate
batch = extractor(audio, sampling_rate=extractor.sampling_rate, return_tensors="pt")
{% if sound_input == "log-mel image" %}
log_mel = batch[extractor.model_input_names[0]]{% if frames_first %}.transpose(1, 2){% endif %}  # (1, mels, frames)
batch = {"pixel_values": log_mel[:, None]}  # an image of one channel
{% endif %}
with torch.no_grad():
    hidden = encoder(**batch{{ hidden_of }}
{% if sound_input == "log-mel image" %}
hidden = hidden.flatten(2).mT if hidden.ndim == 4 else hidden  # a map of features has its channels first
{% endif %}
features = hidden.mean(1)
print(encoder.__class__.__name__, features.shape)
"""


class Audio(Waves):
    """Audio, see `Waves`."""

    name = "audio"
    columns = ("audio", "video")
    options = (ClipArguments, AudioArguments)
    samples = "audio clips"
    role = "feature_extractor"
    processors = (FeatureExtractionMixin,)
    processor_example = 'AutoFeatureExtractor.from_pretrained("facebook/wav2vec2-base")'
    timed = True
    fractions = (0.01, 0.1, 1.0)
    task_type = "audio-classification"
    packages = ("av", "soundfile", "soxr")
    usage = USAGE

    @classmethod
    def from_options(cls, options: Mapping[type, Any], context: Context) -> "Audio":
        """Builds the modality from options. Raises `ValueError` if --feature_extractor is no feature extractor."""
        settings, seconds = options[AudioArguments], options[ClipArguments].seconds
        given, brought_by = settings.feature_extractor, settings.feature_extractor or context.start
        if context.processor is not None:
            processor, brought_by = context.processor, brought_by or type(context.processor).__name__
        else:
            processor = None if brought_by is None else saved_extractor(brought_by)
        if processor is None and given is not None:
            raise ValueError(
                f"--feature_extractor {given} has no feature extractor. Give a folder or Hub id with a "
                "preprocessor_config.json."
            )
        if processor is None:
            processor, brought_by = Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE), None
        limits = replace(context.limits, seconds=settings.max_sound_seconds)
        return cls(processor, seconds, brought_by=brought_by, limits=limits, settings=settings)

    @classmethod
    def from_saved(cls, folder: str, encoder: PreTrainedModel, source: str, *of_images: int | None) -> "Audio":
        """Builds the modality for a saved encoder, with clips of the length in training if its feature extractor says
        so, else of up to `LONGEST`. Raises `ValueError` if it has no feature extractor."""
        processor = saved_extractor(folder)
        if processor is None:
            raise ValueError(f"{source} has no feature extractor. Save the encoder's feature extractor in its folder.")
        seconds = saved_clips(folder).seconds
        audio = cls(processor, seconds or LONGEST, brought_by=source)
        front_end = audio.front_end
        if seconds is None and front_end is not None and front_end.longest is not None:
            audio = cls(processor, min(LONGEST, front_end.longest / processor.sampling_rate), brought_by=source)
        audio.fit(encoder)
        return audio

    @staticmethod
    def trial(encoder: PreTrainedModel) -> list[Batch]:
        """Returns batches of noise: a waveform, log-mel with the frames or the bins first, or an image of one
        channel."""
        return noise_for(encoder)

    @staticmethod
    def words(results: Mapping) -> str:
        """Returns a description of the encoder's inputs from the results of a run."""
        return f"audio clips of {in_seconds(results['seconds'])} at {results['sampling_rate']:,} Hz"

    @staticmethod
    def preparation(results: Mapping) -> list[str]:
        """Returns sentences for a card about length, padding, feature extractor and random changes."""
        extractor = results["feature_extractor"]["class"]
        seconds, padded = results["seconds"], results["sounds_padded"]
        image = ", and given as an image of one channel" if results["sound_input"] == IMAGE else ""
        changes = ", ".join(f"{name} {value:g}" for name, value in results["sound_changes"].items())
        return [
            f"Audio: parts of {in_seconds(seconds)}, padded {padded}, processed as by {extractor}{image}.",
            *([f"Random changes of audio: {changes}."] if changes else []),
        ]

    def largest(self) -> str:
        """Returns a description of `noise` with its options."""
        return f"Audio clips of {in_seconds(self.seconds)} (--seconds)"

    @property
    def part(self) -> Part:
        """What it needs of a film or sound."""
        rate, quietest = self.processor.sampling_rate, self.settings.min_loudness
        return Part(self.seconds, sampling_rate=rate, min_loudness=quietest, limits=self.limits)

    def __call__(self, row: dict, random: np.random.Generator | None, at: float) -> Example:
        """Returns a wave, float32 `(T,)`, its number of samples `sound_length`, and in training `sound_draws`, random
        numbers for its changes. With an extractor in the workers: what the extractor returns. Also `sound_start`, see
        `Clip.start`.

        Raises `BadSample` for audio that can't be read."""
        return self.example_of(self.part.clip(row[self.column(row)], at), random)

    def shape(self) -> dict[str, int | float]:
        """Returns `sampling_rate`, in Hz, `seconds`, and the size of log-mel: `num_mel_bins`, `spectrogram_frames`."""
        return {
            "sampling_rate": self.processor.sampling_rate,
            "seconds": self.seconds,
            "num_mel_bins": self.settings.num_mel_bins or USUAL_BINS,
            "spectrogram_frames": spectrogram_frames(self.seconds),
        }

    def fit(self, encoder: PreTrainedModel) -> None:
        """Replaces a default feature extractor by that of the encoder's architecture. Pads to one length if the
        encoder's norm includes padding.

        Raises `ValueError` if the feature extractor has another output than the encoder's input, if clips are longer
        than what it keeps, and for options without effect."""
        norm = getattr(encoder.config, "feat_extract_norm", None)
        self.as_image = encoder.main_input_name == "pixel_values" and takes_images(encoder, channels=1)
        if self.brought_by is None and (self.as_image or encoder.main_input_name != "pixel_values"):
            rate, bins = self.processor.sampling_rate, self.settings.num_mel_bins
            self.use(default_extractor(encoder, rate, self.seconds, bins))
            self.processor.return_attention_mask = norm == "layer"
        self.padded = norm == "group"
        self._front_end.clear()
        check_input(self, encoder)
        if self.front_end is not None:
            check_seconds(self.seconds, self.front_end, self.processor)
        check_options(self)
        check_takes(encoder, self.noise(TRIED), self.processor)

    def facts(self) -> dict:
        """Returns length, sampling rate, padding, feature extractor and random changes for results.json."""
        front_end = self.front_end
        of_waves = self.processor.model_input_names[0] == "input_values" and self.noise(1)[self.encoder_input].ndim == 2
        return {
            "seconds": self.seconds,
            "sampling_rate": self.processor.sampling_rate,
            "sounds_padded": self.padding(),
            "feature_extractor": {"from": relative(self.brought_by), "class": type(self.processor).__name__},
            "extracted": "in the workers" if front_end is None else "on the device",
            "sound_input": IMAGE if self.as_image else WAVEFORM if of_waves else LOG_MEL,
            "frames_first": bool(front_end and front_end.frames_first),
            "min_loudness": self.settings.min_loudness,
            "sound_changes": self.settings.changes,
        }


def check_input(audio: Audio, encoder: PreTrainedModel) -> None:
    """Raises `ValueError` if the feature extractor has another output than the encoder's input."""
    name, takes = type(audio.processor).__name__, type(encoder).__name__
    if audio.encoder_input != encoder.main_input_name:
        raise ValueError(
            f"The feature extractor, {name}, outputs {audio.encoder_input}, but {takes} takes "
            f"{encoder.main_input_name}. Give the encoder's feature extractor with --feature_extractor; an image "
            "encoder needs num_channels=1 in its config, for log-mel as an image."
        )
    if audio.as_image and (audio.front_end is None or audio.front_end.frames_first is None):
        raise ValueError(
            f"{takes} takes log-mel as an image, but {name} gives no log-mel that this package can compute. Give a "
            "--feature_extractor of the class ASTFeatureExtractor or WhisperFeatureExtractor."
        )


def check_options(audio: Audio) -> None:
    """Raises `ValueError` for options that have no effect with this feature extractor and encoder."""
    name, waveform = type(audio.processor).__name__, audio.front_end is None or audio.front_end.frames_first is None
    reasons = {option: f"{name} is run in the workers" for option in audio.changes if audio.front_end is None}
    if waveform and "frequency_mask" in audio.changes:
        reasons.setdefault("frequency_mask", "the encoder takes waveforms, which have no mel bins")
    if waveform and "loudness_jitter" in audio.changes and getattr(audio.processor, "do_normalize", False):
        reasons.setdefault("loudness_jitter", f"{name} normalises the loudness of each clip")
    if audio.settings.num_mel_bins is not None and not audio.as_image:
        reasons["num_mel_bins"] = "it is for image encoders; others have their number in their config"
    if audio.settings.num_mel_bins is not None and audio.brought_by is not None:
        reasons["num_mel_bins"] = f"the feature extractor of {relative(audio.brought_by)} has its number"
    for option, reason in reasons.items():
        raise ValueError(f"--{option} has no effect: {reason}. Leave it out.")
