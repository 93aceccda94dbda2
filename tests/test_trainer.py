"""The loop: exact resume, right gradients, honest logs, nothing shared that should not be."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import CONFIGS, EMOJI, IMAGE
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import AutoImageProcessor, AutoModel, TrainerCallback, TrainingArguments, set_seed

import hf_pretext
from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.run.train import weights_of
from hf_pretext.stream import trainer as stream_trainer
from hf_pretext.stream.branch import branch_of, last_checkpoint
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.pace import epochs_of_sources
from hf_pretext.stream.reader import SLACK
from hf_pretext.stream.sample_log import read_lines
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer


def make_trainer(folder, name="resnet", source=None, evaluation=None, count=40, emoji=None, stream=None, **options):
    arguments = dict(
        output_dir=str(folder), per_device_train_batch_size=8, max_steps=6, logging_steps=1, save_steps=2,
        learning_rate=1e-2, use_cpu=True, disable_tqdm=True, seed=1,
    )  # fmt: skip
    args = TrainingArguments(**{**arguments, **options})
    set_seed(args.seed)
    model = RotationForPreTraining.from_encoder(build_encoder(CONFIGS[name]()), rotations_per_image=2, head_dim=8)
    images = Image(default_processor(IMAGE), Augmentation())
    source = open_source(emoji(count=count)) if source is None else source
    return PretextTrainer(model, args, source, images, evaluation=evaluation, stream=stream)


@pytest.fixture
def trainer_of(tmp_path, emoji):
    return lambda name="run", architecture="resnet", **options: make_trainer(
        tmp_path / name, architecture, emoji=emoji, **options
    )


@pytest.fixture(scope="module")
def first_rows():
    """The first rows of the emoji, for fixtures of the module."""
    rows = datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*.parquet"), split="train")
    return lambda count=40: rows.select(range(count))


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("architecture", ["resnet", "swin", "timm_resnet18"])
def test_resumed_run_equals_one_never_interrupted(trainer_of, architecture):
    unbroken = trainer_of("whole", architecture)
    unbroken.train()
    trainer_of("cut", architecture, max_steps=6).train()  # writes checkpoint-2, -4 and -6
    resumed = trainer_of("cut", architecture)
    resumed.train(resume_from_checkpoint=str(Path(resumed.args.output_dir) / "checkpoint-4"))
    assert losses(resumed) == losses(unbroken)
    assert resumed.samples_seen == unbroken.samples_seen == 48
    expected = weights(unbroken.model)
    for name, value in weights(resumed.model).items():
        assert torch.equal(value, expected[name]), name


def test_resume_across_an_epochs_edge_with_accumulation_and_workers(trainer_of):
    options = dict(gradient_accumulation_steps=2, max_steps=8, save_steps=5, per_device_train_batch_size=4)
    unbroken = trainer_of("whole", **options)
    unbroken.train()
    resumed = trainer_of("whole", **options, dataloader_num_workers=2)
    resumed.train(resume_from_checkpoint=str(Path(resumed.args.output_dir) / "checkpoint-5"))
    assert losses(resumed) == losses(unbroken)
    expected = weights(unbroken.model)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed.model).items())


@pytest.mark.parametrize("length", [{"max_steps": 8}, {"max_steps": -1, "num_train_epochs": 2}])
def test_another_global_batch_keeps_the_learning_rate_of_the_samples_seen(trainer_of, tmp_path, length):
    options = dict(count=16, save_steps=2, lr_scheduler_type="cosine", warmup_steps=3, **length)
    calm = trainer_of("calm", **options)
    calm.train()

    def resumed(name, checkpoint, **changes):
        trainer = trainer_of(name, **{**options, **changes})
        trainer.train(str(tmp_path / checkpoint))
        return trainer

    def rates(trainer) -> dict[int, float]:
        """The learning rate of each step, by the samples seen before it."""
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        before = [0, *(entry["samples_seen"] for entry in logs)]
        return {samples: entry["learning_rate"] for samples, entry in zip(before, logs, strict=False)}

    steps = 14 if length["max_steps"] > 0 else -1  # 2 + 6 * 2
    half = resumed("half", "calm/checkpoint-2", per_device_train_batch_size=4, max_steps=steps)
    assert half.samples_seen == calm.samples_seen
    assert len(rates(half)) == 2 * len(rates(calm)) - 2
    assert {samples: rates(half)[samples] for samples in rates(calm)} == pytest.approx(rates(calm), abs=1e-12)
    # with the first batch once more, from 24 samples on
    back = resumed("half", "half/checkpoint-4", max_steps=9 if steps > 0 else -1)
    assert back.samples_seen == calm.samples_seen
    assert len(rates(back)) == len(rates(calm)) + 1
    assert {samples: rates(back)[samples] for samples in rates(calm)} == pytest.approx(rates(calm), abs=1e-12)
    assert back.model.progress == half.model.progress == calm.model.progress == 1
    assert half.lengthening.history == back.lengthening.history == []  # as many samples as before
    if steps < 0:
        # half as many steps for half as many epochs more: the run still has 4 steps
        longer = resumed("longer", "calm/checkpoint-2", per_device_train_batch_size=16, num_train_epochs=3)
        assert longer.state.max_steps == calm.state.max_steps == 4
        assert longer.lengthening.history == [{"step": 2, "from": 32, "to": 48}]
        assert rates(longer)[32] == pytest.approx(0.75e-2)  # after 1 of the 3 steps of the cosine, of 8 samples each


def test_accumulation_gives_the_gradient_of_the_full_batch(trainer_of):
    """Without batch norm, 4 batches of 2 are one of 8; Trainer's own division is left out where a loss takes kwargs."""
    grads = {}
    for name, options in {
        "whole": dict(per_device_train_batch_size=8),
        "parts": dict(per_device_train_batch_size=2, gradient_accumulation_steps=4),
    }.items():
        trainer = trainer_of(name, "vit", max_steps=1, max_grad_norm=0.0, save_strategy="no", **options)
        trainer.model.task.rotations_per_image = None
        kept = grads[name] = {}

        def keep(optimizer, args, kwargs, kept=kept, model=trainer.model):
            kept.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

        trainer.create_optimizer()
        trainer.optimizer.register_step_pre_hook(keep)
        trainer.train()
    assert grads["whole"].keys() == grads["parts"].keys() and grads["whole"]
    for name, value in grads["whole"].items():
        torch.testing.assert_close(grads["parts"][name], value, atol=1e-6, rtol=1e-3)


def test_vectors_get_no_weight_decay(trainer_of):
    trainer = trainer_of(weight_decay=0.1)
    trainer.create_optimizer()
    decayed = {id(p) for group in trainer.optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    for name, parameter in trainer.model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name


def test_logs_hold_the_objectives_metrics_and_the_pace(trainer_of):
    trainer = trainer_of(logging_steps=3)
    seen = []
    forward = trainer.model.forward

    def spy(**batch):
        output = forward(**batch)
        seen.append((output.loss.item(), output.logs["accuracy"].item()))
        return output

    trainer.model.forward = spy
    trainer._signature_columns = None
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["samples_seen"] for entry in entries] == [24, 48]
    for entry, part in zip(entries, (seen[:3], seen[3:]), strict=True):
        assert entry["loss"] == pytest.approx(sum(loss for loss, _ in part) / 3, abs=1e-4)
        assert entry["accuracy"] == pytest.approx(sum(accuracy for _, accuracy in part) / 3, abs=1e-6)
    assert 0 <= entries[1]["data_wait"] <= 1 and entries[1]["samples_per_second"] > 0
    assert entries[1]["epoch"] == pytest.approx(48 / 40)


def test_sources_of_one_name_are_reported_apart_in_the_logs(trainer_of, emoji):
    sources = [open_source(emoji(count=count)) for count in (10, 30)]
    trainer = trainer_of(source=Mixture(sources, [1, 1]))
    epochs = epochs_of_sources(trainer.mixture, trainer.get_train_dataloader().reader.order, 40)
    assert set(epochs) == {"epoch_of_source/0/Dataset", "epoch_of_source/1/Dataset"}
    assert epochs["epoch_of_source/0/Dataset"] > epochs["epoch_of_source/1/Dataset"] > 0
    for source, name in zip(trainer.mixture.sources, ("/mnt/a/emoji", "/mnt/b/emoji"), strict=True):
        source.name, source.prefix = name, ""
    epochs = epochs_of_sources(trainer.mixture, trainer.get_train_dataloader().reader.order, 40)
    assert set(epochs) == {"epoch_of_source/0/.../emoji", "epoch_of_source/1/.../emoji"}


def test_checkpoints_hold_the_processor_and_no_pickled_arguments(trainer_of):
    trainer = trainer_of()
    trainer.train()
    trainer.save_model()
    for folder in (trainer.args.output_dir, last_checkpoint(trainer.args.output_dir)):
        files = set(os.listdir(folder))
        assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= files
        assert "training_args.bin" not in files and "README.md" not in files
        assert type(AutoModel.from_pretrained(folder)).__name__ == "ResNetModel"
        assert AutoImageProcessor.from_pretrained(folder).crop_size["height"] == IMAGE
        assert type(hf_pretext.load(folder)) is RotationForPreTraining


def test_bad_samples_are_replaced_counted_and_survive_a_resume(trainer_of, tmp_path, emoji):
    rows = emoji(count=40).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[5]["image"]["bytes"] = rows[5]["image"]["bytes"][:50]
    rows[9]["image"]["bytes"] = b"no image"
    data = datasets.Dataset.from_list(rows, emoji(count=1).features)
    trainer = trainer_of(source=open_source(data), stream=StreamSettings(max_bad_fraction=0.1))
    trainer.train()
    refused = read_lines(Path(trainer.args.output_dir) / "bad_samples.jsonl")
    assert sorted((line["shard"], line["row"]) for line in refused) == [("Dataset", 5), ("Dataset", 9)]
    before = trainer.account()
    assert set(before["bad_samples"]) == {"damaged image", "not an image"}
    assert trainer.state.global_step == 6
    resumed = trainer_of(source=open_source(data), max_steps=8, stream=StreamSettings(max_bad_fraction=0.1))
    resumed.train(resume_from_checkpoint="last")
    assert read_lines(Path(trainer.args.output_dir) / "bad_samples.jsonl") == refused  # each once
    after = resumed.account()["bad_samples"]
    assert all(after[reason] >= count for reason, count in before["bad_samples"].items())


def test_resume_on_different_source_is_refused(trainer_of):
    trainer_of().train()
    with pytest.raises(ValueError, match="other data: Dataset had 40 rows and has 39.*--allow_changed_source"):
        trainer_of(count=39).train(resume_from_checkpoint="last")
    refused = trainer_of(count=39, stream=StreamSettings(allow_changed_source=True), max_steps=8)
    refused.train(resume_from_checkpoint="last")
    assert refused.state.global_step == 8 and refused.samples_seen == 64


def test_a_resume_keeps_the_parts_and_windows_of_the_run(trainer_of):
    """Without --parts: as on another number of ranks, which would give others."""
    options = dict(stream=StreamSettings(parts=3, window=5), save_steps=3)
    unbroken = trainer_of(**options)
    unbroken.train()
    resumed = trainer_of(stream=StreamSettings(), save_steps=3)
    resumed.train(resume_from_checkpoint=str(Path(resumed.args.output_dir) / "checkpoint-3"))
    assert resumed.account() == unbroken.account()
    state = json.loads((Path(resumed.args.output_dir) / "checkpoint-6" / "stream.json").read_text())
    assert (state["parts"], state["windows"]) == (3, [5])
    other = trainer_of("other")
    other.train()
    assert other.account() != unbroken.account()
    assert json.loads((Path(other.args.output_dir) / "checkpoint-6" / "stream.json").read_text())["parts"] == 16


def test_all_ranks_have_the_windows_of_the_main_process(trainer_of, monkeypatch):
    monkeypatch.setattr(stream_trainer, "on_main_process", lambda compute: [2**30 / (SLACK * 16 * 7)])
    assert trainer_of().get_train_dataloader().reader.order.orders[0].window == 7


class Change(TrainerCallback):
    """Changes one byte in the middle of a file after the first step; its size stays."""

    def __init__(self, file: Path):
        self.file, self.content = file, file.read_bytes()

    def on_step_end(self, args, state, control, **kwargs):
        middle = len(self.content) // 2
        self.file.write_bytes(self.content[:middle] + bytes([self.content[middle] ^ 1]) + self.content[middle + 1 :])
        os.utime(self.file, (1, 1))


def test_a_file_that_changes_during_a_run_is_refused_at_the_resume(trainer_of, tmp_path, emoji):
    """The recorded hash is of the start of the run, before the first checkpoint."""
    file = tmp_path / "a.parquet"
    emoji(count=40).to_parquet(file)
    trainer, change = trainer_of(source=open_source(str(file))), Change(file)
    trainer.add_callback(change)
    trainer.train()
    with pytest.raises(ValueError, match="a.parquet has the same size and other content.*--allow_changed_source"):
        trainer_of(source=open_source(str(file)), max_steps=8).train("last")
    file.write_bytes(change.content)  # as it was, with another time
    resumed = trainer_of(source=open_source(str(file)), max_steps=8)
    resumed.train("last")
    assert resumed.samples_seen == 64


class Endless:
    """A plain iterable: nobody knows its length."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_data_without_a_length_needs_max_steps(trainer_of, emoji):
    source = open_source(Endless([{"image": row["image"]} for row in emoji(count=20)]))
    with pytest.raises(ValueError, match="Endless has no known length.*--max_steps"):
        trainer_of(source=source, max_steps=-1)
    unbroken = trainer_of("whole", source=source)
    unbroken.train()
    assert unbroken.samples_seen == 48
    resumed = trainer_of("whole", source=source)
    resumed.train(resume_from_checkpoint=str(Path(resumed.args.output_dir) / "checkpoint-4"))
    assert losses(resumed) == losses(unbroken)


def test_waiting_for_data_is_measured_and_its_mend_is_reported(trainer_of, emoji, caplog):
    trainer = trainer_of(save_strategy="no")
    original = trainer.inputs.__call__

    class Slow(type(trainer.inputs)):
        def __call__(self, row, random):
            time.sleep(0.05)
            return original(row, random)

    trainer.inputs.__class__ = Slow
    logging.getLogger("transformers").addHandler(caplog.handler)
    trainer.train()
    logging.getLogger("transformers").removeHandler(caplog.handler)
    waits = [entry["data_wait"] for entry in trainer.state.log_history if "data_wait" in entry]
    assert len(waits) == 5 and sorted(waits)[1] > 0.5  # one step may be held up by what else the machine does
    assert caplog.text.count("decoding is slow. Use more worker processes: --dataloader_num_workers") == 1


def test_a_best_checkpoint_is_known_by_its_users_name(trainer_of):
    trainer = trainer_of(
        evaluation=lambda model: {"metric": 1.0}, eval_strategy="steps", eval_steps=2, save_total_limit=1,
        load_best_model_at_end=True, metric_for_best_model="metric",
    )  # fmt: skip
    trainer.train()
    folder = Path(trainer.args.output_dir)
    assert trainer.state.best_model_checkpoint == str(folder / "checkpoint-2")
    saved = json.loads((folder / "checkpoint-2" / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == str(folder / "checkpoint-2")  # not where it was written
    # the best one, and the last one, from which the run can be lengthened
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["checkpoint-2", "checkpoint-6"]


BEST = dict(load_best_model_at_end=True, metric_for_best_model="metric", save_total_limit=1)


@pytest.mark.parametrize(
    ("metrics", "options", "last"),
    [
        ([1.0], dict(save_strategy="no", eval_steps=6), "checkpoint-6"),  # in the evaluation after the last step
        ([3.0, 1.0], dict(BEST, eval_steps=2), "checkpoint-5"),  # the best one is of step 2
    ],
)
def test_a_signal_during_an_evaluation_saves_the_last_step_and_loads_no_other(trainer_of, metrics, options, last):
    left = iter(metrics)

    def evaluation(model):
        value = next(left)
        if value == metrics[-1]:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"metric": value}

    trainer = trainer_of(evaluation=evaluation, eval_strategy="steps", **options)
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert last_checkpoint(trainer.args.output_dir) == f"{trainer.args.output_dir}/{last}"
    saved = load_file(Path(trainer.args.output_dir) / last / "pretext.safetensors")["pretext_head.0.weight"]
    assert torch.equal(trainer.model.state_dict()["pretext_head.0.weight"], saved)
    resumed = trainer_of()
    resumed.train("last")
    assert resumed.state.global_step == 6


def test_a_best_checkpoint_that_is_missing_is_not_waited_for(trainer_of, tmp_path, caplog):
    values = iter([5.0, 1.0, 2.0, 3.0])
    options = dict(
        evaluation=lambda model: {"metric": next(values)}, eval_strategy="steps", eval_steps=2, greater_is_better=True,
        load_best_model_at_end=True, metric_for_best_model="metric",
    )  # fmt: skip
    trainer_of(max_steps=4, **options).train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    resumed = trainer_of(max_steps=8, **options)
    resumed.train("last")
    assert "The best checkpoint so far, of step 2 (metric 5), is missing." in caplog.text
    assert weights_of(resumed) == {"step": 8, "metric": "eval_metric", "value": 3.0, "chosen": "largest"}


def test_the_encoders_of_each_seed_are_compiled(tmp_path, emoji):
    options = dict(torch_compile=True, torch_compile_backend="eager", max_steps=1, use_cpu=True, disable_tqdm=True)
    of_seeds = [TrainingArguments(str(tmp_path / str(seed)), seed=seed, **options) for seed in (0, 1)]
    for args in of_seeds:  # a recipe, too, makes the arguments of all seeds before it trains the first
        torch._dynamo.reset()
        counters.clear()
        model = RotationForPreTraining.from_encoder(build_encoder(CONFIGS["vit"]()), rotations_per_image=2, head_dim=8)
        images = Image(default_processor(IMAGE), Augmentation())
        trainer = PretextTrainer(model, args, open_source(emoji(count=8)), images)
        trainer.train()
        assert counters["stats"]["unique_graphs"] >= 1, args.seed
        assert trainer.model_wrapped is model  # accelerate has not compiled it, with the loss
    AcceleratorState._reset_state(reset_partial_state=True)


def test_resume_without_a_checkpoint_is_refused(trainer_of, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint to resume from"):
        trainer_of().train(resume_from_checkpoint="last")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="stream.json"):
        trainer_of().train(resume_from_checkpoint=str(tmp_path / "other"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, first_rows):
    """A run of 6 steps on a cosine schedule, with checkpoints of the steps 2, 4 and 6."""
    trainer = make_trainer(tmp_path_factory.mktemp("trained") / "run", emoji=first_rows, lr_scheduler_type="cosine")
    trainer.train()
    return trainer


@pytest.fixture
def resume(trained, tmp_path, first_rows):
    """Resumes a copy of the run, in the same folder at each call of a test."""
    folder = tmp_path / "run"
    shutil.copytree(trained.args.output_dir, folder)

    def resume(checkpoint="last", callback=None, **options):
        trainer = make_trainer(folder, emoji=first_rows, **{"lr_scheduler_type": "cosine", **options})
        if callback is not None:
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=checkpoint if checkpoint == "last" else str(folder / checkpoint))
        return trainer

    resume.folder = folder
    return resume


def rates(trainer) -> list[float]:
    return [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]


def cosine(step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0."""
    return 1e-2 * 0.5 * (1 + math.cos(math.pi * step / steps))


@pytest.mark.parametrize(
    "name",
    ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "pretext.safetensors", "stream.json",
     "trainer_state.json", "preprocessor_config.json", "config.json"],
)  # fmt: skip
def test_no_checkpoint_is_resumed_without_one_of_its_files(resume, name):
    (resume.folder / "checkpoint-4" / name).unlink()
    with pytest.raises(ValueError, match=f"checkpoint-4 is damaged: {name} is missing.*intact .*/checkpoint-6"):
        resume("checkpoint-4")
    assert not (resume.folder / "abandoned").exists()


def test_after_a_cut_checkpoint_last_is_the_one_before_and_ends_as_a_run_never_interrupted(resume, trained, caplog):
    os.truncate(resume.folder / "checkpoint-6" / "model.safetensors", 1000)
    trainer = resume()
    assert [line for line in caplog.messages if "model.safetensors has 1,000 bytes" in line] == [
        line for line in caplog.messages if "Resuming from" in line
    ]
    assert sum("Resuming from" in line for line in caplog.messages) == 1
    assert losses(trainer) == losses(trained) and trainer.samples_seen == 48
    expected = weights(trained.model)
    assert all(torch.equal(value, expected[name]) for name, value in weights(trainer.model).items())
    assert (resume.folder / "abandoned" / "checkpoint-6").exists()


def test_a_checkpoint_of_weights_only_is_not_resumed(trainer_of):
    trainer = trainer_of(save_only_model=True)
    trainer.train()
    with pytest.raises(ValueError, match="checkpoint-6 was written with --save_only_model, .*--encoder"):
        trainer_of(save_only_model=True, max_steps=8).train(resume_from_checkpoint="last")


def test_last_is_of_the_branch_that_was_trained_last(resume):
    resume("checkpoint-2", max_steps=4)
    assert {path.name for path in (resume.folder / "abandoned").iterdir()} == {"checkpoint-4", "checkpoint-6"}
    manifest = json.loads((resume.folder / "checkpoint-4" / "manifest.json").read_text())
    assert manifest["parent"]["name"] == "checkpoint-2" and manifest["global_batch"] == 8 and manifest["step"] == 4
    trainer = resume(max_steps=5, save_steps=5)
    assert [len(rates(trainer)), trainer._initial_global_step] == [5, 4]
    assert [path.name for path in branch_of(resume.folder)] == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_a_clock_that_is_set_back_deletes_no_new_checkpoint(resume):
    for path in resume.folder.glob("checkpoint-*"):
        os.utime(path, (time.time() + 10**6,) * 2)
    resume(max_steps=10, save_total_limit=2)
    assert {path.name for path in resume.folder.glob("checkpoint-*")} == {"checkpoint-8", "checkpoint-10"}


def test_a_run_that_has_done_all_steps_does_no_more(resume, trained):
    trainer = resume()
    assert trainer.state.global_step == 6 and losses(trainer) == losses(trained)


class Applied(TrainerCallback):
    """Notes the learning rate that the optimizer has at each step; a log has what the schedule says."""

    def __init__(self):
        self.rates = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("length", [{"max_steps": 10}, {"max_steps": -1, "num_train_epochs": 2}])
def test_a_longer_run_has_the_schedule_of_its_new_length(resume, caplog, length):
    applied = Applied()
    trainer = resume(callback=applied, **length)
    assert applied.rates == pytest.approx([cosine(step, 10) for step in range(6, 10)])
    assert "Lengthened at step 6 from 48 to 80 samples. The learning rate follows the schedule of 80" in caplog.text
    assert rates(trainer) == pytest.approx(
        [cosine(step, 6) for step in range(6)] + [cosine(step, 10) for step in range(6, 10)]
    )
    assert trainer.lengthening.history == [{"step": 6, "from": 48, "to": 80}]
    again = resume(max_steps=12)
    assert again.lengthening.history == [{"step": 6, "from": 48, "to": 80}, {"step": 10, "from": 80, "to": 96}]
    with pytest.raises(ValueError, match="--max_steps 11 would end before .*checkpoint-12, which has done 12 steps"):
        resume(max_steps=11)


def test_a_best_checkpoint_stays_when_its_run_is_moved_and_resumed(trainer_of, tmp_path):
    values = iter([1.0, 3.0, 2.0, 2.0, 2.0, 2.0])
    options = dict(
        evaluation=lambda model: {"metric": next(values)}, eval_strategy="steps", eval_steps=2, save_total_limit=2,
        load_best_model_at_end=True, metric_for_best_model="metric", greater_is_better=True,
    )  # fmt: skip
    trainer_of(**options).train()
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = trainer_of("moved", max_steps=12, **options)
    moved.train(resume_from_checkpoint="last")
    assert {path.name for path in (tmp_path / "moved").glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-12"}
    chosen = {"step": 4, "metric": "eval_metric", "value": 3.0, "chosen": "largest"}
    assert weights_of(moved) == chosen
    best = load_file(tmp_path / "moved" / "checkpoint-4" / "pretext.safetensors")
    assert torch.equal(moved.model.state_dict()["pretext_head.0.weight"], best["pretext_head.0.weight"])


def test_a_best_checkpoint_is_loaded_when_its_run_is_moved_after_its_last_step(trainer_of, tmp_path):
    values = iter([1.0, 3.0, 2.0])
    options = dict(
        evaluation=lambda model: {"metric": next(values)}, eval_strategy="steps", eval_steps=2,
        load_best_model_at_end=True, metric_for_best_model="metric", greater_is_better=True,
    )  # fmt: skip
    trainer_of(**options).train()
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = trainer_of("moved", **options)
    moved.train(resume_from_checkpoint="last")
    best, last = (load_file(tmp_path / "moved" / f"checkpoint-{step}" / "pretext.safetensors") for step in (4, 6))
    weight = moved.model.state_dict()["pretext_head.0.weight"]
    assert torch.equal(weight, best["pretext_head.0.weight"])
    assert not torch.equal(weight, last["pretext_head.0.weight"]) and weights_of(moved)["step"] == 4


def test_weights_that_no_metric_chose_are_of_the_last_step(trained):
    assert weights_of(trained) == {"step": 6}


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_our_evaluation_runs_when_asked(trainer_of, strategy):
    calls = []

    def evaluation(model):
        calls.append(type(model))
        return {"metric": float(len(calls))}

    trainer = trainer_of(
        evaluation=evaluation, eval_strategy=strategy, eval_steps=3, save_strategy=strategy, save_steps=3,
        num_train_epochs=2, max_steps=-1, load_best_model_at_end=True, metric_for_best_model="metric",
        greater_is_better=False,
    )  # fmt: skip
    trainer.train()
    assert calls and set(calls) == {RotationForPreTraining}
    metrics = [entry["eval_metric"] for entry in trainer.state.log_history if "eval_metric" in entry]
    assert metrics == [float(i + 1) for i in range(len(calls))]
    assert trainer.state.best_metric == 1.0
    best = load_file(Path(trainer.state.best_model_checkpoint) / "pretext.safetensors")
    key = "pretext_head.0.weight"
    assert torch.equal(trainer.model.state_dict()[key], best[key])
    assert trainer.evaluate()["eval_metric"] == len(calls)


def test_epochs_count_the_data(trainer_of):
    trainer = trainer_of(num_train_epochs=3, max_steps=-1, logging_strategy="epoch", save_strategy="epoch")
    trainer.train()
    assert trainer.state.global_step == 15  # 40 rows in batches of 8
    assert [entry["epoch"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3]


@pytest.mark.parametrize("options", [{"bf16": True}, {"gradient_checkpointing": True}, {"torch_compile": True}])
def test_options_of_trainer_keep_working(trainer_of, options):
    if "torch_compile" in options:
        options = {**options, "torch_compile_backend": "eager"}
    trainer = trainer_of(architecture="vit", max_steps=2, **options)
    trainer.train()
    assert len(losses(trainer)) == 2


TWO_PROCESSES = """
import sys, torch
from safetensors.torch import save_file
from transformers import TrainingArguments, ViTConfig, set_seed
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.data.sources import open_source
from hf_pretext.run.train import weights_of
from hf_pretext.stream.branch import branch_of, last_checkpoint
from hf_pretext.stream.mixture import Mixture
from hf_pretext.objectives.rotation import RotationForPreTraining
from hf_pretext.trainer import PretextTrainer

data, folder, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
args = TrainingArguments(output_dir=folder, per_device_train_batch_size=batch, max_steps=3, logging_steps=1,
    save_strategy="no", use_cpu=True, disable_tqdm=True, learning_rate=1e-3, max_grad_norm=0.0,
    ddp_find_unused_parameters=False)
set_seed(0)
config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
    patch_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
model = RotationForPreTraining.from_encoder(config).double()
model.freeze_unused({"pixel_values": torch.zeros(2, 3, 32, 32, dtype=torch.float64)})

class Double(Image):
    def finish(self, batch):
        return {name: value.double() for name, value in super().finish(batch).items()}

trainer = PretextTrainer(model, args, open_source(data), Double(default_processor(32)))
trainer.create_optimizer()
grads = []
trainer.optimizer.register_step_pre_hook(
    lambda *_: grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
trainer.train()
if trainer.is_world_process_zero():
    found = {f"{i}.{n}": g for i, step in enumerate(grads) for n, g in step.items()}
    logged = [e for e in trainer.state.log_history if "loss" in e]
    found["loss"] = torch.tensor([e["loss"] for e in logged], dtype=torch.float64)
    found["accuracy"] = torch.tensor([e["accuracy"] for e in logged], dtype=torch.float64)
    save_file(found, folder + "/found.safetensors")
trainer.end()
"""


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    outcome = {}
    for name, command, batch in (
        ("one", [sys.executable], 8),
        ("two", [*launch, "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"], 4),
    ):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [*command, str(script), str(EMOJI), str(tmp_path / name), str(batch)],
            capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outcome[name] = load_file(tmp_path / name / "found.safetensors")
    assert outcome["one"].keys() == outcome["two"].keys()
    assert len(outcome["one"]) > 50
    for key, value in outcome["one"].items():
        tolerance = dict(atol=1e-6, rtol=1e-5) if key in ("loss", "accuracy") else dict(atol=1e-12, rtol=1e-8)
        torch.testing.assert_close(outcome["two"][key], value, msg=lambda m, key=key: f"{key}: {m}", **tolerance)
