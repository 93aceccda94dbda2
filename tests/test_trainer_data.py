"""PretextTrainer takes what transformers' Trainer takes: datasets, lists and names of data, and plain processors."""

import io
import re
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from conftest import CONFIGS, EMOJI, IMAGE
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    TrainerCallback,
    TrainingArguments,
    VisionTextDualEncoderProcessor,
    ViTConfig,
    ViTImageProcessor,
    set_seed,
)

import hf_pretext
from hf_pretext import (
    Augmentation,
    CausalLMForPreTraining,
    ColorizationForPreTraining,
    ContrastiveForPreTraining,
    Image,
    Inputs,
    MaskedLMForPreTraining,
    PretextTrainer,
    RotationForPreTraining,
    open_source,
)
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.encoders import build_encoder
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.sample_log import read_lines
from hf_pretext.stream.settings import StreamSettings

ROWS = 40
SIZE = {"height": IMAGE, "width": IMAGE}


@pytest.fixture(scope="module")
def rows():
    return datasets.load_dataset("parquet", data_files=str(EMOJI / "train-*.parquet"), split=f"train[:{ROWS}]")


@pytest.fixture(scope="module")
def texts(rows):
    return [f"The {name} is here, and the {name} is good." for name in rows["name"]]


@pytest.fixture(scope="module")
def tokenizer(cache, texts):
    return train_tokenizer(open_source(texts, needed=("text",)), size=200)


def vit() -> RotationForPreTraining:
    set_seed(0)
    return RotationForPreTraining.from_encoder(CONFIGS["vit"](), rotations_per_image=2, head_dim=8)


def bert(tokenizer) -> BertConfig:
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return BertConfig(vocab_size=len(tokenizer), max_position_embeddings=48, **sizes)


@pytest.fixture
def trainer_of(tmp_path):
    def make(model, dataset, folder="run", processing_class=None, **options):
        ours = {name: options.pop(name) for name in ("columns", "stream", "callbacks", "optimizers") if name in options}
        usual = dict(per_device_train_batch_size=8, max_steps=4, logging_steps=1, save_steps=2, report_to="none")
        args = TrainingArguments(str(tmp_path / folder), use_cpu=True, disable_tqdm=True, **{**usual, **options})
        return PretextTrainer(model, args, train_dataset=dataset, processing_class=processing_class, **ours)

    return make


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# forms of data


def test_the_same_rows_give_the_same_losses_in_any_form(trainer_of, rows, tmp_path):
    """As a `Dataset`, the train split of a dict of datasets, dicts, images, and by an open source."""
    forms = {
        "dataset": rows,
        "dict": datasets.DatasetDict(train=rows, test=rows.select(range(2))),
        "rows": [{"image": image, "other": 1} for image in rows["image"]],
        "images": list(rows["image"]),
        "source": open_source(rows),
        "mixture": Mixture(open_source(rows)),
        "renamed": rows.rename_column("image", "photo").select_columns(["photo"]),
    }
    found = {}
    for name, form in forms.items():
        columns = {"image": "photo"} if name == "renamed" else None
        trainer = trainer_of(vit(), form, name, columns=columns, max_steps=2, save_strategy="no")
        trainer.train()
        found[name] = losses(trainer)
    first = found["dataset"]
    assert len(first) == 2
    assert found == dict.fromkeys(forms, first)


def test_streams_folders_and_embedded_sets_are_opened(trainer_of, rows, tmp_path):
    (tmp_path / "images").mkdir()
    for i, image in enumerate(rows["image"][:16]):
        image.save(tmp_path / "images" / f"{i}.png")
    for data, count in ((rows.to_iterable_dataset(num_shards=2), ROWS), (tmp_path / "images", 16), ("emoji", 3448)):
        trainer = trainer_of(vit(), data, max_steps=1, save_strategy="no")
        assert len(trainer.train_dataset) == count
        trainer.train()
        assert len(losses(trainer)) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "train_dataset is missing. Give a folder"),
        (["a.png", "b.png"], "list of strings, like 'a.png', but the model needs image. For files, give their folder"),
        (3, "has the type int, and no rows"),
        ([(1, 2)], "The first row is a tuple. Give rows that are dicts"),
        ([{"name": "a"}], "no column of images was detected"),
    ],
)
def test_data_that_can_not_be_used_is_refused(trainer_of, data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer_of(vit(), data)


def test_names_of_columns_are_checked(trainer_of, rows):
    with pytest.raises(ValueError, match=r"columns has 'images', but RotationForPreTraining reads image\. .*'image': "):
        trainer_of(vit(), rows, columns={"images": "image"})
    with pytest.raises(ValueError, match="columns has no effect: train_dataset is open already"):
        trainer_of(vit(), open_source(rows), columns={"image": "image"})


# guarantees of the stream


@pytest.mark.parametrize("form", ["dataset", "images", "texts"])
def test_a_resumed_run_ends_with_the_weights_of_one_never_interrupted(trainer_of, rows, texts, tokenizer, form):
    data = {"dataset": rows, "images": list(rows["image"]), "texts": texts * 4}[form]

    def trained(folder, resume=None, **options):
        set_seed(0)
        model = MaskedLMForPreTraining.from_encoder(bert(tokenizer)) if form == "texts" else vit()
        trainer = trainer_of(model, data, folder, tokenizer if form == "texts" else None, max_steps=6, **options)
        trainer.train(resume and f"{trainer.args.output_dir}/checkpoint-{resume}")
        return trainer

    unbroken = trained("unbroken")
    trained("cut")
    resumed = trained("cut", resume=4, dataloader_num_workers=2)
    assert resumed._initial_global_step == 4 and losses(resumed) == losses(unbroken)
    assert resumed.account() == unbroken.account()
    expected = unbroken.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())


def damaged(rows) -> datasets.Dataset:
    """The rows as bytes, of which two are no images."""
    content = rows.cast_column("image", datasets.Image(decode=False)).to_list()
    content[5]["image"]["bytes"] = content[5]["image"]["bytes"][:50]
    content[9]["image"]["bytes"] = b"no image"
    return datasets.Dataset.from_list(content, rows.features)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_of_a_dataset_are_replaced_and_listed(trainer_of, rows, workers):
    options = dict(max_steps=5, dataloader_num_workers=workers, save_strategy="no")
    trainer = trainer_of(vit(), damaged(rows), stream=StreamSettings(max_bad_fraction=0.1), **options)
    trainer.train()
    listed = read_lines(Path(trainer.args.output_dir) / "bad_samples.jsonl")
    assert sorted((line["row"], line["reason"].partition(":")[0]) for line in listed) == [
        (5, "damaged image"),
        (9, "not an image"),
    ]
    assert trainer.samples_seen == 40


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_of_a_list_is_replaced(trainer_of, rows, workers):
    """Pillow reads its pixels only when they are needed."""
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    file = io.BytesIO()
    noise.save(file, "png")
    images = [*rows["image"][:15], PIL.Image.open(io.BytesIO(file.getvalue()[:3000]))]
    options = dict(max_steps=2, dataloader_num_workers=workers, save_strategy="no")
    trainer = trainer_of(vit(), images, stream=StreamSettings(max_bad_fraction=0.1), **options)
    trainer.train()
    assert sum(trainer.account()["bad_samples"].values()) == 1 and trainer.samples_seen == 16


# processors


def test_a_plain_image_processor_becomes_inputs_and_is_saved(trainer_of, rows):
    processor = ViTImageProcessor(size=SIZE, image_mean=[0.4] * 3, image_std=[0.2] * 3)
    trainer = trainer_of(vit(), rows, processing_class=processor, max_steps=2)
    image = trainer.inputs.by_name["image"]
    assert image.augmentation == Augmentation() and image.mean.tolist() == pytest.approx([0.4 * 255] * 3)
    trainer.train()
    saved = AutoImageProcessor.from_pretrained(f"{trainer.args.output_dir}/checkpoint-2")
    assert list(saved.image_mean) == [0.4] * 3 and saved.size["height"] == IMAGE
    assert list(trainer.processing_class.image_std) == [0.2] * 3


def test_random_changes_are_chosen_by_giving_inputs(trainer_of, rows):
    image = Image(ViTImageProcessor(size=SIZE), Augmentation(crop_scale=0.9, color_jitter=0.0))
    for given in (image, Inputs(image)):
        trainer = trainer_of(vit(), rows, processing_class=given)
        assert trainer.inputs.by_name["image"] is image


def test_what_an_objective_fixes_is_the_default_of_its_inputs(trainer_of, rows):
    model = ColorizationForPreTraining.from_encoder(CONFIGS["vit"](), head_dim=8)
    trainer = trainer_of(model, rows)
    assert trainer.inputs.by_name["image"].augmentation == Augmentation(color_jitter=0.0)


def test_images_without_a_processor_have_the_size_of_the_encoder(trainer_of, rows, tmp_path):
    assert trainer_of(vit(), rows).inputs.by_name["image"].size == (IMAGE, IMAGE)
    encoder = build_encoder(CONFIGS["resnet"]())
    with pytest.raises(ValueError, match=r"processing_class is missing.* ResNetModel has no image_size in its config"):
        trainer_of(RotationForPreTraining.from_encoder(encoder), rows)
    encoder.save_pretrained(tmp_path / "trained")
    trained = type(encoder).from_pretrained(tmp_path / "trained")
    with pytest.raises(ValueError, match="ResNetModel has no image processor next to its weights"):
        trainer_of(RotationForPreTraining.from_encoder(trained), rows)
    ViTImageProcessor(size=SIZE, image_mean=[0.3] * 3).save_pretrained(tmp_path / "trained")
    trainer = trainer_of(RotationForPreTraining.from_encoder(trained), rows)
    assert list(trainer.processing_class.image_mean) == [0.3] * 3


def test_a_tokenizer_packs_texts_and_completes_the_settings(trainer_of, texts, tokenizer):
    model = MaskedLMForPreTraining.from_encoder(bert(tokenizer))
    trainer = trainer_of(model, texts, processing_class=tokenizer, max_steps=2)
    assert model.task.mask_token_id == tokenizer.mask_token_id
    assert model.task.special_token_ids == sorted(tokenizer.all_special_ids)
    assert trainer.inputs.by_name["text"].max_length == 48  # positions of the model
    assert "document_ids" in trainer.mixture.sources[0].columns
    trainer.train()
    folder = f"{trainer.args.output_dir}/checkpoint-2"
    assert AutoTokenizer.from_pretrained(folder).mask_token_id == tokenizer.mask_token_id
    assert hf_pretext.load(folder).task == model.task


def test_texts_that_are_not_packed_come_in_batches_of_similar_lengths(trainer_of, texts, tokenizer, monkeypatch):
    monkeypatch.setattr(MaskedLMForPreTraining, "packs", lambda self, length: False)
    trainer = trainer_of(MaskedLMForPreTraining.from_encoder(bert(tokenizer)), texts, processing_class=tokenizer)
    assert trainer.args.per_device_train_batch_size == 1  # a row is a batch
    trainer.train()
    assert len(losses(trainer)) == 4


def test_a_processor_of_pairs_gives_both_kinds(trainer_of, rows, tokenizer):
    images = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                         image_size=IMAGE, patch_size=8)  # fmt: skip
    processor = VisionTextDualEncoderProcessor(ViTImageProcessor(size=SIZE, image_std=[0.3] * 3), tokenizer)
    for given, std in ((processor, 0.3), (tokenizer, 0.5)):  # images alone may have the default
        model = ContrastiveForPreTraining.from_encoders(images, bert(tokenizer), 16)
        trainer = trainer_of(model, rows, processing_class=given, columns={"text": "name"}, max_steps=2)
        assert trainer.inputs.by_name["image"].std.tolist() == pytest.approx([255 * std] * 3)
        assert trainer.inputs.by_name["text"].max_length == 48 and trainer.inputs.pair_label == "text"
        trainer.train()
        saved = AutoProcessor.from_pretrained(f"{trainer.args.output_dir}/checkpoint-2")
        assert saved.image_processor.image_std == pytest.approx([std] * 3)


def test_a_processor_that_does_not_fit_is_refused(trainer_of, rows, texts, tokenizer):
    with pytest.raises(ValueError, match=r"processing_class is a \w+, but Rotation\w+ takes images. Give processing_c"):
        trainer_of(vit(), rows, processing_class=tokenizer)
    with pytest.raises(ValueError, match="processing_class is missing, but MaskedLMForPreTraining takes texts"):
        trainer_of(MaskedLMForPreTraining.from_encoder(bert(tokenizer)), texts)
    with pytest.raises(ValueError, match="Images of 48x48 pixels .* do not fit ViTModel: .*of its size"):
        trainer_of(vit(), rows, processing_class=ViTImageProcessor(size={"height": 48, "width": 48}))
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    with pytest.raises(ValueError, match="vocabulary of 30,522.* or set vocab_size to"):
        trainer_of(MaskedLMForPreTraining.from_encoder(config), texts, processing_class=tokenizer)


def test_a_model_that_was_built_for_another_processor_is_refused(trainer_of, rows, texts, cache):
    model = ColorizationForPreTraining.from_encoder(CONFIGS["vit"](), head_dim=8)
    dark = ViTImageProcessor(size=SIZE, image_mean=[0.4] * 3)
    with pytest.raises(ValueError, match=r"from_encoder\(..., image_mean=\[0.4, 0.4, 0.4\], image_std=\[0.5, 0.5, "):
        trainer_of(model, rows, processing_class=dark)
    settings = dict(image_mean=[0.4] * 3, image_std=[0.5] * 3)
    trainer_of(ColorizationForPreTraining.from_encoder(CONFIGS["vit"](), head_dim=8, **settings), rows, "run", dark)
    causal = train_tokenizer(open_source(texts, needed=("text",)), "bpe", 300, add_eos_token=False)
    config = GPT2Config(vocab_size=len(causal), n_embd=32, n_layer=1, n_head=2, n_positions=48)
    with pytest.raises(ValueError, match="was built without bos_token_id, eos_token_id, pad_token_id"):
        trainer_of(CausalLMForPreTraining.from_encoder(config), texts, processing_class=causal)


# arguments of Trainer


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("data_collator", "processing_class=Inputs"),
        ("compute_metrics", "give evaluation="),
        ("preprocess_logits_for_metrics", "give evaluation="),
        ("compute_loss_func", "the objective computes the loss"),
        ("model_init", "Give model="),
    ],
)
def test_an_argument_without_effect_is_refused_with_the_fix(tmp_path, rows, name, fix):
    with pytest.raises(ValueError, match=f"{name} .*{fix}"):
        PretextTrainer(vit(), TrainingArguments(str(tmp_path), use_cpu=True), rows, **{name: lambda *_: None})


def test_callbacks_and_optimizers_are_used(trainer_of, rows):
    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1

    model, count = vit(), Count()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = trainer_of(model, rows, callbacks=[count], optimizers=(optimizer, schedule))
    trainer.train()
    assert count.steps == 4 and trainer.optimizer.optimizer is optimizer
    assert [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry] == [0.5] * 4


def test_a_model_without_a_pretext_task_is_refused(trainer_of, rows):
    with pytest.raises(ValueError, match=r"model is a ViTModel, .*RotationForPreTraining.from_encoder\(model\)"):
        trainer_of(build_encoder(CONFIGS["vit"]()), rows)


def test_arguments_have_the_defaults_of_trainer(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    assert PretextTrainer(vit(), train_dataset=rows).args.output_dir == "tmp_trainer"
