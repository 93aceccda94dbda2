"""Playback speed: play a sound faster or slower, ask how fast.

Benaim et al., "SpeedNet", CVPR 2020, https://huggingface.co/papers/2004.06130

    input_values (B, T) -> resampled by one of n speeds -> sound encoder -> head (B, n) -> cross-entropy
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from hf_pretext.features import last_hidden, pool, width
from hf_pretext.modeling import PretextModel, PretextOutput


@strict
@dataclass
class PlaybackSpeedTask:
    """Settings of playback speed.

    fastest: the highest of three speeds; the others are 1 and its inverse.
    """

    _argument_group_name: ClassVar[str] = "objective"

    fastest: float = 2.0


class PlaybackSpeedForPreTraining(PretextModel):
    """forward: input_values (`(B, T)`)."""

    objective = "playback_speed"
    task_class = PlaybackSpeedTask
    inputs = ("audio",)
    formula = r"-\log p_\theta(k \mid x(s_k t))"
    limits = ("Sounds without rhythm teach little.", "Pitch gives the speed away.")

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.head = nn.Linear(width(self.encoder), 3)
        self.post_init()

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> PretextOutput:
        count, length = input_values.shape
        draw = torch.rand(count, device=input_values.device, generator=self.generator())
        labels = (draw * 3).long().clamp(max=2)
        speeds = torch.tensor([1 / self.task.fastest, 1.0, self.task.fastest], device=input_values.device)[labels]
        at = torch.arange(length, device=input_values.device) * speeds[:, None]
        played = input_values.gather(1, at.long().clamp(max=length - 1))
        features = pool(last_hidden(self.encoder, self.encoder(played)))
        logits = self.head(features)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        loss = F.cross_entropy(logits, labels)
        return self.output({"speed": loss}, {"accuracy": accuracy}, features=features, logits=logits, labels=labels)
