"""Describing: write the caption of an image, token by token.

Desai and Johnson, "VirTex", CVPR 2021, https://huggingface.co/papers/2006.06666

    pixel_values (B, 3, S, S), input_ids (B, L) -> image encoder -> text decoder -> logits (B, L, vocabulary)
"""

from dataclasses import dataclass
from typing import ClassVar

from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedConfig, VisionEncoderDecoderModel

from hf_pretext.features import pool
from hf_pretext.modeling import PretextModel, PretextOutput
from hf_pretext.modules.losses import cross_entropy


@strict
@dataclass
class DescribingTask:
    """Settings of describing.

    caption_weight: of the loss.
    """

    _argument_group_name: ClassVar[str] = "objective"

    caption_weight: float = 1.0


class DescribingForPreTraining(PretextModel):
    """forward: pixel_values (`(B, 3, S, S)`), input_ids and attention_mask (`(B, L)`)."""

    objective = "describing"
    task_class = DescribingTask
    inputs = ("image", "text")
    auto_class = AutoModelForImageTextToText
    pipeline_tag = "image-to-text"
    capabilities = ("generate",)
    formula = r"-\frac{1}{L}\sum_i \log p_\theta(t_i \mid t_{<i}, x)"
    limits = ("It writes as its captions do.", "What captions leave out it leaves out.")
    usage = """
from transformers import AutoModelForImageTextToText, AutoTokenizer

model = AutoModelForImageTextToText.from_pretrained("{{ folder }}")
print(type(model).__name__, type(model.encoder).__name__)
"""

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.post_init()

    @classmethod
    def native(cls, encoder):
        return VisionEncoderDecoderModel(config=encoder) if isinstance(encoder, PreTrainedConfig) else encoder

    @property
    def encoders(self):
        return {"image": self.full_model.encoder}

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> PretextOutput:
        hidden = self.full_model.encoder(pixel_values).last_hidden_state
        output = self.full_model.decoder(input_ids, attention_mask=attention_mask, encoder_hidden_states=hidden)
        keep = attention_mask[:, 1:].bool()
        logits, words = output.logits[:, :-1][keep], input_ids[:, 1:][keep]
        loss = self.task.caption_weight * cross_entropy(logits, words)
        accuracy = (logits.argmax(-1) == words).float().mean()
        return self.output(
            {"caption": loss}, {"accuracy": accuracy}, features=pool(hidden), logits=logits, labels=words
        )
