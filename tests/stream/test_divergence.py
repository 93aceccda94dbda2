"""A run that diverges ends with an error before anything that is not finite is logged, measured or saved."""

import itertools
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, IMAGE
from transformers import TrainerCallback, TrainingArguments, set_seed

from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.stream.divergence import Diverged
from hf_pretext.trainer import PretextTrainer
from hf_pretext.utils.finite import check_finite_weights

NAN = float("nan")


@pytest.fixture
def trainer_of(tmp_path, emoji):
    def make(evaluation=None, kind=PretextTrainer, **options):
        arguments = dict(
            output_dir=str(tmp_path / "run"), per_device_train_batch_size=8, max_steps=6, logging_steps=1,
            save_steps=1, save_total_limit=1, learning_rate=1e-3, use_cpu=True, disable_tqdm=True, seed=1,
        )  # fmt: skip
        args = TrainingArguments(**{**arguments, **options})
        set_seed(args.seed)
        model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), rotations_per_image=2, head_dim=8)
        images = Image(default_processor(IMAGE), Augmentation())
        return kind(model, args, open_source(emoji(count=40)), images, evaluation=evaluation)

    return make


def spoil_loss(trainer, step: int, by: float = NAN) -> None:
    """Multiplies the loss of one step."""
    compute_loss = trainer.compute_loss

    def spoilt(*args, **kwargs):
        return compute_loss(*args, **kwargs) * (by if trainer.state.global_step + 1 == step else 1)

    trainer.compute_loss = spoilt


class Spoil(TrainerCallback):
    """Makes a weight infinite after a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            next(model.parameters()).data.view(-1)[0] = float("inf")


def checkpoints(trainer) -> list[str]:
    return sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_run_that_diverges_names_step_rate_and_the_last_good_checkpoint_which_remains(trainer_of):
    trainer = trainer_of(learning_rate=1e30, max_grad_norm=0.0)
    with pytest.raises(Diverged) as stopped:
        trainer.train()
    kept = checkpoints(trainer)
    step = trainer.state.global_step
    assert kept == [f"checkpoint-{step - 1}"]
    good = Path(trainer.args.output_dir) / kept[0]
    assert f"The last good checkpoint is {good}" in str(stopped.value)
    assert f"step {step} is NaN or infinite, with --learning_rate 1e+30" in str(stopped.value)
    check_finite_weights(good)
    assert all(torch.tensor(losses(trainer)).isfinite()) and len(losses(trainer)) == step - 1
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_loss_between_two_logs_is_named_by_its_step(trainer_of, value):
    trainer = trainer_of(logging_steps=5, save_steps=50, gradient_accumulation_steps=2)
    spoil_loss(trainer, 3, value)
    with pytest.raises(Diverged, match="the loss of step 3 is NaN.*run has no checkpoint\\."):
        trainer.train()
    assert trainer.state.global_step == 5 and losses(trainer) == []


def test_a_save_without_a_log_checks_the_losses(trainer_of):
    trainer = trainer_of(logging_strategy="no", save_steps=2)
    spoil_loss(trainer, 3)
    with pytest.raises(Diverged, match="the loss of step 3 is NaN"):
        trainer.train()
    assert checkpoints(trainer) == ["checkpoint-2"]


def test_weights_are_checked_before_a_save_even_if_the_losses_are_finite(trainer_of):
    trainer = trainer_of(logging_strategy="no", save_steps=2)
    trainer.add_callback(Spoil(4))
    with pytest.raises(Diverged, match="weights are NaN or infinite after step 4.*checkpoint-2\\."):
        trainer.train()
    assert checkpoints(trainer) == ["checkpoint-2"]
    with pytest.raises(Diverged, match="weights are NaN or infinite after step 4: full_model"):
        trainer.save_model()
    assert not (Path(trainer.args.output_dir) / "model.safetensors").exists()


@pytest.mark.parametrize("spoil", [lambda trainer: spoil_loss(trainer, 6), lambda t: t.add_callback(Spoil(6))])
def test_the_last_step_is_checked_without_a_log_or_a_save(trainer_of, spoil):
    trainer = trainer_of(logging_strategy="no", save_strategy="no")
    spoil(trainer)
    with pytest.raises(Diverged):
        trainer.train()


def test_nothing_is_measured_of_weights_that_are_not_finite(trainer_of):
    measured = []

    def evaluation(model):
        measured.append(model)
        return {"metric": 1.0}

    trainer = trainer_of(evaluation, logging_strategy="no", save_strategy="no", eval_strategy="steps", eval_steps=2)
    trainer.add_callback(Spoil(4))
    with pytest.raises(Diverged, match="after step 4"):
        trainer.train()
    assert len(measured) == 1


def test_weights_that_are_not_finite_are_not_trained(trainer_of):
    trainer = trainer_of()
    next(trainer.model.parameters()).data.view(-1)[0] = NAN
    with pytest.raises(ValueError, match="weights that are NaN or infinite before training: full_model"):
        trainer.train()


def test_no_step_waits_for_the_device_and_a_save_waits_once(trainer_of, monkeypatch):
    """Reading a value of a tensor is what waits."""
    trainer, waits = trainer_of(logging_steps=4, save_steps=5, max_steps=6), []
    assert trainer.args.logging_nan_inf_filter is False
    for name in ("__bool__", "item", "tolist"):
        original = getattr(torch.Tensor, name)

        def counted(value, name=name, original=original):
            if sys._getframe(1).f_code.co_filename.endswith(("divergence.py", "finite.py")):
                waits.append((trainer.state.global_step, name))
            return original(value)

        monkeypatch.setattr(torch.Tensor, name, counted)
    trainer.train()
    by_check = [step for step, name in waits if name == "tolist"]
    assert by_check == [4, 5, 6, 6]  # a log, a save, the save at the end, the end
    assert [step for step, name in waits if name != "tolist"] == [0]  # weights before training


class Scaled(PretextTrainer):
    """With fp16's GradScaler, on the CPU."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.accelerator.scaler = torch.amp.GradScaler("cpu")


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])  # the fused one skips on the device
def test_steps_that_fp16_skips_do_not_count(trainer_of, optim):
    """In step 3 the loss is NaN, in step 5 the gradients alone."""
    trainer, weights = trainer_of(kind=Scaled, max_steps=8, save_steps=50, optim=optim), []
    spoil_loss(trainer, 3)
    compute_loss = trainer.compute_loss

    def spoilt(*args, **kwargs):
        at_zero = (next(trainer.model.parameters()).sum() * 0).sqrt()  # its gradient is NaN
        return compute_loss(*args, **kwargs) + (at_zero if trainer.state.global_step + 1 == 5 else 0)

    trainer.compute_loss = spoilt

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            weights.append(next(model.parameters()).clone())

    trainer.add_callback(Keep())
    trainer.train()
    stayed = [torch.equal(before, after) for before, after in itertools.pairwise(weights)]
    assert stayed == [step in (3, 5) for step in range(2, 9)]
    assert [bool(torch.tensor(loss).isfinite()) for loss in losses(trainer)] == [step != 3 for step in range(1, 9)]
    assert checkpoints(trainer) == ["checkpoint-8"]


def test_fp16_that_skips_every_step_ends(trainer_of):
    trainer = trainer_of(kind=Scaled, max_steps=100, logging_steps=10, save_strategy="no")
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: compute_loss(*args, **kwargs) * NAN
    with pytest.raises(Diverged, match="fp16 skips all steps before step 40, as their gradients are NaN"):
        trainer.train()


def test_a_run_resumes_from_the_last_good_checkpoint(trainer_of):
    trainer = trainer_of()
    spoil_loss(trainer, 4)
    with pytest.raises(Diverged):
        trainer.train()
    resumed = trainer_of()
    resumed.train(resume_from_checkpoint="last")
    assert resumed.state.global_step == 6 and checkpoints(resumed) == ["checkpoint-6"]
    state = json.loads((Path(resumed.args.output_dir) / "checkpoint-6" / "trainer_state.json").read_text())
    assert len([entry for entry in state["log_history"] if "loss" in entry]) == 6
    assert not os.path.exists(Path(resumed.args.output_dir) / ".saving")
