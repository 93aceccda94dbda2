"""Bits of the label beyond simple cues: features that are the cues add nothing, others do."""

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from loud_clips import write_clips
from media import RATE
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext import RotationForPreTraining
from hf_pretext.audit import simple_cues as module
from hf_pretext.audit.entry import Audit, AuditOptions, as_property
from hf_pretext.audit.simple_cues import simple_cues
from hf_pretext.cards.audit import encoder_tables, sentences
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.transfer import SPLITS
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.presets import images

SIDE = 32
COUNTS = {"train": 160, "validation": 80, "test": 80}


def checked(colour: int, fine: int, random: np.random.Generator) -> PIL.Image.Image:
    """Dark or bright, and with vertical or horizontal stripes of one pixel, which no thumbnail shows."""
    stripes = np.indices((SIDE, SIDE))[fine] % 2 * 60
    pixels = 60 + 80 * colour + stripes + random.integers(0, 8, (SIDE, SIDE))
    return PIL.Image.fromarray(np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8))


@pytest.fixture(scope="module")
def stripes():
    """Four classes: one bit of them is the brightness, one the direction of fine stripes."""
    random, splits = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        rows = [{"image": checked(i % 2, i // 2 % 2, random), "kind": f"{i % 2}{i // 2 % 2}"} for i in range(count)]
        splits[split] = datasets.Dataset.from_list(rows)
    return LabelledSet(splits, Inputs(Image(default_processor(SIDE))), "kind")


def cues_of(labelled: LabelledSet, kind: str):
    return simple_cues(labelled, kind, as_property(labelled.labels))


def test_only_what_the_cues_lack_is_beyond_them(stripes):
    cues = cues_of(stripes, "image")
    assert cues.known.bits == pytest.approx(1, abs=0.1) and cues.features["test"].shape == (80, 3 * 8 * 8 + 4**3)
    labels = stripes.labels.splits
    direction = {split: np.eye(2, dtype=np.float32)[values % 2] for split, values in labels.items()}
    assert cues.beyond(direction).bits > 0.9
    brightness = {split: np.eye(2, dtype=np.float32)[values // 2] for split, values in labels.items()}
    assert cues.beyond(brightness).bits < 0.05
    assert cues.beyond(direction).entropy == pytest.approx(2 - cues.known.bits, abs=0.1)


def test_large_sets_are_bounded_and_evenly_spaced(stripes, monkeypatch):
    monkeypatch.setattr(module, "MOST", 50)
    cues = cues_of(stripes, "image")
    assert cues.rows.tolist() == [i * 160 // 50 for i in range(50)]
    assert len(cues.features["train"]) == len(cues.label.labels["train"]) == 50
    direction = {split: np.eye(2, dtype=np.float32)[values % 2] for split, values in stripes.labels.splits.items()}
    assert cues.beyond(direction).bits > 0.8  # features are of the same rows as the cues


def test_the_entry_and_the_card_have_it_for_trained_and_random(stripes):
    def build(seed: int):
        torch.manual_seed(seed)
        return RotationForPreTraining.from_encoder(images.tiny_resnet(SIDE))

    options, by_who = AuditOptions(only=("information",)), {}
    by_who = {"trained": [lambda: build(0)], "random": [lambda: build(1)]}
    first, second = (Audit(stripes, options).entry(by_who) for _ in range(2))
    assert first == second
    image = first["encoders"]["image"]
    assert image["trained"]["beyond_cues_kind"]["mean"] > 0.5  # of stripes: an untrained convolution sees them
    assert image["entropy"]["beyond_cues_kind"] == pytest.approx(1, abs=0.1)
    assert "beyond_cues_kind" in image["random"] and "beyond_cues_kind" in image["on_these_rows"]
    (table,) = encoder_tables(first)
    (row,) = [row for row in table["rows"] if row[0] == "bits of kind beyond simple cues"]
    assert row[-1] == f"{image['entropy']['beyond_cues_kind']:.3f}"
    sentences(first)


def test_sounds_have_loudness_and_texts_have_a_length(tmp_path):
    files, tables = tmp_path / "files", tmp_path / "tables"
    files.mkdir()
    tables.mkdir()
    write_clips(files, tables, dict.fromkeys(SPLITS, 16), (2, 10))
    sounds = LabelledSet(str(tables), Inputs(Audio(Wav2Vec2FeatureExtractor(sampling_rate=RATE), 0.5)), "half")
    cues = cues_of(sounds, "audio")
    assert cues.features["test"].shape == (16, 16) and cues.known.bits > 0.9  # quiet and loud in turn

    rows = [{"text": " ".join(["word"] * (3 + 20 * (i % 2))), "label": i % 2} for i in range(40)]
    tokenizer = train_tokenizer(open_source([{"text": row["text"]} for row in rows], needed=("text",)), size=300)
    texts = LabelledSet(dict.fromkeys(SPLITS, rows), Inputs(Text(tokenizer, 64)), "label")
    cues = cues_of(texts, "text")
    assert cues.features["test"].shape == (40, 1) and cues.known.bits > 0.9
    same = {split: np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) for split in SPLITS}
    assert cues.beyond(same).bits < 0.05
