"""What an objective is asked for between steps: the same whether a run is resumed or not."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS, IMAGE, encoder_inputs
from torch import nn
from transformers import TrainingArguments, set_seed

from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.features import pool, width
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modeling import PretextModel
from hf_pretext.objectives.colorization import ColorizationForPreTraining
from hf_pretext.objectives.rotation import RotationTask
from hf_pretext.trainer import PretextTrainer
from hf_pretext.utils.options import refuse_options


class TeacherForPreTraining(PretextModel):
    """The features of noisy images are to be those of a teacher: the moving average of the encoder, in float32."""

    objective, task_class, inputs = "teacher", RotationTask, ("image",)
    _keep_in_fp32_modules_strict = frozenset({"teacher"})

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.predictor = nn.Linear(width(full_model), width(full_model))
        self.teacher = copy.deepcopy(full_model).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(width(full_model)))
        self.seen, self.rounds = [], []
        self.post_init()

    def forward(self, pixel_values):
        self.seen.append(self.progress)
        noisy = pixel_values + 0.1 * torch.randn_like(pixel_values)
        target = pool(self.teacher(pixel_values.float()).last_hidden_state)
        features = pool(self.full_model(noisy).last_hidden_state)
        loss = F.mse_loss(self.predictor(features).float(), target - self.centre)
        return self.output({"teacher": loss}, {}, features=features)

    @torch.no_grad()
    def after_step(self, progress):
        momentum = 0.9 + 0.1 * progress
        for mean, value in zip(self.teacher.parameters(), self.full_model.parameters(), strict=True):
            mean.lerp_(value.float(), 1 - momentum)

    @torch.no_grad()
    def before_round(self, batches):
        features = [pool(self.teacher(batch["pixel_values"]).last_hidden_state) for batch in batches]
        self.rounds.append(len(features))
        self.centre.copy_(torch.cat(features).mean(0))


@pytest.fixture
def trained(tmp_path, emoji):
    """Trains in a folder, from a checkpoint of it where one is named; 24 images make an epoch of 3 steps."""

    def train(name: str, resume: str | None = None, **options) -> PretextTrainer:
        set_seed(1)
        model = TeacherForPreTraining.from_encoder(build_encoder(CONFIGS["vit"]()))
        args = TrainingArguments(
            output_dir=str(tmp_path / name), per_device_train_batch_size=8, max_steps=4, save_steps=1, seed=1,
            learning_rate=1e-2, logging_steps=1, use_cpu=True, disable_tqdm=True, **options,
        )  # fmt: skip
        inputs = Inputs(Image(default_processor(IMAGE)))
        trainer = PretextTrainer(model, args, open_source(emoji(count=24)), inputs)
        trainer.train(resume_from_checkpoint=resume and str(Path(args.output_dir) / resume))
        return trainer

    return train


def test_a_teacher_is_the_same_bit_for_bit_in_a_resumed_run(trained):
    through = trained("run").model
    assert through.seen == [0.0, 0.25, 0.5, 0.75] and through.progress == 1.0
    assert through.rounds == [3, 3]  # before the first step and the fourth
    teacher, student = through.teacher.state_dict(), through.full_model.state_dict()
    assert not torch.equal(teacher["layernorm.weight"], student["layernorm.weight"])
    for steps, rounds in ((2, [3]), (3, [3])):  # in the middle of an epoch, and between two
        resumed = trained("run", f"checkpoint-{steps}").model
        assert resumed.seen == [i / 4 for i in range(steps, 4)] and resumed.rounds == rounds
        for name, value in through.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name


def test_after_step_follows_optimizer_steps_not_batches(trained, monkeypatch):
    steps = []
    monkeypatch.setattr(TeacherForPreTraining, "after_step", lambda self, progress: steps.append(progress))
    trained("run", gradient_accumulation_steps=2)
    assert steps == [0.25, 0.5, 0.75, 1.0]


def test_a_teacher_stays_in_float32(tmp_path):
    model = TeacherForPreTraining.from_encoder(build_encoder(CONFIGS["vit"]()).bfloat16())
    model.save_pretrained(tmp_path)
    for one in (model, TeacherForPreTraining.from_pretrained(tmp_path)):
        assert one.teacher.dtype == torch.float32
        assert one.full_model.dtype == one.predictor.weight.dtype == torch.bfloat16
    batch = {name: value.bfloat16() for name, value in encoder_inputs(model.encoder).items()}
    assert model(**batch).loss.isfinite()


def test_a_trainer_made_by_hand_refuses_values_that_the_objective_fixes(tmp_path, emoji):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_steps=1, disable_tqdm=True)
    model = ColorizationForPreTraining.from_encoder(CONFIGS["resnet"](), color_grid=4)
    source, processor = open_source(emoji(count=24)), default_processor(IMAGE)
    words = "--color_jitter 0.4: colours are what colorization predicts, so colorization needs --color_jitter 0.0"
    with pytest.raises(ValueError, match=words):
        PretextTrainer(model, args, source, Image(processor, Augmentation()))
    for augmentation in (None, Augmentation(color_jitter=0.0)):
        PretextTrainer(model, args, source, Image(processor, augmentation))


def test_what_splits_the_model_is_refused_on_every_device(tmp_path, monkeypatch, emoji):
    args = TrainingArguments(output_dir=str(tmp_path), fsdp="full_shard", use_cpu=True)
    model = TeacherForPreTraining.from_encoder(CONFIGS["vit"]())
    with pytest.raises(ValueError, match="--fsdp would shard the model over devices.*Leave it out"):
        PretextTrainer(model, args, open_source(emoji(count=24)), Inputs(Image(default_processor(IMAGE))))
    plain = {"fsdp": None, "fsdp_config": None, "deepspeed": None, "n_gpu": 1}
    refuse_options(SimpleNamespace(**plain))
    refuse_options(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    with pytest.raises(ValueError, match="--deepspeed would shard"):
        refuse_options(SimpleNamespace(**{**plain, "deepspeed": "zero.json"}))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="ACCELERATE_USE_FSDP .accelerate launch. would shard"):
        refuse_options(SimpleNamespace(**plain))
