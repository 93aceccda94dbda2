"""A run whose features become constant, or whose targets become uniform, is reported; a healthy run never is."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import CONFIGS, IMAGE, REPOSITORY, TEXT
from host_syncs import host_syncs
from torch import nn
from transformers import AutoModel, BertConfig, TrainingArguments, set_seed

from hf_pretext import ContrastiveForPreTraining, MaskedLMForPreTraining, RotationForPreTraining
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Corpus, Text
from hf_pretext.modules.dual_encoder import dual_encoder
from hf_pretext.samples import SAMPLES
from hf_pretext.stream.collapse import CONSTANT, NEAR, Collapsed, CollapseWatch, Verdict, signals
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer

pytestmark = pytest.mark.usefixtures("cache")
UNIFORM, SAME = "the targets are uniform", "the features of all rows are the same"
RECORDED = sorted((REPOSITORY / "model_cards").glob("*/results.json"))
STEPS = 60  # of a run that collapses; it is reported within 50


@pytest.fixture
def trainer_of(tmp_path, emoji):
    def make(model=None, data=None, processing=None, stop: bool = False, **options):
        arguments = dict(
            output_dir=str(tmp_path / "run"), per_device_train_batch_size=8, max_steps=STEPS, logging_steps=10,
            save_steps=10, learning_rate=1e-3, use_cpu=True, disable_tqdm=True, report_to="none", seed=1,
        )  # fmt: skip
        args = TrainingArguments(**{**arguments, **options})
        set_seed(args.seed)
        model = model or rotation()
        data = data or open_source(emoji(count=40))
        processing = processing or Image(default_processor(IMAGE), Augmentation())
        return PretextTrainer(model, args, data, processing, stream=StreamSettings(stop_on_collapse=stop))

    return make


def rotation(kind: type[RotationForPreTraining] = RotationForPreTraining):
    torch.manual_seed(0)
    return kind.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()), rotations_per_image=2, head_dim=8)


def made_constant(model):
    """Ends the encoder's output with a norm whose scale is 0, so that all images get its bias."""
    for parameter in model.encoder.parameters():
        parameter.data.zero_()
        parameter.requires_grad_(False)
    for module in model.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.fill_(0.5)
    return model


class Distillation(RotationForPreTraining):
    """Learns soft targets of a teacher that always names class 0, until the step from which its targets are uniform."""

    uniform_from, steps, soft = 0, 0, True

    def forward(self, pixel_values, **batch):
        output = super().forward(pixel_values)
        self.steps += self.training
        probability = 0.25 if self.steps > self.uniform_from else 0.97
        targets = torch.full_like(output.logits, (1 - probability) / 3)
        targets[:, 0] = probability
        loss, labels = F.cross_entropy(output.logits, targets), targets.argmax(1)
        logs = {"accuracy": (output.logits.argmax(1) == labels).float().mean()}
        more = {"features": output.features, "logits": output.logits, "labels": targets if self.soft else labels}
        return self.output({"teacher": loss}, logs, **more)


class HardlySaid(Distillation):
    """Does not give its soft targets, only the class of the largest."""

    soft = False


def warned(caplog) -> list[str]:
    return [record.message for record in caplog.records if "Training collapsed" in record.message]


@pytest.fixture
def caplog(caplog):
    transformers.utils.logging.enable_propagation()
    yield caplog
    transformers.utils.logging.disable_propagation()


# runs that collapse


def test_a_constant_encoder_is_reported_within_50_steps_once(trainer_of, caplog):
    trainer = trainer_of(made_constant(rotation()))
    trainer.train()
    (message,) = warned(caplog)
    assert f"in steps 1 to 40, {SAME} (spread" in message and "--stop_on_collapse" in message
    assert "--learning_rate 0.001. No checkpoint is from before it." in message
    assert trainer.state.global_step == STEPS
    assert trainer.collapse.record() == {"collapsed": [f"{SAME}, from about step 1"]}


def test_targets_that_become_uniform_are_reported_within_50_steps(trainer_of, caplog):
    model = rotation(Distillation)
    model.uniform_from = 40
    trainer_of(model, max_steps=90, learning_rate=1e-2).train()
    (message,) = warned(caplog)
    assert f"in steps 41 to 80, {UNIFORM}" in message
    assert "--learning_rate 0.01. The last checkpoint before it is " in message and "checkpoint-40. " in message


def test_without_soft_targets_a_loss_that_is_back_at_chance_is_reported_within_50_steps(trainer_of, caplog):
    model = rotation(HardlySaid)
    model.uniform_from = 30
    trainer = trainer_of(model, max_steps=140, learning_rate=1e-2, lr_scheduler_type="constant")
    trainer.train()
    (message,) = warned(caplog)
    last = int(message.partition(" to ")[2].partition(",")[0])
    losses = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    back = min(step for step, loss in losses.items() if step > 40 and abs(loss / math.log(4) - 1) < NEAR)
    assert UNIFORM in message and 30 < back < last <= back + 50


def test_targets_that_are_uniform_from_the_start_are_reported(trainer_of, caplog):
    trainer_of(rotation(Distillation)).train()
    assert f"in steps 1 to 40, {UNIFORM}" in warned(caplog)[0]


def test_stop_on_collapse_ends_the_run_and_leaves_its_checkpoints(trainer_of):
    trainer = trainer_of(made_constant(rotation()), stop=True)
    with pytest.raises(Collapsed, match=f"in steps 1 to 40, {SAME}.*Train again with a lower --learning_rate") as error:
        trainer.train()
    assert isinstance(error.value, ValueError) and "\n" not in str(error.value)
    assert trainer.state.global_step == 40
    kept = sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))
    assert kept == ["checkpoint-10", "checkpoint-20", "checkpoint-30"]


# runs that resume


def test_a_collapse_is_reported_once_also_by_a_run_that_resumes_after_it(trainer_of, caplog):
    trainer_of(made_constant(rotation()), max_steps=50).train()
    assert len(warned(caplog)) == 1
    resumed = trainer_of(made_constant(rotation()), max_steps=80)
    resumed.train("last")
    assert resumed.state.global_step == 80 and len(warned(caplog)) == 1
    assert resumed.collapse.record() == {"collapsed": [f"{SAME}, from about step 1"]}


def test_a_run_that_resumes_in_the_middle_of_a_window_is_reported_at_the_same_step(trainer_of, caplog):
    trainer_of(made_constant(rotation()), max_steps=30).train()
    resumed = trainer_of(made_constant(rotation()), max_steps=40)
    resumed.train("last")
    (message,) = warned(caplog)
    assert f"in steps 1 to 40, {SAME}" in message


def test_a_run_that_resumes_knows_that_it_learned(trainer_of):
    trainer = trainer_of(rotation(HardlySaid), max_steps=30, learning_rate=1e-2)
    trainer.model.uniform_from = 30
    trainer.train()
    state = trainer.collapse.state(torch.device("cpu"))
    assert state["verdict"]["learned"] and state["window"]["loss"][1] == 10
    resumed = trainer_of(rotation(HardlySaid), max_steps=30, learning_rate=1e-2)
    resumed.train("last")
    assert resumed.collapse.state(torch.device("cpu")) == state


def test_a_run_that_collapsed_is_ended_if_it_resumes_with_stop_on_collapse(trainer_of, caplog):
    trainer_of(made_constant(rotation()), max_steps=50).train()
    resumed = trainer_of(made_constant(rotation()), max_steps=80, stop=True)
    with pytest.raises(Collapsed, match=f"in steps 21 to 60, {SAME}"):
        resumed.train("last")
    assert resumed.collapse.reported == [f"{SAME}, from about step 1"]


def test_sums_that_are_not_finite_are_stored_too():
    watch, restored = CollapseWatch(), CollapseWatch()
    features = torch.full((8, 4), math.nan)
    watch.look({"features": features})
    state = json.loads(json.dumps(watch.state(torch.device("cpu")), allow_nan=False))
    assert state["window"] == {"spread": [None, 1]}
    restored.resume(state, torch.device("cpu"))
    restored.look({"features": torch.randn(8, 4)})
    assert restored.state(torch.device("cpu"))["window"] == {"spread": [None, 2]}


# runs that do not


def test_a_run_of_images_is_not_reported(trainer_of, caplog):
    trainer = trainer_of()
    trainer.train()
    assert not warned(caplog) and trainer.collapse.record() == {}


def test_a_run_of_texts_is_not_reported(trainer_of, caplog):
    texts = open_source(str(SAMPLES / "shakespeare"), needed=("text",))
    corpus = Corpus(train_tokenizer(texts, size=300), 32)
    config = BertConfig(**{**TEXT, "vocab_size": len(corpus.tokenizer)}, pad_token_id=corpus.tokenizer.pad_token_id)
    task = MaskedLMForPreTraining.complete(MaskedLMForPreTraining.task_class(), {"text": corpus.tokenizer})
    model = MaskedLMForPreTraining.from_encoder(config, **vars(task))
    (source,) = corpus.sources([texts], model.packs(32), 8)
    trainer_of(model, source, corpus, learning_rate=1e-4).train()
    assert not warned(caplog)


def test_a_run_of_pairs_is_not_reported(trainer_of, emoji, caplog):
    rows = [{"image": row["image"], "text": row["name"]} for row in emoji(count=40)]
    source = open_source(rows, needed=("image", "text"))
    tokenizer = train_tokenizer(open_source(rows, needed=("text",)), size=200)
    text = BertConfig(**{**TEXT, "vocab_size": len(tokenizer)}, pad_token_id=tokenizer.pad_token_id)
    model = ContrastiveForPreTraining.from_encoder(dual_encoder(CONFIGS["vit"](), text, 16))
    inputs = Inputs(Image(default_processor(IMAGE), Augmentation()), Text(tokenizer, 16))
    trainer_of(model, source, inputs, max_steps=40).train()
    assert not warned(caplog)


CLASSES = {  # of objectives whose loss is one cross-entropy of this many classes
    "rotation": lambda results: results["objective"]["num_rotations"],
    "jigsaw": lambda results: results["objective"]["num_permutations"],
    "relative_position": lambda results: 8,
    **dict.fromkeys(
        ("masked_lm", "causal_lm", "captioning", "sentence"), lambda results: results["tokenizer"]["tokens"]
    ),
}


def classified() -> list[Path]:
    """The recorded runs of these objectives. Of the others, only the spread of the features is watched."""
    return [path for path in RECORDED if json.loads(path.read_text())["objective"]["name"] in CLASSES]


@pytest.mark.parametrize("path", classified(), ids=lambda path: path.parent.name)
def test_no_recorded_run_would_have_been_reported(path):
    """Each log is taken as a window; its losses as equal, which is as close to a collapse as they can be."""
    results = json.loads(path.read_text())
    classes = CLASSES[results["objective"]["name"]](results)
    for run in results["seeds"]:
        verdict, first = Verdict(), run["history"][0]["loss"] / math.log(classes)
        assert 0.7 < first < 1.3, "not its number of classes"
        for entry in run["history"]:
            loss, accuracy = entry["loss"] / math.log(classes), (entry["accuracy"] - 1 / classes) / (1 - 1 / classes)
            means = {"loss": loss, "accuracy": accuracy, "deviation": abs(loss - 1)}
            assert verdict.judge(means) is None, entry


def test_objectives_with_recorded_runs_are_covered():
    names = {json.loads(path.read_text())["objective"]["name"] for path in RECORDED}
    assert {*CLASSES} <= names and len(classified()) >= len(CLASSES)


# the rule


def judged(*windows: dict, **options) -> list[str | None]:
    verdict = Verdict()
    return [verdict.judge(window, **options) for window in windows]


def test_a_run_at_chance_from_its_start_has_not_collapsed():
    window = {"spread": 0.5, "loss": 1.002, "accuracy": 0.01, "deviation": 0.03}
    assert judged(*[window] * 50) == [None] * 50


def test_a_run_that_learned_and_is_back_at_chance_has():
    learned, lost = (
        {"loss": loss, "accuracy": accuracy, "deviation": 0.03} for loss, accuracy in ((0.6, 0.5), (1.001, 0.02))
    )
    assert judged(learned, lost, lost) == [None, None, UNIFORM]
    assert judged(learned, lost, learned, lost) == [None] * 4
    assert judged(learned, *[{**lost, "accuracy": 0.3}] * 3) == [None] * 4  # accuracy above chance
    assert judged(learned, *[{**lost, "accuracy": 0.3, "deviation": 0.005}] * 2)[-1] == UNIFORM


def test_losses_that_all_equal_that_of_uniform_targets_count_after_warmup_only():
    exact = {"loss": 1.0, "accuracy": 0.3, "deviation": 1e-6}
    assert judged(exact, exact) == [None, UNIFORM]
    assert judged(exact, exact, exact, after_warmup=False) == [None] * 3


def test_constant_features_count_in_two_windows_in_a_row():
    same, differ = {"spread": CONSTANT / 2}, {"spread": 2 * CONSTANT}
    assert judged(same, differ, same, same) == [None, None, None, SAME]


def test_signals_of_regression_of_few_examples_and_of_several_losses_are_left_out():
    features, logits = torch.randn(8, 4), torch.randn(8, 3)
    loss = torch.tensor(1.0)
    regression = dict(
        features=features, logits=logits, labels=torch.randn(8, 3), loss=loss, losses={"a": loss}, logs={}
    )
    assert float(signals(regression)["entropy"]) == 0 and "loss" not in signals(regression)
    several = {**regression, "labels": torch.zeros(8, dtype=torch.long), "losses": {"a": loss, "b": loss}}
    assert set(signals(several)) == {"spread"}
    assert signals({**several, "features": features[:3]}) == {}
    assert set(signals({**several, "losses": {"a": loss}})) == {"spread", "loss", "deviation"}


def test_looking_at_a_step_does_not_wait_for_the_device():
    model = rotation().train()
    output = model(pixel_values=torch.randn(4, 3, IMAGE, IMAGE))
    watch = CollapseWatch()
    with host_syncs() as seen:
        watch.look(output)
        watch.look(output)
    assert not seen, seen
