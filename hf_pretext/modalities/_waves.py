"""Waves of sound for the device: in the workers float32 samples, on the device what a feature extractor makes of them.

Samples of 16 bits would take half of the bytes, but their rounding noise is above the quiet bands of log-mel: it would
differ from that of the extractor by up to 0.3, or 0.13 with samples scaled by the peak of their clip.

Clip -> wave (T,) float32, sound_length -> batch (B, T) -> random changes -> front end of `modules.log_mel` -> masks
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..data.clips import Clip
from ..data.limits import LIMITS, BadSample, Limits
from ..modules.log_mel import FrontEnd, by_extractor, front_end_of, mask_of
from ..modules.shifted import same_sounds
from ..modules.sound_changes import FREQUENCY, LEVEL, LOUDNESS, SOUND_DRAWS, TIME, add_noise, change_loudness, masked
from ._audio_options import AudioArguments
from ._modality import Batch, Example, Modality
from ._saved_clips import SavedClips, with_clips

NOISE_APART = 3600.0  # seconds between the views of noise


class Waves(Modality):
    """Base of `Audio`: everything between a decoded clip and the encoder's input.

    processor: a transformers feature extractor. It sets the sampling rate. seconds: length of a part, in seconds.
    padded: True if all waveforms are padded to `seconds`; else to the longest of a batch, with an attention_mask.
    limits: of one sound. settings: see `AudioArguments`; its random changes are made on the device. as_image: whether
    the encoder takes log-mel as an image of one channel.
    """

    def __init__(
        self,
        processor,
        seconds: float,
        padded: bool = False,
        brought_by: str | None = None,
        limits: Limits = LIMITS,
        settings: AudioArguments | None = None,
    ):
        """brought_by: folder or Hub id of the feature extractor; None for a default one, which `fit` replaces."""
        self.seconds, self.padded, self.brought_by = seconds, padded, brought_by
        self.use(processor)
        self.limits, self.settings = limits, settings or AudioArguments()
        self.changes, self.as_image = self.settings.changes, False
        self._front_end: list[FrontEnd | None] = []

    def use(self, processor) -> None:
        """Sets the feature extractor, which saves the length of clips, too."""
        self.processor = with_clips(processor, SavedClips(self.name, self.seconds))

    @property
    def encoder_input(self) -> str:
        """Argument name of the encoder: `input_values`, `input_features`, or `pixel_values` for images of log-mel."""
        return "pixel_values" if self.as_image else self.processor.model_input_names[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """All columns that an example may have."""
        return self.encoder_input, "attention_mask", "sound_length", "sound_draws", "sound_start"

    @property
    def fills(self) -> dict[str, float]:
        """Padding value of each column that is padded along time."""
        return {self.encoder_input: 0 if self.front_end else self.processor.padding_value, "attention_mask": 0}

    @property
    def length(self) -> int:
        """Number of samples of a part."""
        return round(self.seconds * self.processor.sampling_rate)

    @property
    def front_end(self) -> FrontEnd | None:
        """What gives the encoder's input on the device; None if the extractor has to be used in the workers."""
        if not self._front_end:
            self._front_end.append(front_end_of(self.processor, self.length, self.padded))
        return self._front_end[0]

    @property
    def one_length(self) -> bool:
        """True if all waves have the length of a part."""
        return self.padded or self.front_end.frames_first is not None

    def example_of(self, clip: Clip, random: np.random.Generator | None) -> Example:
        """Returns a wave, float32 `(T,)`, its number of samples `sound_length`, and in training `sound_draws`, random
        numbers for its changes. With an extractor in the workers: what the extractor returns. Also `sound_start`, see
        `Clip.start`.

        Raises `BadSample` for a sound that is too short."""
        length = int(clip.mask.nonzero()[-1]) + 1
        if self.front_end is None:
            return {**self.extracted(clip.sound[:length]), "sound_start": clip.start}
        if length < self.front_end.shortest:
            raise BadSample(f"sound of {length} samples, fewer than {self.front_end.shortest}, a frame of log-mel")
        wave = clip.sound if self.one_length else clip.sound[:length]
        example: Example = {self.encoder_input: wave, "sound_length": length, "sound_start": clip.start}
        if random is not None and self.changes:
            example["sound_draws"] = torch.from_numpy(random.random(SOUND_DRAWS, dtype=np.float32))
        return example

    def extracted(self, sound: Tensor) -> Example:
        """Returns what the feature extractor makes of a waveform (`(T,)`), and an attention_mask if lengths vary."""
        made = by_extractor(self.processor, sound.numpy(), self.length if self.padded else None)
        values = made[self.encoder_input][0]
        if self.padded or (values.ndim > 1 and "attention_mask" not in made):  # all have the same length
            return {self.encoder_input: values}
        return {self.encoder_input: values, "attention_mask": torch.ones(len(values), dtype=torch.long)}

    def evaluation(self) -> "Waves":
        """Returns the modality without random changes."""
        other = copy.copy(self)
        other.changes = {}
        return other

    def finish(self, batch: Batch) -> Batch:
        """Returns the encoder's input on the batch's device, as the feature extractor gives it, of waves with random
        changes in training: `(B, T)`, `(B, frames, mels)`, or `(B, 1, mels, frames)` for image encoders."""
        batch, front_end = dict(batch), self.front_end
        batch.pop("sound_start", None)
        if front_end is None:
            return batch
        lengths, draws = batch.pop("sound_length"), batch.pop("sound_draws", None)
        wave, changes = batch.pop(self.encoder_input), self.changes if draws is not None else {}
        present = mask_of(lengths, wave.shape[1])
        front_end.move(wave.device)
        with torch.autocast(wave.device.type, enabled=False):
            sound = changed(wave, present, draws, changes)
            values = with_masks(front_end(sound, lengths), draws, changes, front_end.frames_first)
        if self.as_image:
            values = (values.mT if front_end.frames_first else values)[:, None].contiguous()
        mask = {} if self.one_length else {"attention_mask": present.long()}
        return {**batch, self.encoder_input: values, **mask}

    def of_views(self, columns: Batch) -> Batch:
        """Returns `sound_start` of each view, in seconds, `(B, K)`. A view that is the same as the first but for its
        loudness (silence, a loop) gets the start of the first. Compared before random changes, which differ by view."""
        values, starts = columns[self.encoder_input], columns["sound_start"]
        same = [same_sounds(torch.stack([values[:, 0], other], 1)) for other in values.unbind(1)[1:]]
        others = torch.where(torch.stack(same, 1), starts[:, :1], starts[:, 1:])
        return {"sound_start": torch.cat([starts[:, :1], others], 1)}

    def waves_of(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Returns the waveforms of a batch before `finish`, float `(B, T)`; None with an extractor in the workers."""
        return None if self.front_end is None else batch[self.encoder_input]

    def lengths_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the number of samples of each waveform of `waves_of`, without padding, `(B,)`."""
        return batch["sound_length"]

    def noise(self, count: int = 2) -> Batch:
        """Returns noise of the full length, processed: `(count, T)`, `(count, frames, mels)` or `(count, 1, mels,
        frames)`."""
        sounds = 0.1 * torch.randn(count, self.length)
        if self.front_end is not None:
            return self.finish({self.encoder_input: sounds, "sound_length": torch.full((count,), self.length)})
        examples = [self.extracted(sound) for sound in sounds]
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def noise_of_views(self, views: int) -> Batch:
        """See `Modality.noise_of_views`. The views are far apart in time."""
        noise = super().noise_of_views(views)
        starts = NOISE_APART * torch.arange(views, dtype=torch.float32)
        return {**noise, "sound_start": starts.repeat(len(noise[self.encoder_input]), 1)}

    def padding(self) -> str:
        """Returns a description of the padding for results.json."""
        if "attention_mask" in self.noise(1):
            return "to the longest of a batch"
        return "to --seconds" if self.padded else "to the one length that the extractor gives"


def changed(sound: Tensor, present: Tensor, draws: Tensor | None, changes: Mapping[str, float]) -> Tensor:
    """Returns sounds with random loudness and noise, `(B, T)`. present: mask of the samples that a file has, `(B, T)`.
    draws: see `modules.sound_changes`. changes: see `AudioArguments.changes`."""
    if "noise_level" in changes:
        sound = add_noise(sound, draws[:, LEVEL:TIME], changes["noise_level"], present)
    if "loudness_jitter" in changes:
        sound = change_loudness(sound, draws[:, LOUDNESS], changes["loudness_jitter"])
    return sound


def with_masks(values: Tensor, draws: Tensor | None, changes: Mapping[str, float], frames_first: bool | None) -> Tensor:
    """Returns waveforms `(B, T)` or log-mel with hidden ranges of time and frequency: 0, or the mean of the log-mel.

    frames_first: see `FrontEnd`."""
    fill = values.mean((1, 2), keepdim=True) if values.ndim == 3 else 0.0
    time = 2 if frames_first is False else 1
    if "time_mask" in changes:
        values = masked(values, draws[:, TIME:FREQUENCY], changes["time_mask"], time, fill)
    if "frequency_mask" in changes:
        values = masked(values, draws[:, FREQUENCY:], changes["frequency_mask"], 3 - time, fill)
    return values
