"""Causal language modelling: predict each token from those before it.

Radford et al., "Improving Language Understanding by Generative Pre-Training", 2018,
https://huggingface.co/papers/2005.14165

    input_ids (B, L) -> language model -> logits (B, L, vocabulary) -> cross-entropy with the next token
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig

from hf_pretext.features import pool
from hf_pretext.modeling import PretextModel, PretextOutput
from hf_pretext.modules.losses import cross_entropy


@strict
@dataclass
class CausalLMTask:
    """Settings of causal language modelling.

    token_dropout: share of the tokens that the model does not see.
    """

    _argument_group_name: ClassVar[str] = "objective"

    token_dropout: float = 0.0


class CausalLMForPreTraining(PretextModel):
    """forward: input_ids and attention_mask (`(B, L)`)."""

    objective = "causal_lm"
    task_class = CausalLMTask
    inputs = ("text",)
    auto_class = AutoModelForCausalLM
    pipeline_tag = "text-generation"
    formula = r"-\frac{1}{L}\sum_i \log p_\theta(t_i \mid t_{<i})"
    limits = ("It reads from left to right alone.", "What the texts say it repeats.")
    usage = """
from transformers import pipeline

generate = pipeline("text-generation", model="{{ folder }}")
print(len(generate("the", max_new_tokens=4)))
"""

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.post_init()

    @classmethod
    def native(cls, encoder):
        if isinstance(encoder, PreTrainedConfig):
            return AutoModelForCausalLM.from_config(copy.deepcopy(encoder), dtype=torch.float32)
        return encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **others: Tensor) -> PretextOutput:
        seen = input_ids
        if self.task.token_dropout:
            draw = torch.rand(input_ids.shape, device=input_ids.device, generator=self.generator())
            seen = input_ids.masked_fill(draw < self.task.token_dropout, 0)
        output = self.full_model(seen, attention_mask=attention_mask, output_hidden_states=True)
        keep = attention_mask[:, 1:].bool()
        logits, labels = output.logits[:, :-1][keep], input_ids[:, 1:][keep]
        loss = cross_entropy(logits, labels)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        features = pool(output.hidden_states[-1], attention_mask)
        logs = {"accuracy": accuracy, "perplexity": loss.exp()}
        return self.output({"causal_lm": loss}, logs, features=features, logits=logits, labels=labels)
