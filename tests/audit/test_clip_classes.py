"""Cues of tasks that classify sounds and films: a loudness that decides the answer is detected."""

import numpy as np
import pytest
import torch
from loud_clips import write_clips
from media import RATE
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy
from transformers import CLIPImageProcessor, ResNetForImageClassification, Wav2Vec2FeatureExtractor

from hf_pretext import AudioVisualForPreTraining, SoundnetForPreTraining, XdcForPreTraining
from hf_pretext.audit import class_cues
from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.clip_classes import ClipCues
from hf_pretext.audit.entry import Audit, AuditOptions, best_cue
from hf_pretext.audit.task import task_audit
from hf_pretext.cards.audit import cue_rows, sentences
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.transfer import SPLITS
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.presets.films import resnet

SIDE, LEVELS = 32, (0, 3, 6, 9)  # brightness of the films, and loudness: 10 dB apart
NORMALISED = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
DIRECTIONS = ("audio to video", "video to audio")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    tables = tmp_path_factory.mktemp("tables")
    write_clips(tmp_path_factory.mktemp("files"), tables, {"train": 128, "validation": 64, "test": 64}, LEVELS)
    sounds = Audio(Wav2Vec2FeatureExtractor(sampling_rate=RATE), 0.5)
    films = Video(default_video_processor(SIDE), 2, seconds=0.5)
    towers = AudioVisualForPreTraining.from_encoders(audio=resnet(1, 8, 2), video=resnet(3, 8, 2))
    for modality, kind in ((sounds, "audio"), (films, "video")):
        modality.fit(towers.encoders[kind])
    return LabelledSet(str(tables), Inputs(sounds, films), "half")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """An image classifier of four classes of brightness."""
    torch.manual_seed(0)
    config = resnet(3, 8, 2)
    config.num_labels = len(LEVELS)
    model, folder = ResNetForImageClassification(config).eval(), tmp_path_factory.mktemp("teacher")
    values = torch.arange(0, 200, 4.0)
    with torch.no_grad():
        pixels = (values / 127.5 - 1)[:, None, None, None].expand(-1, 3, SIDE, SIDE)
        features = model.resnet(pixels).pooler_output.flatten(1)
        scale = features.std()
        fit = LogisticRegression(C=1e4, max_iter=5000).fit(features / scale, (values / 60).round())
        model.classifier[-1].weight.copy_(torch.from_numpy(fit.coef_) / scale)
        model.classifier[-1].bias.copy_(torch.from_numpy(fit.intercept_))
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE, **NORMALISED).save_pretrained(folder)
    return str(folder)


def soundnet(teachers: list[str]) -> SoundnetForPreTraining:
    torch.manual_seed(0)
    return SoundnetForPreTraining.from_encoder(resnet(1, 8, 2), teachers=teachers, **NORMALISED)


def xdc(labels: str = "cross") -> XdcForPreTraining:
    torch.manual_seed(0)
    return XdcForPreTraining.from_encoders(audio=resnet(1, 8, 2), video=resnet(3, 8, 2), num_clusters=2, labels=labels)


def clustered(labelled: LabelledSet, labels: str = "cross") -> XdcForPreTraining:
    model, rows = xdc(labels), len(labelled.rows("train"))
    model.set_rows(rows)
    (batch,) = labelled.pretext_batches("train")
    model.before_round(iter([{**batch, "keys": torch.arange(rows)}]))
    return model


def trained(model, labelled: LabelledSet, steps: int = 60):
    """Trained on the train split for some seconds; of XDC the heads alone, so that the clusters stay."""
    (batch,) = labelled.pretext_batches("train")
    clusters = isinstance(model, XdcForPreTraining)
    with torch.no_grad():
        features = model.eval().features_of(batch) if clusters else None
    parameters = (model.pretext_head if clusters else model.train()).parameters()
    optimizer, generator = torch.optim.AdamW(parameters, 1e-2), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(labelled.rows("train")), generator=generator)[:32]
        loss = of_heads(model, features, rows) if clusters else model(**{k: v[rows] for k, v in batch.items()}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def of_heads(model: XdcForPreTraining, features: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    scores = {name: head(features[name.partition("_to_")[0]][rows]) for name, head in model.pretext_head.items()}
    return sum(cross_entropy(s, model.clusters.codes_of(n.partition("_to_")[2], rows)) for n, s in scores.items())


@pytest.fixture
def one_seed(monkeypatch):
    monkeypatch.setattr(class_cues, "SEEDS", (0,))


def mean(sufficient: dict, name: str, metric: str = "bits") -> float:
    return float(np.mean(sufficient[name][metric]))


def test_a_loudness_that_decides_the_class_is_detected(labelled, teacher, one_seed):
    audit = task_audit(trained(soundnet([teacher]), labelled), labelled)
    sufficient, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    assert mean(sufficient, "loudness", "accuracy") == 1.0
    assert mean(sufficient, "loudness") > 1.9
    assert sufficient["silence at the ends"]["role"] == "artefact"
    for name in ("spectral centroid", "silence at the ends", SHUFFLED):
        assert mean(sufficient, name) < 0.1, name
    assert answers["accuracy"] > 0.97 and answers["entropy"] == pytest.approx(2, abs=0.01)
    assert answers["bits"] > 1.8
    assert abs(reliance["loudness"]["without"] - 0.25) < 0.12  # chance: the loudness of any other sound
    assert reliance["loudness"]["conflict"] > 0.95
    assert reliance.keys() == {"loudness"}


def test_each_direction_is_a_question(labelled, one_seed):
    audit = task_audit(trained(clustered(labelled), labelled), labelled)
    sufficient, answers, reliance = audit.sufficiency(), audit.answers(), audit.reliance()
    first, second = DIRECTIONS
    for name in (f"loudness ({first})", f"brightness ({second})", f"colour histogram of frames ({second})"):
        assert mean(sufficient, name, "accuracy") > 0.98, name
        assert sufficient[name]["question"] == name.partition("(")[2][:-1].replace(" ", "_")
    for name in (
        f"spectral centroid ({first})",
        f"motion energy ({second})",
        *(f"{SHUFFLED} ({d})" for d in DIRECTIONS),
    ):
        assert mean(sufficient, name) < 0.1, name
    assert f"loudness ({second})" not in sufficient and f"brightness ({first})" not in sufficient
    of_questions = [answers[f"bits_{direction.replace(' ', '_')}"] for direction in DIRECTIONS]
    assert min(of_questions) > 0.6 and answers["bits"] == pytest.approx(np.mean(of_questions))
    assert reliance[f"loudness ({first})"]["conflict"] > 0.95


def test_the_entry_has_no_random_answers_to_clusters_that_do_not_exist(labelled, one_seed):
    options = AuditOptions(only=("cues",))
    by_who = {"trained": [lambda: clustered(labelled)], "random": [xdc]}
    first, second = (Audit(labelled, options).entry(by_who) for _ in range(2))
    assert first == second
    assert not first["warnings"]
    assert first["task"].keys() == {"unit", "trained"} and first["task"]["unit"] == "clip"
    assert not ClipCues.fits(xdc()) and ClipCues.fits(clustered(labelled)) and ClipCues.fits(XdcForPreTraining)


def test_an_untrained_model_answers_nothing_and_has_no_best_cue(labelled, teacher, one_seed):
    by_who = {who: [lambda: soundnet([teacher])] for who in ("trained", "random")}
    entry = Audit(labelled, AuditOptions(only=("cues",))).entry(by_who)
    assert entry["task"]["trained"]["bits"]["mean"] < 0.01 and best_cue(entry) is None
    assert entry["cues"]["loudness"]["bits"]["mean"] > 1.9
    assert "question" not in entry["cues"]["loudness"]


def test_teachers_see_the_frames_once_for_all_models(labelled, teacher, one_seed, monkeypatch):
    seen, frames_of = [], SoundnetForPreTraining.frames_of
    monkeypatch.setattr(SoundnetForPreTraining, "frames_of", lambda *given: seen.append(1) or frames_of(*given))
    by_who = {"trained": [lambda: soundnet([teacher])] * 2, "random": [lambda: soundnet([teacher])]}
    entry = Audit(labelled, AuditOptions(only=("cues",))).entry(by_who)
    assert len(seen) == sum(-(-len(labelled.rows(split)) // labelled.batch_size) for split in SPLITS)
    assert entry["task"]["trained"]["bits"]["values"][0] == entry["task"]["trained"]["bits"]["values"][1]


@pytest.mark.parametrize("labels", ["own", "both", "joint"])
def test_questions_are_those_of_training(labelled, labels):
    """What `answer` says of `ask` is what `forward` computes, head after head."""
    model, batch = clustered(labelled, labels).eval(), next(iter(labelled.pretext_batches("test")))
    with torch.no_grad():
        output, asked = model(**batch), [model.ask(question=name, **batch) for name in model.questions]
        answers = [model.answer(question=n, **a.inputs) for n, a in zip(model.questions, asked, strict=True)]
    torch.testing.assert_close(torch.cat(answers), output.logits)
    assert torch.equal(torch.cat([each.labels for each in asked]), output.labels)


def test_each_teacher_is_a_question(labelled, teacher, tmp_path):
    other = ResNetForImageClassification.from_pretrained(teacher)
    with torch.no_grad():
        other.classifier[-1].bias.add_(0.1)
    other.save_pretrained(tmp_path)
    CLIPImageProcessor.from_pretrained(teacher).save_pretrained(tmp_path)
    model, batch = soundnet([teacher, str(tmp_path)]).eval(), next(iter(labelled.pretext_batches("test")))
    assert model.questions == ("teacher_1", "teacher_2")
    with torch.no_grad():
        output, question = model(**batch), model.ask(**batch)
        assert torch.equal(output.labels, question.labels)
        torch.testing.assert_close(model.answer(**question.inputs), output.logits)


def test_a_set_without_films_can_not_be_asked(labelled, teacher):
    sounds = LabelledSet(labelled.name, Inputs(labelled.inputs.by_name["audio"]), "half")
    build = [lambda: soundnet([teacher])]
    entry = Audit(sounds, AuditOptions(only=("cues",))).entry({"trained": build, "random": build})
    (warning,) = entry["warnings"]
    assert warning.startswith("No audit of the pretext task: its answers are made from video") and "cues" not in entry


def test_cards_name_the_question(labelled, one_seed):
    def build():
        return trained(clustered(labelled), labelled)

    entry = Audit(labelled, AuditOptions(only=("cues",))).entry({"trained": [build], "random": [xdc]})
    name, part = best_cue(entry)
    question = entry["cues"][name]["question"]
    answered = entry["task"]["trained"][f"bits_{question}"]["mean"]
    assert part == pytest.approx(entry["cues"][name]["bits"]["mean"] / answered)
    assert f"{part:.0%}" in {row[3] for row in cue_rows(entry)}
    text = ". ".join(sentences(entry))
    assert "of the pretext task per clip" in text and "means of 2 questions" in text
    assert f"{part:.0%} as many bits as the model's of {question.replace('_', ' ')}" in text
