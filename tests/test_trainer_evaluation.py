"""`eval_dataset`: the pretext loss on data without labels, the same at each evaluation, next to `evaluation`."""

import math

import datasets
import pytest
import torch
from conftest import CONFIGS, EMOJI
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from hf_pretext import MaskedLMForPreTraining, PretextTrainer, RotationForPreTraining, open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.modalities.image import default_processor
from hf_pretext.stream.mixture import Mixture


@pytest.fixture(scope="module")
def rows():
    return datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*.parquet"), split="train[:60]")


@pytest.fixture
def trainer_of(tmp_path, rows):
    def make(folder="run", eval_dataset=None, evaluation=None, model=None, callbacks=None, **options):
        usual = dict(per_device_train_batch_size=8, max_steps=6, logging_steps=1, save_steps=2, report_to="none")
        args = TrainingArguments(str(tmp_path / folder), use_cpu=True, disable_tqdm=True, **{**usual, **options})
        set_seed(0)
        model = model or RotationForPreTraining.from_encoder(CONFIGS["resnet"](), head_dim=8)
        others = dict(eval_dataset=eval_dataset, evaluation=evaluation, callbacks=callbacks)
        return PretextTrainer(model, args, rows.select(range(40)), default_processor(32), **others)

    return make


def evaluated(trainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "eval_loss" in entry]


def test_the_loss_is_the_mean_over_all_rows_without_augmentation(trainer_of, rows):
    held_out = rows.select(range(40, 60))
    trainer = trainer_of(eval_dataset=held_out)
    metrics = trainer.evaluate()
    assert metrics == trainer.evaluate() and metrics.keys() == {"eval_loss", "eval_accuracy"}
    inputs, model = trainer.inputs.evaluation(), trainer.model.eval()
    examples = [inputs({"image": row["image"]}, None)["pixel_values"] for row in held_out]
    with torch.no_grad():  # all rotations of each image: batches do not matter in eval()
        expected = model(**inputs.finish({"pixel_values": torch.stack(examples)}))
    assert metrics["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    assert metrics["eval_accuracy"] == pytest.approx(expected.logs["accuracy"].item())


def test_training_is_the_same_with_and_without_an_evaluation(trainer_of, rows):
    plain = trainer_of("plain")
    plain.train()
    watched = trainer_of("watched", rows.select(range(40, 60)), eval_strategy="steps", eval_steps=1)
    watched.train()
    assert len(evaluated(watched)) == 6 and not evaluated(plain)
    expected = plain.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in watched.model.state_dict().items())


def test_the_best_checkpoint_by_eval_loss_is_loaded_without_labels(trainer_of, rows):
    trainer = trainer_of(
        eval_dataset=rows.select(range(40, 60)), eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        learning_rate=3e-2,
    )  # fmt: skip
    trainer.train()
    losses = {entry["step"]: entry["eval_loss"] for entry in evaluated(trainer)}
    best = min(losses, key=losses.get)
    assert trainer.state.best_metric == losses[best] and trainer.state.best_global_step == best
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-6)


def test_training_may_stop_early(trainer_of, rows):
    trainer = trainer_of(
        eval_dataset=rows.select(range(40, 60)), eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        callbacks=[EarlyStoppingCallback(1, math.inf)],
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 4


def test_several_sets_and_further_metrics_go_together(trainer_of, rows):
    sets = {"a": rows.select(range(40, 60)), "b": open_source(rows), "c": Mixture(open_source(rows.select(range(16))))}
    trainer = trainer_of(eval_dataset=sets, evaluation=lambda model: {"rank": 3.0})
    metrics = trainer.evaluate()
    names = [f"eval_{name}_{metric}" for name in "abc" for metric in ("loss", "accuracy")]
    assert {*metrics} == {*names, "eval_rank"} and metrics["eval_rank"] == 3.0
    assert len({metrics[f"eval_{name}_loss"] for name in "abc"}) == 3
    other = trainer.evaluate(sets["a"], metric_key_prefix="test")
    assert other == {f"test_{metric}": metrics[f"eval_a_{metric}"] for metric in ("loss", "accuracy")}
    clash = trainer_of(eval_dataset=sets["a"], evaluation=lambda model: {"loss": 3.0})
    with pytest.raises(ValueError, match="evaluation returns loss, which eval_dataset gives, too. Rename it."):
        clash.evaluate()


def test_of_a_named_set_the_validation_split_is_used(trainer_of):
    trainer = trainer_of(eval_dataset="emoji")
    (held_out,) = trainer._held_out.values()
    assert {name for name, _ in held_out.data.sources[0].rows.places} == {"validation-00000-of-00001.parquet"}


def test_bad_rows_are_left_out(trainer_of, rows):
    good = rows.select(range(40, 60))
    content = good.cast_column("image", datasets.Image(decode=False)).to_list()
    content.insert(3, {**content[0], "image": {"bytes": b"no image", "path": None}})
    damaged = datasets.Dataset.from_list(content, rows.features)
    metrics = trainer_of(eval_dataset=damaged).evaluate()
    assert metrics == pytest.approx(trainer_of(eval_dataset=good).evaluate(), rel=1e-5)


def test_texts_are_packed_as_in_training(tmp_path, rows, cache):
    texts = [f"The {name} is here." for name in rows["name"]]
    tokenizer = train_tokenizer(open_source(texts, needed=("text",)), size=150)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = type(CONFIGS["bert"]())(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)
    args = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True)
    trainer = PretextTrainer(
        MaskedLMForPreTraining.from_encoder(config), args, texts[:40], tokenizer, eval_dataset=texts[40:]
    )
    packed = trainer.inputs.by_name["text"].rows
    before, metrics = trainer.train_dataset, trainer.evaluate()
    assert metrics == trainer.evaluate() and metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_loss"]))
    assert trainer.inputs.by_name["text"].rows is packed and trainer.train_dataset is before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("endless", "eval_dataset: .* has no known length"),
        ("missing", "'nothing/here'|nothing/here is neither"),
    ],
)
def test_data_that_can_not_be_evaluated_is_refused(trainer_of, rows, data, message):
    class Endless:
        def __iter__(self):
            return iter([{"image": rows[0]["image"]}])

    with pytest.raises(ValueError, match=message):
        trainer_of(eval_dataset=Endless() if data == "endless" else "nothing/here")


def test_an_objective_that_keeps_a_value_for_each_training_row_has_no_other_rows(trainer_of, rows):
    model = RotationForPreTraining.from_encoder(CONFIGS["resnet"](), head_dim=8)
    model.needs_keys = True
    with pytest.raises(ValueError, match="rotation keeps a value for each row of the training data"):
        trainer_of(eval_dataset=rows, model=model)
