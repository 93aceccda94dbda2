"""Options of audio."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ..data.limits import LIMITS
from ..utils.settings import accepts_ints


@accepts_ints
@strict
@dataclass
class AudioArguments:
    """Options of audio. The last four are random changes in training; they are not made in evaluation.

    audio_column: Column of the audio. If not set: detected from the column names and types; without an audio column,
        the sound of the videos.
    eval_audio_column: Column of the audio in --eval_dataset. Default: as for audio_column.
    feature_extractor: Folder or Hub id of a feature extractor. Default: the feature extractor of --encoder, or else the
        default of the encoder's architecture.
    num_mel_bins: Number of mel bins of log-mel, for an image encoder. Default: 64, or as in its config.
    max_sound_seconds: Sounds that are longer, in seconds, count as bad samples.
    min_loudness: Clips of less loudness, in dB, count as bad samples. 0 dB is a square wave of full range; speech and
        music have about -20 dB. Default: clips of any loudness are used, silence too.
    loudness_jitter: Largest change of the loudness of a clip, up or down, in dB.
    noise_level: Highest level of white noise that is added to a clip, in dB, relative to the clip. Each clip gets a
        random level, up to 20 dB lower. Default: no noise.
    time_mask: Largest share of a clip that two masks over time hide together, 0 to 1 (SpecAugment).
    frequency_mask: Largest share of the mel bins that two masks hide together, 0 to 1 (SpecAugment).
    """

    _argument_group_name: ClassVar[str] = "sounds"

    audio_column: str | None = None
    eval_audio_column: str | None = None
    feature_extractor: str | None = None
    num_mel_bins: int | None = None
    max_sound_seconds: float = LIMITS.seconds
    min_loudness: float | None = None
    loudness_jitter: float = 0.0
    noise_level: float | None = None
    time_mask: float = 0.0
    frequency_mask: float = 0.0

    @property
    def changes(self) -> dict[str, float]:
        """The random changes that are made, by option."""
        values = asdict(self)
        names = ("loudness_jitter", "noise_level", "time_mask", "frequency_mask")
        return {name: values[name] for name in names if values[name] is not None and (values[name] or "level" in name)}

    def validate_ranges(self):
        if not self.max_sound_seconds > 0:
            raise ValueError(f"max_sound_seconds must be above 0, but is {self.max_sound_seconds}.")
        if self.num_mel_bins is not None and self.num_mel_bins < 1:
            raise ValueError(f"num_mel_bins must be at least 1, but is {self.num_mel_bins}.")
        if not self.loudness_jitter >= 0:
            raise ValueError(f"loudness_jitter must be 0 or more, in dB, but is {self.loudness_jitter}.")
        for name in ("time_mask", "frequency_mask"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, but is {getattr(self, name)}.")
