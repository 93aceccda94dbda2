"""Cues of pairs: an identifier in images and captions is detected, and what can't reveal the answer reveals nothing."""

import io

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import VIT
from identified import ROWS, SIDE, labelled_pairs, labelled_rows, rows_of
from loud_clips import LEVELS, write_clips
from media import RATE
from torch.nn.functional import adaptive_avg_pool2d, normalize
from transformers import BertConfig, ViTConfig, Wav2Vec2FeatureExtractor

from hf_pretext import AudioVisualForPreTraining, ContrastiveForPreTraining, RotationForPreTraining
from hf_pretext.audit import pair_cues
from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.pair_cues import TOGETHER, PairCues, other_pairs
from hf_pretext.audit.task import task_audit
from hf_pretext.evaluation import retrieval
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import Subject
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.modules.caption_cues import FILE_SIZE
from hf_pretext.modules.cues import COLOR_HISTOGRAM, FILE
from hf_pretext.presets.films import resnet


def dual_encoder(labelled: LabelledSet) -> ContrastiveForPreTraining:
    """A tiny ViT that sees each corner in a patch of its own, and a tiny BERT."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    fast = dict(initializer_range=0.1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # learns in seconds
    vocabulary = len(labelled.inputs.by_name["text"].tokenizer)
    text = BertConfig(vocab_size=vocabulary, max_position_embeddings=16, **sizes, **fast)
    image = ViTConfig(**{**VIT, **sizes, **fast}, patch_size=16)
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


@pytest.fixture
def one_seed(monkeypatch):
    monkeypatch.setattr(pair_cues, "SEEDS", (0,))


def mean(sufficient: dict, name: str, metric: str = "bits") -> float:
    return float(np.mean(sufficient[name][metric]))


def test_an_identifier_is_detected(identified, one_seed):
    audit = task_audit(trained(identified), identified)
    sufficient, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    assert sufficient["corners"]["role"] == "artefact"
    assert mean(sufficient, "corners") > 3.9
    assert mean(sufficient, "corners", "accuracy") == 1.0
    assert answers["accuracy"] > 0.95
    assert answers["entropy"] == pytest.approx(4, abs=0.1)  # of 16 words: pairs with the same word are all right
    assert answers["bits"] > 3.5
    assert answers["overfitting"] > 0
    assert reliance["corners"]["without"] < 0.12  # chance is 1 of 16
    assert reliance["corners"]["conflict"] > 0.95
    assert reliance["thumbnail 4x4"]["without"] > 0.9  # it leaves the corners
    assert reliance["thumbnail 4x4"]["conflict"] < 0.05
    assert "silhouette 8x8" not in reliance  # can't be exchanged
    assert abs(mean(sufficient, SHUFFLED)) < 0.05
    assert mean(sufficient, "caption length") == 0  # one word each


def test_noise_says_nothing_and_drawings_do(drawn, one_seed):
    noise = labelled_pairs("noise")
    of_noise = PairCues(dual_encoder(noise), noise).sufficiency()
    of_drawings = PairCues(dual_encoder(drawn), drawn).sufficiency()
    for name in ("colour histogram", "thumbnail 4x4", "silhouette 8x8", "corners", TOGETHER, SHUFFLED):
        assert abs(mean(of_noise, name)) < 0.05, name
    assert of_drawings[SHUFFLED]["role"] == "control"
    assert abs(mean(of_drawings, SHUFFLED)) < 0.05
    assert mean(of_drawings, TOGETHER) > 0.2


def test_the_same_metrics_twice(drawn, one_seed):
    model, state = dual_encoder(drawn).train(), torch.get_rng_state()
    first, second = (PairCues(model, drawn) for _ in range(2))
    assert first.answers() == second.answers()
    assert first.reliance() == second.reliance()
    with torch.no_grad():
        assert first.sufficiency() == second.sufficiency()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


class Similar(torch.nn.Module):
    """Embeds a caption like its image, but for noise, so that some captions are nearest to their image."""

    inputs, capabilities, cues, artefacts, controls = ("image", "text"), ("embed",), (COLOR_HISTOGRAM,), (), ()

    def __init__(self, labelled: LabelledSet):
        super().__init__()
        generator, self.vectors = torch.Generator().manual_seed(0), {}
        for split in ROWS:
            texts = labelled.inputs.by_name["text"].batch(labelled.texts(split))["input_ids"]
            pixels = torch.cat([batch["pixel_values"] for batch in labelled.batches(split, "image")])
            noise = torch.randn(len(pixels), 64, generator=generator)
            for ids, vector in zip(texts, self.embed("image", pixels) + 0.06 * noise, strict=True):
                self.vectors[self.words(ids)] = vector

    def words(self, ids: torch.Tensor) -> tuple[int, ...]:
        return tuple(ids[ids != 0].tolist())

    def embed(self, kind: str, pixel_values=None, input_ids=None, attention_mask=None) -> torch.Tensor:
        if kind == "image":
            return normalize(adaptive_avg_pool2d(pixel_values.mean(1), 8).flatten(1))
        return normalize(torch.stack([self.vectors[self.words(ids)] for ids in input_ids]))


def test_accuracy_is_that_of_retrieval(drawn):
    model = Similar(drawn)
    answers, metrics = PairCues(model, drawn).answers(), retrieval.compute(Subject(model, drawn))
    both = (metrics["image_to_text_r1"] + metrics["text_to_image_r1"]) / 2
    assert 0.2 < answers["accuracy"] < 0.9
    assert answers["accuracy"] == pytest.approx(both)
    assert 0 < answers["bits"] < answers["entropy"] == pytest.approx(np.log2(len(drawn.rows("test"))))


def test_a_large_split_has_fewer_candidates(drawn, monkeypatch):
    monkeypatch.setattr(PairCues, "most", 40)
    audit = PairCues(Similar(drawn), drawn)
    assert audit.answers()["entropy"] == pytest.approx(np.log2(40))
    chosen = audit.sets["test"].texts("test")
    assert len(chosen) == 40 and chosen[:2] == [drawn.texts("test")[i] for i in (0, len(drawn.rows("test")) // 40)]
    assert len(audit.seen.rows("train")) == 40
    assert audit.reliance().keys() == {"colour histogram"}


def of_quality(quality: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(quality).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(
        buffer, "JPEG", quality=quality
    )
    return buffer.getvalue()


def test_files_are_read(one_seed):
    """The caption names the quality of a JPEG file."""
    files = {"fine": of_quality(95), "coarse": of_quality(20)}
    rows = [
        {"image": {"bytes": files[name], "path": None}, "text": name, "half": i % 2}
        for i, name in enumerate(["fine", "coarse"] * 40)
    ]
    labelled = labelled_rows(dict.fromkeys(ROWS, rows))
    sufficient = PairCues(dual_encoder(labelled), labelled).sufficiency()
    for name in ("file size", "JPEG quality"):
        assert sufficient[name]["role"] == "artefact"
        assert mean(sufficient, name) > 0.9, name  # of one bit


def test_cues_of_unknown_files_are_left_out(drawn, caplog):
    assert PairCues(Similar(drawn), drawn)._read(FILE, [FILE_SIZE]) == {}
    assert "leaves out the cues file size: " in caplog.text


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    tables = tmp_path_factory.mktemp("tables")
    counts = {"train": 96, "validation": 48, "test": 48}
    write_clips(tmp_path_factory.mktemp("files"), tables, counts, range(LEVELS))
    return tables


def test_sounds_and_films(clips):
    model = AudioVisualForPreTraining.from_encoders(audio=resnet(1, 8, 2), video=resnet(3, 8, 2))
    sounds = Audio(Wav2Vec2FeatureExtractor(sampling_rate=RATE), 0.5)
    films = Video(default_video_processor(SIDE), 2, seconds=0.5)
    for modality, kind in ((sounds, "audio"), (films, "video")):
        modality.fit(model.encoders[kind])
    audit = task_audit(model, LabelledSet(str(clips), Inputs(sounds, films), "half"))
    sufficient, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    assert answers["entropy"] == pytest.approx(np.log2(48))
    for name in ("loudness", "brightness", "colour histogram of frames"):
        assert mean(sufficient, name) > 0.7, name
    for name in ("spectral centroid", "motion energy", "silence at the ends", SHUFFLED):
        assert mean(sufficient, name) < 0.15, name
    assert reliance.keys() == {"loudness", "colour histogram of frames", "brightness", "motion energy"}


def test_partners_are_others():
    groups = np.array([0, 0, 1, 2, 2, 2])
    anyone, differing = other_pairs(groups)
    assert (anyone != np.arange(6)).all() and sorted(anyone) == list(range(6))
    assert (groups[differing] != groups).all()


def test_what_is_no_pair_is_refused(drawn):
    assert not PairCues.fits(RotationForPreTraining)
    towers = {"audio": resnet(1, 8, 2), "video": resnet(3, 8, 2)}
    assert PairCues.fits(AudioVisualForPreTraining.from_encoders(**towers))
    assert not PairCues.fits(AudioVisualForPreTraining.from_encoders(**towers, fusion="concat"))
    same = labelled_rows({split: [{**row, "text": "a"} for row in rows_of("drawn", split)] for split in ROWS})
    with pytest.raises(ValueError, match="the same caption"):
        PairCues(Similar(same), same)
