"""Masking patches and words of pairs: the codebook that comes with it, and what is hidden."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIGS
from huggingface_hub.errors import StrictDataclassClassValidationError
from test_flava import CODES, MASK, SETTINGS, config, encoder, fitted, kinds, pairs
from transformers import AutoModel, ViTImageProcessor

import hf_pretext
from hf_pretext import FlavaForPreTraining
from hf_pretext.modules.codebook import PatchCodebook
from hf_pretext.modules.masked_pairs import MaskedPairsTask
from hf_pretext.modules.masking import IGNORED


def test_prepare_fits_the_codebook_to_images_alone():
    model = FlavaForPreTraining.from_encoder(encoder(), **SETTINGS)
    batches = [kinds(pairs())["texts"], {"pixel_values": pairs()["pixel_values"]}]
    model.prepare(iter(batches))
    assert isinstance(model.codebook, PatchCodebook) and model.codebook.fitted


@pytest.mark.parametrize(("ratio", "count"), [(0.4, 6), (0.01, 1), (0.75, 12)])
def test_hidden_patches_are_labelled_with_their_codes_and_no_others(ratio, count):
    model, pixels = fitted(image_mask_ratio=ratio), pairs()["pixel_values"]
    hidden, labels = model.hide_patches(pixels)
    codes = model.codebook(pixels)
    assert hidden.shape == (6, 16) and hidden.sum(1).tolist() == [count] * 6
    assert torch.equal(labels[hidden], codes[hidden]) and (labels[~hidden] == IGNORED).all()
    assert len(codes.unique()) == CODES


def test_what_is_hidden_changes_in_training_and_stays_in_evaluation():
    model, batch = fitted(), pairs()
    for training in (True, False):
        model.train(training)
        one, other = (model.hide_patches(batch["pixel_values"])[0] for _ in range(2))
        assert torch.equal(one, other) != training
        one, other = (model.hide_tokens(batch["input_ids"], batch["attention_mask"], 0.3)[1] for _ in range(2))
        assert torch.equal(one, other) != training


@pytest.mark.parametrize("ratio", [0.15, 0.5])
def test_hidden_tokens_are_a_share_without_special_ones_and_padding(ratio):
    model = fitted().train()
    ids = torch.randint(5, 50, (40, 22))
    ids[:, 0], ids[:, -1], there = 1, 2, torch.ones_like(ids)
    ids[:20, 12:], there[:20, 12:] = 0, 0
    seen, labels = model.hide_tokens(ids, there, ratio)
    hidden = labels != IGNORED
    assert hidden.sum(1).tolist() == [round(11 * ratio)] * 20 + [round(20 * ratio)] * 20
    assert not hidden[:, [0, -1]].any() and not hidden[:20, 12:].any()
    assert torch.equal(labels[hidden], ids[hidden]) and torch.equal(seen[~hidden], ids[~hidden])
    assert 0.6 < (seen[hidden] == MASK).float().mean() < 0.95 and not torch.isin(seen[hidden], torch.arange(3)).any()


def test_a_new_model_has_the_codebook_of_its_settings_and_keeps_its_shape_in_the_config():
    model = FlavaForPreTraining.from_encoder(encoder(), **SETTINGS)
    assert model.codebook is model.pretext_head["codebook"] and not model.codebook.fitted
    assert model.parts["codebook"] == {"kind": "pixels", "size": CODES, "patch_size": 8}
    assert model.new_codebook().centres.shape == model.codebook.centres.shape == (CODES, 3 * 8 * 8)


def test_a_codebook_of_a_folder_comes_with_its_weights(tmp_path):
    vit = AutoModel.from_config(CONFIGS["vit"]())
    vit.save_pretrained(tmp_path)
    model = FlavaForPreTraining.from_encoder(encoder(), **SETTINGS, codebook=str(tmp_path))
    assert model.codebook.kind == "features"
    assert all(
        torch.equal(value, vit.state_dict()[name]) for name, value in model.codebook.encoder.state_dict().items()
    )


def test_what_fitting_gave_is_shown_as_the_codebook_has_it():
    model = fitted()
    assert model.prepared() == {"codebook": {"kind": "pixels", "size": CODES, "perplexity": model.codebook.perplexity}}


def test_no_more_patches_are_clustered_than_the_settings_say():
    model = FlavaForPreTraining.from_encoder(encoder(), **SETTINGS, codebook_patches=20)
    model.prepare(iter([pairs()]))
    assert model.codebook.counts.sum() == 20


@pytest.mark.parametrize("name", ["image_mask_ratio", "text_mask_ratio"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_that_hide_nothing_or_all_are_refused(name, share):
    with pytest.raises(StrictDataclassClassValidationError, match=f"{name} must lie between 0 and 1, but is {share}"):
        MaskedPairsTask(**{name: share})


def test_what_images_are_normalised_by_is_a_setting_that_reaches_the_codebook(tmp_path):
    encoder = AutoModel.from_config(CONFIGS["vit"]())
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer = SimpleNamespace(mask_token_id=MASK, all_special_ids=[0, 1, 2])
    image_processor = ViTImageProcessor(image_mean=[0.2, 0.4, 0.6], image_std=0.3)
    task = FlavaForPreTraining.task_class(codebook=str(tmp_path / "encoder"), codebook_size=CODES)
    completed = FlavaForPreTraining.complete(task, {"text": tokenizer, "image": image_processor})
    assert (completed.image_mean, completed.image_std) == ([0.2, 0.4, 0.6], [0.3] * 3)
    model = FlavaForPreTraining.from_encoder(config(), **dataclasses.asdict(completed))
    torch.testing.assert_close(model.codebook.mean, torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(model.codebook.std, torch.full((3,), 0.3))
    given = dataclasses.replace(completed, image_mean=[0.1] * 3, image_std=[1.0] * 3)
    assert FlavaForPreTraining.complete(given, {"text": tokenizer, "image": image_processor}) == given
    model.save_pretrained(tmp_path / "saved")
    loaded = hf_pretext.load(tmp_path / "saved")
    assert loaded.task == dataclasses.replace(completed, codebook=".../encoder")  # no path of this machine
    assert loaded.codebook.mean.tolist() == model.codebook.mean.tolist()


@pytest.mark.parametrize("values", [{"image_mean": [0.5] * 3}, {"image_mean": [0.5], "image_std": [1.0]}])
def test_half_a_normalisation_is_refused(values):
    with pytest.raises(ValueError, match="image_mean and image_std must be 3 numbers each"):
        FlavaForPreTraining.from_encoder(config(), **SETTINGS, **values)
