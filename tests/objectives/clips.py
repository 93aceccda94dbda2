"""Small encoders of sounds and videos, and batches of clips for them."""

import torch
import transformers
from conftest import CONFIGS, IMAGE

from hf_pretext import AudioVisualForPreTraining

DROPOUTS = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout")
SAMPLES, FRAMES, MELS = 1600, 2, 16
AUDIO = {
    "wav2vec2": lambda: transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=[16] * 3,
        conv_stride=[5, 4, 4], conv_kernel=[10, 4, 4], num_feat_extract_layers=3, feat_extract_norm="layer",
        do_stable_layer_norm=True, num_conv_pos_embedding_groups=2, apply_spec_augment=False, layerdrop=0.0,
        **dict.fromkeys(DROPOUTS, 0.0),
    ),
    "resnet": lambda: transformers.ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, 16], depths=[1, 1], layer_type="basic"
    ),
}  # fmt: skip


def model_of(audio: str = "wav2vec2", video: str = "resnet", **settings) -> AudioVisualForPreTraining:
    return AudioVisualForPreTraining.from_encoders(audio=AUDIO[audio](), video=CONFIGS[video](), **settings)


def clips(model: AudioVisualForPreTraining, count: int = 6, seed: int = 1) -> dict[str, torch.Tensor]:
    """A batch with the columns that `Inputs` gives for the model's encoders and settings."""
    random = torch.Generator().manual_seed(seed)
    size = (count, *((2,) if model.views_of(model.task) else ()))
    frames = getattr(model.encoders["video"].config, "num_frames", FRAMES)
    pixels = torch.randn(count, frames, 3, IMAGE, IMAGE, generator=random)
    starts = {"sound_start": torch.tensor([[0.0, 3.0], [5.0, 1.0]]).repeat(count, 1)[:count]} if len(size) > 1 else {}
    if model.encoders["audio"].main_input_name == "pixel_values":  # log-mel of one channel
        return {
            "pixel_values": torch.randn(*size, 1, MELS, 20, generator=random),
            "video_pixel_values": pixels,
            **starts,
        }
    mask = torch.ones(*size, SAMPLES, dtype=torch.long)
    mask[-1, ..., SAMPLES // 2 :] = 0
    sounds = torch.randn(*size, SAMPLES, generator=random) * mask
    return {"input_values": sounds, "attention_mask": mask, "pixel_values": pixels, **starts}
