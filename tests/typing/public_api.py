"""Uses of the public names, as of a user's script. A type checker reads this file; it is not run."""

from typing import Any

import datasets
import torch
from transformers import AutoImageProcessor, AutoTokenizer, TrainingArguments, ViTConfig, ViTModel

import hf_pretext
from hf_pretext import Augmentation, Image, Inputs, PretextModel, PretextOutput, PretextTrainer, Text, open_source
from hf_pretext.objectives.rotation import RotationForPreTraining


def train(rows: datasets.Dataset, images: list[Any], mapping: datasets.DatasetDict) -> dict[str, float]:
    model: PretextModel = RotationForPreTraining.from_encoder(ViTModel(ViTConfig()), num_rotations=4)
    args = TrainingArguments("runs/typed", max_steps=2)
    processor = AutoImageProcessor.from_pretrained("google/vit-base-patch16-224")
    trainer = PretextTrainer(model, args, train_dataset=rows, processing_class=processor, eval_dataset=mapping)
    PretextTrainer(model, args, train_dataset=images, columns={"image": "photo"}).train("last")
    PretextTrainer(model, args, open_source("emoji"), Inputs(Image(processor, Augmentation(crop_scale=0.4))))
    PretextTrainer(model, train_dataset="emoji", eval_dataset={"a": rows}, evaluation=lambda model: {"rank": 1.0})
    trainer.train(resume_from_checkpoint=True)
    metrics: dict[str, float] = trainer.evaluate()
    return metrics


def loss(model: PretextModel) -> torch.Tensor:
    output: PretextOutput = model(pixel_values=torch.rand(2, 3, 224, 224))
    assert output.loss is not None
    model.save_pretrained("runs/typed")
    return output.loss


def evaluate(model: PretextModel, mapping: datasets.DatasetDict) -> dict[str, Any]:
    text = Text(AutoTokenizer.from_pretrained("bert-base-uncased"), 64)
    hf_pretext.evaluate("runs/typed", "emoji", label="group")
    return hf_pretext.evaluate(hf_pretext.load("runs/typed"), mapping, label="group", processing_class=Inputs(text))
