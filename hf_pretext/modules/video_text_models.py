"""Models of transformers that embed videos and texts in one space: `XCLIPModel` and `VideoPrismClipModel`.

pixel_values (B, F, 3, S, S) -> get_video_features -> (B, D)
input_ids, attention_mask (B, L) -> get_text_features -> (B, D)
"""

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

SUPPORTED = ("XCLIPModel", "VideoPrismClipModel")
USAGE = """
{% set images = frames_encoded == "separately" %}
import torch
from transformers import AutoModel, AutoTokenizer, {{ "AutoImageProcessor" if images else "AutoVideoProcessor" }}

model = AutoModel.from_pretrained("{{ folder }}")
{% if images %}
tokenizer = AutoTokenizer.from_pretrained("{{ folder }}", subfolder="text")
processor = AutoImageProcessor.from_pretrained("{{ folder }}", subfolder="video")
{% else %}
tokenizer = AutoTokenizer.from_pretrained("{{ folder }}")
processor = AutoVideoProcessor.from_pretrained("{{ folder }}")
{% endif %}
video = torch.zeros({{ num_frames }}, 3, 100, 200, dtype=torch.uint8)  # for your video: RGB frames
texts = tokenizer(["a text", "a second one"], padding=True, return_tensors="pt")
texts = {name: texts[name] for name in ("input_ids", "attention_mask")}
with torch.no_grad():
{% if images %}
    pixels = processor(list(video), return_tensors="pt")["pixel_values"][None]
    video_embeds = model.get_video_features(pixels).pooler_output
{% else %}
    pixels = processor([video], return_tensors="pt")
    video_embeds = model.get_video_features(*pixels.values()).pooler_output[:, 0]
{% endif %}
    text_embeds = model.get_text_features(**texts).pooler_output
print("cosines", torch.nn.functional.cosine_similarity(video_embeds, text_embeds))
"""


def embeds_videos_and_texts(model: PreTrainedModel) -> bool:
    """Returns True for a model of the classes in `SUPPORTED`."""
    return type(model).__name__ in SUPPORTED


def scale_in(model: PreTrainedModel | PreTrainedConfig) -> nn.Parameter | None:
    """Returns the logarithm of the scale (1 / temperature) that a model has as its own parameter; None without one."""
    return getattr(model, "logit_scale", None)


def towers_of(model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Returns the video encoder and the text encoder of such a model, without projections to the common space.

    XCLIP's video encoder takes the frames of a video as images, always `num_frames` at a time."""
    video = getattr(model, "video_model", None)  # of VideoPrism
    return {"video": model.vision_model if video is None else video, "text": model.text_model}


def embedded(model: PreTrainedModel, kind: str, columns: Mapping[str, Tensor]) -> Tensor:
    """Returns the embeddings of videos or texts of such a model, `(B, D)`, of any length.

    kind: "video" or "text". columns: the inputs of its encoder of this kind."""
    embed = model.get_video_features if kind == "video" else model.get_text_features
    return embed(**columns).pooler_output.flatten(1)  # VideoPrism's are (B, 1, D)
