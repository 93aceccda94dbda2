"""Sound and film: embed the sound and the frames of one instant close to each other.

Arandjelovic and Zisserman, "Look, Listen and Learn", ICCV 2017, https://huggingface.co/papers/1705.08168

    input_values (B, frames, mels), pixel_values (B, T, 3, S, S) -> two encoders -> (B, 8), (B, 8) -> squared distance
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from hf_pretext.features import pool, width
from hf_pretext.modeling import PretextOutput
from hf_pretext.modules.composite import TwoEncoders


@strict
@dataclass
class SoundAndFilmTask:
    """Settings of sound and film.

    scale: of the distance.
    """

    _argument_group_name: ClassVar[str] = "objective"

    scale: float = 1.0


class SoundAndFilmForPreTraining(TwoEncoders):
    """forward: input_values (`(B, frames, mels)`), pixel_values (`(B, T, 3, S, S)`)."""

    objective = "sound_and_film"
    task_class = SoundAndFilmTask
    inputs = ("audio", "video")
    formula = r"\lVert a - v \rVert^2"
    limits = ("All that is embedded may become the same.",)

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.heads = nn.ModuleDict({kind: nn.Linear(width(part), 8) for kind, part in self.encoders.items()})
        self.post_init()

    def forward(self, input_values: Tensor, pixel_values: Tensor) -> PretextOutput:
        sounds = pool(self.encoders["audio"](input_values).last_hidden_state)
        films = pool(self.encoders["video"](pixel_values).last_hidden_state)
        distance = (self.heads["audio"](sounds) - self.heads["video"](films)).pow(2).mean()
        return self.output({"distance": self.task.scale * distance}, {"width": torch.ones(())}, features=sounds)
