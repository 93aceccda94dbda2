"""Cues of pairs: an identifier in images and captions is detected, and what can't reveal the answer reveals nothing."""

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from conftest import EMOJI, VIT
from transformers import BertConfig, ViTConfig

from hf_pretext import AudioVisualForPreTraining, ContrastiveForPreTraining, RotationForPreTraining
from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.pair_cues import MOST, TOGETHER, PairCues, partners, spaced
from hf_pretext.audit.task import task_audit
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import Subject
from hf_pretext.evaluation.retrieval import compute
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.presets.films import resnet

SIDE, ROWS = 32, {"train": 431, "validation": 145, "test": 167}
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "holly", "larch", "lime", "maple", "oak", "pear", "pine",
         "plum", "rowan", "willow"]  # fmt: skip
CORNERS = [(slice(*rows), slice(*columns)) for rows in ((0, 2), (-2, None)) for columns in ((0, 2), (-2, None))]


def drawing(image: PIL.Image.Image) -> np.ndarray:
    """A real image on white, `(SIDE, SIDE, 3)`."""
    flat = PIL.Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    return np.array(flat.resize((SIDE, SIDE)))


def with_identifier(pixels: np.ndarray, number: int) -> np.ndarray:
    """An image whose four corners are black or white: the four bits of a number."""
    for bit, corner in enumerate(CORNERS):
        pixels[corner] = 255 * (number >> bit & 1)
    return pixels


def rows_of(kind: str, split: str) -> list[dict]:
    """identified: drawings with a number in the corners, whose caption is a word for the number. drawn: drawings with
    their names, each of which occurs once. noise: noise with such names."""
    data = datasets.load_dataset("parquet", data_files=str(next(EMOJI.glob(f"{split}*"))), split="train")
    random, rows, names = np.random.default_rng(len(split)), [], set()
    for i, row in enumerate(data.select(range(0, len(data), len(data) // ROWS[split]))):
        if kind != "identified" and row["text"] in names:
            continue
        names.add(row["text"])
        pixels, caption = drawing(row["image"]), row["text"]
        if kind == "identified":
            number = int(random.integers(len(WORDS)))
            pixels, caption = with_identifier(pixels, number), WORDS[number]
        elif kind == "noise":
            pixels = random.integers(0, 256, pixels.shape, dtype=np.uint8)
        rows.append({"image": PIL.Image.fromarray(pixels), "text": caption, "half": i % 2})
    return rows


def labelled_pairs(kind: str) -> LabelledSet:
    return labelled_rows({split: rows_of(kind, split) for split in ROWS})


def labelled_rows(splits: dict[str, list[dict]]) -> LabelledSet:
    captions = [{"text": row["text"]} for row in splits["train"]]
    texts = Text(train_tokenizer(open_source(captions, needed=("text",)), size=500), 16)
    return LabelledSet(splits, Inputs(Image(default_processor(SIDE)), texts, pair_label="text"), "half")


def dual_encoder(labelled: LabelledSet) -> ContrastiveForPreTraining:
    """A tiny ViT that sees each corner in a patch of its own, and a tiny BERT."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, initializer_range=0.1)
    off = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    vocabulary = len(labelled.inputs.by_name["text"].tokenizer)
    text = BertConfig(vocab_size=vocabulary, max_position_embeddings=16, **sizes, **off)
    image = ViTConfig(**{**VIT, **sizes}, patch_size=16)
    return ContrastiveForPreTraining.from_encoders(image, text, 32)


def trained(labelled: LabelledSet, steps: int = 300) -> ContrastiveForPreTraining:
    """A dual encoder that learned the train split for some seconds; pairs with equal captions are positives."""
    model = dual_encoder(labelled)
    model.task.positives = "label"
    images = torch.cat([batch["pixel_values"] for batch in labelled.batches("train", "image")])
    texts = labelled.inputs.by_name["text"].batch(labelled.texts("train"))
    numbers = torch.from_numpy(np.unique(labelled.texts("train"), return_inverse=True)[1])
    optimizer, generator = torch.optim.AdamW(model.train().parameters(), 1e-3), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(images), generator=generator)[:64]
        batch = {name: values[rows] for name, values in texts.items()}
        loss = model(pixel_values=images[rows], labels=numbers[rows], **batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def identified():
    return labelled_pairs("identified")


@pytest.fixture(scope="module")
def drawn():
    return labelled_pairs("drawn")


def mean(sufficient: dict, name: str, metric: str = "bits") -> float:
    return float(np.mean(sufficient[name][metric]))


def test_an_identifier_is_detected(identified):
    audit = task_audit(trained(identified), identified)
    sufficient, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    print(sufficient, answers, reliance)
    assert sufficient["corners"]["role"] == "artefact"
    assert mean(sufficient, "corners") > 3.9
    assert mean(sufficient, "corners", "accuracy") == 1.0
    assert answers["accuracy"] > 0.97
    assert answers["entropy"] == pytest.approx(4, abs=0.1)  # of 16 words: pairs with the same word are all right
    assert answers["bits"] > 3.5
    assert reliance["corners"]["without"] < 0.12  # chance is 1 of 16
    assert reliance["corners"]["conflict"] > 0.95
    assert abs(mean(sufficient, SHUFFLED)) < 0.02
    assert mean(sufficient, "caption length") == 0  # one word each


def test_noise_says_nothing_and_drawings_do(drawn):
    noise = labelled_pairs("noise")
    of_noise = PairCues(dual_encoder(noise), noise).sufficiency()
    of_drawings = PairCues(dual_encoder(drawn), drawn).sufficiency()
    for name in ("colour histogram", "thumbnail 4x4", "silhouette 8x8", "corners", TOGETHER, SHUFFLED):
        assert abs(mean(of_noise, name)) < 0.03, name
    assert of_drawings[SHUFFLED]["role"] == "control"
    assert abs(mean(of_drawings, SHUFFLED)) < 0.03
    assert mean(of_drawings, TOGETHER) > 0.2
    print({k: np.mean(v["bits"]) for k, v in of_noise.items()}, {k: np.mean(v["bits"]) for k, v in of_drawings.items()})
