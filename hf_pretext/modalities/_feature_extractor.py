"""Feature extractors of transformers: loads them, makes the default one of an encoder, and checks its length.

encoder -> its extractor; extractor, length of a clip -> fits, or `ValueError` with the fix
"""

import inspect
import math

from torch import Tensor
from transformers import ASTFeatureExtractor, AutoFeatureExtractor, PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

from ..encoders import TRIED, image_side, noise, refusal
from ..modules.log_mel import FrontEnd
from ..utils.foreign import refuse_custom_code
from ..utils.units import in_seconds

OF_CONFIG = ("num_mel_bins", "max_length")  # settings of a feature extractor that the encoder's config also has
USUAL_BINS = 64  # of log-mel, for encoders whose config names no number
WINDOW, HOP = 0.025, 0.010  # seconds of a frame of log-mel, and between two frames
TRIED_FRAMES = 100  # of log-mel features; used if the config has no length
TRIED_SAMPLES = 8_000  # of a waveform: half a second at 16 kHz
TRIED_IMAGE = (USUAL_BINS, TRIED_FRAMES)  # of log-mel, for image encoders without a size


def saved_extractor(path: str):
    """Returns the feature extractor of a folder or Hub id, or None if it has none.

    Raises `ValueError` for one that needs custom code."""
    try:
        return AutoFeatureExtractor.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        refuse_custom_code(path, error)
        return None


def default_extractor(encoder: PreTrainedModel, sampling_rate: int, seconds: float, bins: int | None):
    """Returns the feature extractor for an encoder without one: that of its architecture, with the sizes of its config.
    Other architectures get a `Wav2Vec2FeatureExtractor`, image encoders of one channel an `ASTFeatureExtractor`.

    sampling_rate: in Hz. seconds: length of a clip. bins: number of mel bins, for image encoders."""
    config = encoder.config
    if encoder.main_input_name == "pixel_values":
        bins, frames = log_mel_size(encoder, seconds, bins)
        return ASTFeatureExtractor(sampling_rate=sampling_rate, num_mel_bins=bins, max_length=frames)
    extractor = FEATURE_EXTRACTOR_MAPPING.get(type(config), None) or Wav2Vec2FeatureExtractor
    takes = inspect.signature(extractor.__init__).parameters
    sizes = {name: getattr(config, name) for name in OF_CONFIG if name in takes and hasattr(config, name)}
    return extractor(sampling_rate=sampling_rate, **sizes)


def log_mel_size(encoder: PreTrainedModel, seconds: float, bins: int | None) -> tuple[int, int]:
    """Returns the numbers of mel bins and of frames for an image encoder: all frames of a clip if it takes images of
    this size, else the image size of its config."""
    size = (bins or USUAL_BINS, spectrogram_frames(seconds))
    side = image_side(encoder)
    refused = refusal(encoder, [{"pixel_values": noise(encoder, TRIED, 1, *size)}]) is not None
    return side if refused and side is not None and bins in (None, side[0]) else size


def spectrogram_frames(seconds: float) -> int:
    """Returns the number of frames of the log-mel of a clip."""
    return max(1, 1 + math.floor((seconds - WINDOW) / HOP + 1e-6))


def check_takes(encoder: PreTrainedModel, batch: dict, processor) -> None:
    """Raises `ValueError` if an encoder does not take what its feature extractor gives. It is tried if its config names
    other sizes, or it takes images.

    batch: of noise."""
    names = [name for name in OF_CONFIG if hasattr(processor, name) and hasattr(encoder.config, name)]
    images = "pixel_values" in batch
    if not images and all(getattr(processor, name) == getattr(encoder.config, name) for name in names):
        return
    batch = {name: value.to(encoder.device) for name, value in batch.items()}
    reason = refusal(encoder, [batch])
    if reason is None:
        return
    if images:
        side = image_side(encoder) or ("any", "any")
        usual = f"image_size={side} (bins and frames)"
        fix = "Give an encoder of this image_size, or other --num_mel_bins and --seconds"
    else:
        usual = ", ".join(f"{name}={getattr(encoder.config, name)}" for name in names)
        fix = "Give a --feature_extractor with these values"
    shape = "x".join(map(str, next(iter(batch.values())).shape[1:]))
    raise ValueError(
        f"{type(processor).__name__} gives log-mel of {shape}, which {type(encoder).__name__} with {usual} does not "
        f"take. {fix}. Its error: {reason}"
    )


def check_seconds(seconds: float, front_end: FrontEnd, processor) -> None:
    """Raises `ValueError` for clips that are longer than what a feature extractor keeps of a sound."""
    rate, longest = processor.sampling_rate, front_end.longest
    if longest is not None and round(seconds * rate) > longest:
        kept = math.floor(100 * longest / rate) / 100
        raise ValueError(
            f"Clips of {in_seconds(seconds)} (--seconds) are longer than what {type(processor).__name__} keeps of a "
            f"sound. Give --seconds {kept:g} or less, or an encoder and a --feature_extractor for longer sounds."
        )


def noise_for(encoder: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Returns batches of noise that an encoder of sounds may take: a waveform, log-mel with the frames or the bins
    first, or an image of one channel."""
    config, name = encoder.config, encoder.main_input_name
    if name == "pixel_values":
        sizes = [side for side in (image_side(encoder), TRIED_IMAGE) if side is not None]
        return [{name: noise(encoder, TRIED, 1, *size)} for size in sizes]
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
