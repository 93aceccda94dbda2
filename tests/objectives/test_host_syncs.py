"""How often the CPU waits for the device in a training step. Each objective has its number of times, at most."""

import tempfile

import caption_models
import narrated
import pytest
import test_causal_lm
import test_flava
import test_masked_lm
import test_matching
import test_multiway
import test_replaced_token
import test_sentence
import test_videobert
import torch
import towers
from conftest import CONFIGS, IMAGE
from host_syncs import host_syncs
from test_xdc import cluster, in_order, made
from toy_clips import resnet
from transformers import ResNetForImageClassification, TrainingArguments

from hf_pretext import (
    CausalLMForPreTraining,
    ColorizationForPreTraining,
    JigsawForPreTraining,
    MaskedImageForPreTraining,
    MaskedLMForPreTraining,
    RelativePositionForPreTraining,
    RotationForPreTraining,
)
from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.objectives.soundnet import SoundnetForPreTraining, SoundnetTask
from hf_pretext.trainer import PretextTrainer

LABELS = torch.tensor([7, 7, 8, 9, 9, 1])
COUNTED = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool((x > 0).any()),
    "float": lambda x: float(x.sum()),
    "equal": lambda x: torch.equal(x, x + 1),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.detach().numpy(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "a bool index": lambda x: x[x > 0],
    "an assignment to a bool index": lambda x: (x + 0).index_put_((x > 0,), torch.zeros(())),
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "bincount": lambda x: x.long().abs().bincount(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long().abs()),
    "a tensor of Python numbers": lambda x: torch.tensor([1.0, 2.0]),
}
NOT_COUNTED = {
    "where": lambda x: torch.where(x > 0, x, 0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0),
    "an index": lambda x: x[x.argsort()].sum().backward(),
    "sort": lambda x: x.sort(),
    "drawing": lambda x: torch.rand(3) + torch.arange(3) + torch.zeros(3),
    "a size": lambda x: x[: len(x) - 1].view(-1),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_waits_is_counted(name):
    values = torch.randn(5, requires_grad=True)
    with host_syncs() as seen:
        COUNTED[name](values)
    assert seen.total() == 1, seen


def test_the_backward_pass_of_a_bool_index_counts_too_and_multinomial_twice():
    values = torch.randn(5, requires_grad=True)
    with host_syncs() as seen:
        values[values > 0].sum().backward()
        values.softmax(0).multinomial(1)
    assert seen.total() == 4, seen


@pytest.mark.parametrize("name", NOT_COUNTED)
def test_what_does_not_wait_is_not_counted(name):
    values = torch.randn(5, requires_grad=True)
    with host_syncs() as seen:
        NOT_COUNTED[name](values)
    assert not seen, seen


def rotation():
    model = RotationForPreTraining.from_encoder(CONFIGS["vit"](), rotations_per_image=2)
    return model, {"pixel_values": torch.randn(4, 3, IMAGE, IMAGE)}


def image(model_class, **settings):
    encoder = CONFIGS["resnet" if "gap" in settings else "vit"]()
    return model_class.from_encoder(encoder, **settings), {"pixel_values": torch.randn(4, 3, IMAGE, IMAGE)}


def masked_codes():
    model, batch = image(MaskedImageForPreTraining, target="codes", codebook_size=8)
    model.prepare(iter([batch]))
    return model, batch


def contrastive(**settings):
    labels = {"labels": LABELS} if settings.get("positives") == "label" else {}
    return towers.pair_of("vit", **settings), {**towers.batch_of(), **labels}


def masked_lm(batch=None, **settings):
    texts = test_masked_lm.texts((12, 7, 12, 4))
    texts |= {"word_starts": texts["input_ids"] % 2 == 1, "num_bytes": torch.tensor([9, 8, 7, 6])}
    model = MaskedLMForPreTraining.from_encoder(test_masked_lm.native("bert"), **test_masked_lm.SETTINGS, **settings)
    return model, batch or texts


def packed():
    ids = test_masked_lm.texts((12, 12))["input_ids"]
    return masked_lm({"input_ids": ids, "document_ids": torch.tensor([[1] * 5 + [2] * 7, [1] * 9 + [0] * 3])})


def causal_lm(packs: bool = False):
    model = CausalLMForPreTraining.from_encoder(test_causal_lm.native("llama"))
    batch = test_causal_lm.texts((12, 7, 12, 4)) | {"num_bytes": torch.tensor([9, 8, 7, 6])}
    if packs:
        documents = torch.tensor([[1] * 5 + [2] * 7, [1] * 9 + [0] * 3])
        batch = {"input_ids": batch["input_ids"][::2], "document_ids": documents}
    return model, batch


def replaced_token(**settings):
    return test_replaced_token.model_of(**settings), masked_lm()[1]


def replaced_token_packed():
    return test_replaced_token.model_of(), packed()[1]


def sentence(negatives=False, **settings):
    batch = test_sentence.with_negatives(test_sentence.texts()) if negatives else test_sentence.texts()
    return test_sentence.model_of(**settings), batch


def captioning_in_parallel():
    settings = dict(backward=True, parallel_share=0.5, mask_token_id=4)
    return caption_models.model_of(**settings), caption_models.batch_of()


def matching(labels: torch.Tensor | None = None, **settings):
    return test_matching.model_of(**settings), {
        **test_matching.pairs(),
        **({} if labels is None else {"labels": labels}),
    }


def multiway(kind: str, **settings):
    return test_multiway.fitted(**settings), test_flava.kinds(test_flava.pairs())[kind]


def flava(kind: str, **settings):
    return test_flava.fitted(**settings), test_flava.kinds(test_flava.pairs())[kind]


def xdc(labels: str):
    model, (_, batches) = made(labels), in_order(40)
    cluster(model, batches)
    return model, batches[0]


def soundnet():
    """With posteriors in the cache; the teacher is not needed."""
    facts = {"classes": 5, "size": [24, 24], "mean": [0.5] * 3, "std": [0.5] * 3, "digest": ""}
    task, parts = SoundnetTask(teachers=["a teacher"]), {"teachers": [facts]}
    model = SoundnetForPreTraining(build_encoder(resnet(1)), task, parts)
    model.cached = torch.rand(9, 5).softmax(1)
    return model, {"keys": torch.tensor([8, 2, 2, 5]), "pixel_values": torch.randn(4, 1, 12, 12)}


def soundnet_without_cache():
    """Posteriors of a teacher in each step; it is loaded once."""
    config = CONFIGS["resnet"]()
    config.num_labels = 5
    with tempfile.TemporaryDirectory() as folder:
        ResNetForImageClassification(config).save_pretrained(folder)
        default_processor(24).save_pretrained(folder)
        settings = dict(teachers=[folder], cache_posteriors=False, image_mean=[0.5] * 3, image_std=[0.4] * 3)
        model = SoundnetForPreTraining.from_encoder(resnet(1), **settings)
    return model, {"pixel_values": torch.randn(4, 1, 12, 12), "video_pixel_values": torch.randn(4, 2, 3, IMAGE, IMAGE)}


def mil_nce(**settings):
    model = narrated.model_of(**settings)
    return model, narrated.narrated_clips(model)


def videobert(kind: str):
    with tempfile.TemporaryDirectory() as folder:
        build_encoder(CONFIGS["resnet"]()).save_pretrained(folder)
        return test_videobert.model_of(folder), test_videobert.kinds(test_videobert.pairs())[kind]


def videobert_cached():
    with tempfile.TemporaryDirectory() as folder:
        build_encoder(CONFIGS["resnet"]()).save_pretrained(folder)
        texts = test_videobert.kinds(test_videobert.pairs(12))["texts"]
        return test_videobert.cached(folder), {**texts, "keys": torch.arange(12)}


# transformers reads the attention mask of a text, to leave it out if no token is padding: once in each encoder of
# texts. The positions of masked tokens or patches are read once. Captioning also reads the length of the
# longest caption, once for each direction; TSDAE those of the longest text, with and without its deleted words.
MOST = {
    "rotation": (rotation, 0),
    "jigsaw": (lambda: image(JigsawForPreTraining, gap=3, channel_shift=1), 0),
    "relative_position": (lambda: image(RelativePositionForPreTraining, gap=3, pixelated_share=0.5), 0),
    "relative_position, projected": (lambda: image(RelativePositionForPreTraining, gap=3, color="project"), 0),
    "colorization": (lambda: image(ColorizationForPreTraining), 0),
    "masked_image": (lambda: image(MaskedImageForPreTraining), 0),
    "masked_image, blocks": (lambda: image(MaskedImageForPreTraining, region="blocks", pixel_loss="l1"), 0),
    "masked_image, square": (lambda: image(MaskedImageForPreTraining, region="square"), 0),
    "masked_image, visible": (lambda: image(MaskedImageForPreTraining, visible_only=True), 0),
    "masked_image, codes": (masked_codes, 0),
    "contrastive": (contrastive, 1),
    "contrastive, label smoothing": (lambda: contrastive(label_smoothing=0.1), 1),
    "contrastive, patch dropout": (lambda: contrastive(patch_dropout=0.5), 1),
    "contrastive, labels": (lambda: contrastive(positives="label"), 1),
    "contrastive, sigmoid": (lambda: contrastive(loss="sigmoid"), 1),
    "masked_lm": (masked_lm, 2),
    "masked_lm, spans": (lambda: masked_lm(unit="span"), 2),
    "masked_lm, packed": (packed, 1),
    "causal_lm": (causal_lm, 3),  # transformers reads the attention mask of padded texts twice
    "causal_lm, packed": (lambda: causal_lm(packs=True), 1),
    "replaced_token": (replaced_token, 3),  # generator and encoder are encoders of texts
    "replaced_token, spans": (lambda: replaced_token(unit="span"), 3),
    "replaced_token, packed": (replaced_token_packed, 1),
    "sentence": (sentence, 1),
    "sentence, hard negatives": (lambda: sentence(negatives=True), 2),
    "sentence, tsdae": (lambda: sentence(**test_sentence.TSDAE), 3),
    "captioning": (lambda: (caption_models.model_of(prefix=2), caption_models.batch_of()), 3),
    "captioning, backward, in parallel": (captioning_in_parallel, 5),
    "matching": (matching, 1),
    "matching, shuffled, labels": (lambda: matching(LABELS, negatives="shuffled"), 1),
    "multiway, pairs": (lambda: multiway("pairs", contrastive_weight=1.0), 2),
    "multiway, images": (lambda: multiway("images"), 1),
    "multiway, texts": (lambda: multiway("texts"), 1),
    "flava, pairs": (lambda: flava("pairs"), 4),
    "flava, hard pairs": (lambda: flava("pairs", negatives="hard"), 4),
    "flava, images": (lambda: flava("images"), 1),
    "flava, texts": (lambda: flava("texts"), 2),
    "xdc": (lambda: xdc("cross"), 0),
    "xdc, joint": (lambda: xdc("joint"), 0),
    "mil_nce": (mil_nce, 1),
    "mil_nce, word vectors": (lambda: mil_nce(text=None), 0),
    "soundnet": (soundnet, 0),
    "soundnet, no cache": (soundnet_without_cache, 0),
    "videobert, pairs": (lambda: videobert("pairs"), 4),  # frames that differ are counted
    "videobert, films": (lambda: videobert("films"), 3),
    "videobert, texts": (lambda: videobert("texts"), 2),
    "videobert, cached pairs": (videobert_cached, 4),  # whether it is a batch of films is read
}


@pytest.mark.parametrize("name", MOST)
def test_a_training_step_waits_at_most_this_often(name):
    build, most = MOST[name]
    model, batch = build()
    model.train()(**batch).loss.backward()  # the first step may check what the others need not
    with host_syncs() as seen:
        model(**batch).loss.backward()
    assert seen.total() <= most, seen


def test_a_step_of_a_trainer_waits_no_more_often_than_its_model(tmp_path, emoji):
    """Augmentation on the device with all its colour changes included."""
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=1, per_device_train_batch_size=4, disable_tqdm=True, save_strategy="no"
    )
    colors = Augmentation(color_jitter=0.4, hue=0.1, grayscale=0.2, channel_shuffle=0.2)
    trainer = PretextTrainer(rotation()[0], args, open_source(emoji(count=8)), Image(default_processor(IMAGE), colors))
    trainer.train()
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.create_optimizer()
    with host_syncs() as seen:
        trainer.training_step(trainer.model, batch)
    assert not seen, seen
