"""What the report shows under its curves: which panel fits a model, and what is in it."""

import copy

import datasets
import numpy as np
import pytest
import torch
from captioned import NAMES, Knowing, captioned, rows_of, tokenizer_of_names
from conftest import CONFIGS
from describing import Describing
from matplotlib.figure import Figure
from torch import nn
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext import MaskedLMForPreTraining
from hf_pretext.cards import panels
from hf_pretext.data.captions import normalised
from hf_pretext.data.hold_out import HeldOut
from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation.health_rows import HealthRows
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.transfer import Labels
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.utils.places import evenly

CPU = torch.device("cpu")
COLORS = ("green", "blue", "grey") * 2


@pytest.fixture(scope="module")
def tokenizer(cache):
    return tokenizer_of_names()


@pytest.fixture(scope="module")
def images():
    """Twelve images in each split, of four labels."""
    rows = [{"image": row["image"].resize((32, 32)), "colour": row["colour"]} for row in rows_of()]
    features = datasets.Features({"image": datasets.Image(), "colour": datasets.Value("string")})
    data = {split: datasets.Dataset.from_list(rows, features) for split in ("train", "validation", "test")}
    return LabelledSet(datasets.DatasetDict(data), Inputs(Image(default_processor(32))), "colour", batch_size=5)


def encoders_of(*names: str):
    """Models that only have an encoder of images, by who they are."""
    models = {}
    for name in names:
        models[name] = type("Model", (nn.Module,), {"inputs": ("image",), "capabilities": ()})()
        models[name].encoder = build_encoder(CONFIGS["resnet"]()).eval()
        models[name].encoders = {"image": models[name].encoder}
    return models


def held_out(count: int, trained_on: bool = False) -> HealthRows:
    """The first images of `NAMES`, without their labels."""
    source = open_source([{"image": row["image"].resize((32, 32))} for row in rows_of()])
    held = HeldOut(source, [(0, i) for i in range(count)], trained_on)
    return HealthRows([held], Inputs(Image(default_processor(32), Augmentation())), batch_size=5)


def numbers_of(pixels: torch.Tensor) -> np.ndarray:
    """The places in `NAMES` of images, uint8 `(..., 3, 32, 32)`."""
    return (pixels[..., 0, 0, 0] // 20).numpy()


def results_of(*names: str) -> dict:
    return {"transfer": {"details": {name: [{"knn": {"layer": -1}}] for name in names}}}


def drawn(panel) -> Figure:
    draw, height = panel
    figure = Figure(figsize=(12, height))
    draw(figure)
    return figure


def test_each_query_has_its_neighbours_by_both_encoders(images):
    who = ("trained", "random")
    panel = panels.transfer_panel(encoders_of(*who), images, results_of(*who), CPU)
    columns = 2 + 2 * panels.RANKED + 1  # the query, the neighbours by each, and room between them
    figure = drawn(panel)
    assert len(figure.axes) == panels.QUERIES * columns
    assert sum(bool(axes.images) for axes in figure.axes) == panels.QUERIES * (1 + 2 * panels.RANKED)
    assert [text.get_text() for axes in figure.axes[:columns] for text in axes.texts] == [
        "query", "nearest neighbours, trained encoder", "nearest neighbours, random encoder",
    ]  # fmt: skip


def test_a_neighbour_is_framed_where_it_has_the_querys_label(images):
    draw, _ = panels.transfer_panel(encoders_of("trained"), images, results_of("trained"), CPU)
    pixels, same = draw.keywords["nearest"]["nearest neighbours, trained encoder"]
    labels, queries = images.labels.splits, evenly(len(NAMES), panels.QUERIES)
    known = dict(zip(images.pixels["train"][:, 0, 0, 0].tolist(), labels["train"], strict=True))
    found = np.vectorize(known.get)(pixels[:, :, 0, 0, 0].numpy())
    assert (same == (found == labels["test"][queries][:, None])).all() and 0 < same.mean() < 1
    assert same[:, 0].all()  # train holds each image of test: the nearest is itself


def test_without_labels_held_out_images_have_their_neighbours_and_no_frame(monkeypatch):
    """Neighbours are the images of the nearest numbers, by features that are numbers on a line."""

    def on_a_line(encoder, batches, layers, **options):
        numbers = torch.cat([(batch["pixel_values"][:, 0, 0, 0] + 1) * 127.5 / 20 for batch in batches])
        return {layers[0]: torch.stack([numbers / 40, torch.ones_like(numbers)], 1)}

    monkeypatch.setattr(panels, "extract", on_a_line)
    monkeypatch.setattr(panels, "RANKED", 4)
    (panel,) = panels.panels_without_labels(encoders_of("trained", "random"), held_out(12), CPU)
    shown = panel[0].keywords
    queries = evenly(12, panels.QUERIES)
    assert numbers_of(shown["queries"]).tolist() == queries
    pixels, framed = shown["nearest"]["nearest neighbours, trained encoder"]
    distances = abs(numbers_of(pixels).astype(int) - np.array(queries)[:, None])
    assert distances.min() == 1 and (np.diff(distances) >= 0).all() and distances[0].tolist() == [1, 2, 3, 4]
    assert framed.shape == (len(queries), 4) and not framed.any()
    assert shown["note"].startswith("queries and neighbours: held-out images; without labels, no frame marks")
    figure = drawn(panel)
    assert sum(bool(axes.images) for axes in figure.axes) == panels.QUERIES * (1 + 2 * 4)


def test_few_images_without_labels_have_fewer_neighbours():
    (panel,) = panels.panels_without_labels(encoders_of("trained"), held_out(3, trained_on=True), CPU)
    pixels, _ = panel[0].keywords["nearest"]["nearest neighbours, trained encoder"]
    assert [set(row) for row in numbers_of(pixels).tolist()] == [{1, 2}, {0, 2}, {0, 1}]
    assert "queries and neighbours: images that were trained on; " in panel[0].keywords["note"]
    assert panels.panels_without_labels(encoders_of("trained"), held_out(1), CPU) == []


def test_texts_without_labels_have_no_panel():
    model = type("Model", (nn.Module,), {"inputs": ("text",), "encoders": {"text": None}})()
    assert panels.panels_without_labels({"trained": model}, held_out(3), CPU) == []


def test_a_caption_is_shown_with_the_images_ranked_first_for_it(tokenizer, monkeypatch):
    monkeypatch.setattr(panels, "QUERIES", 99)
    labelled = captioned(tokenizer)
    panel = panels.transfer_panel({"trained": Knowing(tokenizer)}, labelled, {}, CPU)
    ranked = panel[0].keywords["ranked"]
    assert [len(pixels) for pixels, _ in ranked.values()] == [panels.RANKED] * len(NAMES)
    assert all(own[0] for _, own in ranked.values())  # it knows them all
    assert {normalised(caption) for caption, (_, own) in ranked.items() if sum(own) == 2} == {"green box"}
    figure = drawn(panel)
    assert len(figure.axes) == len(NAMES) * (1 + panels.RANKED) + 1  # and the map
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == labelled.labels.names


def test_the_first_images_are_shown_with_generated_captions_correct_or_wrong(tokenizer, monkeypatch):
    monkeypatch.setattr(panels, "DESCRIBED", 11)
    panel = panels.captions_panel(Describing(tokenizer, {3: 4}), captioned(tokenizer), CPU)
    captions, figure = panel[0].keywords["captions"], drawn(panel)
    assert [reference for reference, _, _ in captions] == NAMES[:11]
    assert [proposed for _, proposed, _ in captions] == [*NAMES[:3], NAMES[4], *NAMES[4:11]]
    assert [is_correct for *_, is_correct in captions] == [True] * 3 + [False] + [True] * 7
    assert len(figure.axes) == 2 * 2 * panels.PER_ROW and sum(bool(axes.images) for axes in figure.axes) == 11
    ours, theirs = figure.axes[panels.PER_ROW + 3].texts  # below the fourth image
    assert (ours.get_text(), theirs.get_text()) == (NAMES[4], NAMES[3])
    assert ours.get_color() == "black" != figure.axes[panels.PER_ROW].texts[0].get_color()
    assert panels.captions_panel(Knowing(tokenizer), captioned(tokenizer), CPU) is None


def test_a_set_too_large_to_be_kept_has_no_panel_of_images(tokenizer, images, monkeypatch):
    labelled = captioned(tokenizer)
    for some in (images, labelled):
        monkeypatch.setattr(some, "pixels", None)
    assert panels.transfer_panel(encoders_of("trained"), images, results_of("trained"), CPU) is None
    assert panels.transfer_panel({"trained": Knowing(tokenizer)}, labelled, {}, CPU) is None
    assert panels.captions_panel(Describing(tokenizer), labelled, CPU) is None


class Films(LabelledSet):
    """Stands for a labelled set of eight films a split: film i is of brightness 30 i, and hums on its own pitch."""

    def __init__(self):
        bright = (30 * torch.arange(8, dtype=torch.uint8)).view(8, 1, 1, 1).expand(8, 3, 16, 16)
        time = torch.arange(1_600) / 16_000
        waves = torch.stack([0.25 * torch.sin(2 * np.pi * (300 + 700 * i) * time) for i in range(8)])
        self.pixels = dict.fromkeys(("train", "test"), bright)
        self.inputs = Inputs(Audio(Wav2Vec2FeatureExtractor(), 0.1), Video(default_video_processor(16), 1))
        self.labels = Labels({split: np.arange(8) % 2 for split in ("train", "test")}, ["a", "b"])
        self.waves, self._kind_labels = {"input_values": waves, "sound_length": torch.full((8,), 1_600)}, {}

    def examples(self, split, kind):
        yield from ({name: value[part] for name, value in self.waves.items()} for part in (slice(5), slice(5, 8)))

    def batches(self, split, kind=None):
        return [{"rows": torch.arange(8)}]

    all_batches = batches


def test_sounds_are_drawn_as_spectrograms_with_low_pitch_below():
    films = Films()
    images = panels.shown(films, "audio", "test", np.array([[0, 7], [3, 3]]))
    assert images.dtype == torch.uint8 and images.shape[:3] == (2, 2, 3)
    loudest = images.float().sum(2).sum(-1).argmax(-1)  # row of the image, 0 at the top
    assert loudest[0, 0] > loudest[1, 0] > loudest[0, 1] and torch.equal(images[1, 0], images[1, 1])
    assert torch.equal(panels.shown(films, "video", "test", np.array([2]))[0], films.pixels["test"][2])


def test_sounds_and_frames_that_are_ranked_first_are_framed_if_they_are_of_one_clip():
    class Crossing(nn.Module):
        """Knows the clip of even rows, and takes the others for the next."""

        inputs, capabilities = ("audio", "video"), ("embed",)

        def embed(self, kind, rows):
            return torch.eye(9)[torch.where((rows % 2 == 1) & (torch.tensor(kind == "audio")), rows + 1, rows)]

    draw, height = panels.transfer_panel({"trained": Crossing()}, Films(), {}, CPU)
    of_sounds, of_frames = (panel.keywords for panel in draw.keywords["panels"])
    (frames, framed), (sounds, _) = (next(iter(each["nearest"].values())) for each in (of_sounds, of_frames))
    assert list(of_sounds["nearest"]) == ["frames ranked first"] and of_sounds["note"] == "blue frame: of the same clip"
    assert framed[:, 0].tolist() == [True, False] * 4
    assert torch.equal(of_frames["queries"], Films().pixels["test"])
    assert torch.equal(frames[0, 0], Films().pixels["test"][0]) and torch.equal(sounds[0, 0], of_sounds["queries"][0])
    figure = drawn((draw, height))
    assert sum(bool(axes.images) for axes in figure.axes) == 2 * 8 * (1 + panels.CROSSED)


def test_sounds_have_their_neighbours_as_spectrograms(monkeypatch):
    monkeypatch.setattr(panels, "extract", lambda encoder, batches, layers, **options: {-1: torch.eye(8)})
    model = type("Model", (nn.Module,), {"inputs": ("audio", "video"), "capabilities": (), "encoder": None})()
    draw, _ = panels.transfer_panel({"trained": model}, Films(), results_of("trained"), CPU)
    (drawn_sounds, same), queries = next(iter(draw.keywords["nearest"].values())), draw.keywords["queries"]
    assert torch.equal(drawn_sounds[:, 0], queries) and same[:, 0].all()


def test_one_long_word_of_each_text_is_masked_and_guessed(tokenizer):
    config = CONFIGS["bert"]()
    config.vocab_size = len(tokenizer)
    model = MaskedLMForPreTraining.from_encoder(build_encoder(config), mask_token_id=tokenizer.mask_token_id).eval()
    texts = [" ".join(NAMES[i] for i in range(first, first + 4)) + " green" * 9 for first in range(8)]
    rows = panels.predicted_words(model, tokenizer, ["red box", *texts])  # the first is too short
    assert len(rows) == panels.WORDS
    for text, word, guesses in rows:
        (likely,) = guesses.values()
        assert text.count("____") == 1 and len(likely) == panels.GUESSES and len(word) >= panels.LONG
        assert any(each.startswith(" ".join(text.replace("____", word).split())[:20]) for each in texts)
    assert panels.predicted_words(model, tokenizer, ["red box"]) == []


class Narrated(LabelledSet):
    """Stands for a labelled set of six films, each of one number, with a text whose third word has this number."""

    def __init__(self, tokenizer):
        video = Video(default_video_processor(16), 1)
        video.encoder_input = "pixel_values"
        self.inputs, self.order = Inputs(Text(tokenizer, 16), video), list(range(6))
        self.labels, self._rows = Labels({"test": np.zeros(6)}, ["a"]), {"test": []}

    def captions(self, split):
        return [f"red box {COLORS[i]} bar" for i in range(6)]

    def reordered(self, split, order):
        other = copy.copy(self)
        other.order = order
        return other

    def batches(self, split, kind=None):
        assert kind == "video"
        return [{"pixel_values": torch.tensor(self.order).view(-1, 1, 1, 1, 1).expand(-1, 1, 3, 16, 16)}]


def test_a_masked_word_is_predicted_with_its_video_and_without(tokenizer):
    class Seeing(nn.Module):
        """Predicts the colour of the video, or without it that of the first."""

        inputs, capabilities = ("text", "video"), ("predict_tokens",)
        task = type("Task", (), {"mask_token_id": tokenizer.mask_token_id})

        def predict_tokens(self, masked, input_ids, attention_mask, pixel_values=None):
            assert (input_ids[masked] == tokenizer.mask_token_id).all() and masked.sum() == 1
            number = 0 if pixel_values is None else int(pixel_values.flatten()[0])
            word = tokenizer.convert_tokens_to_ids(COLORS[number])
            return torch.eye(len(tokenizer))[word][None]

    draw, _ = panels.transfer_panel({"trained": Seeing()}, Narrated(tokenizer), {"transfer": {}}, CPU)
    rows = draw.keywords["predictions"]
    assert len(rows) == panels.FILMS
    for text, word, guesses in rows:
        assert text == "red box ____ bar" and list(guesses) == ["with video", "without"]
        assert guesses["with video"][0] == word and guesses["without"][0] == COLORS[0]


def test_a_model_of_videos_draws_the_middle_frames_of_test_clips():
    class Drawing(nn.Module):
        inputs, capabilities = ("audio", "video"), ("illustrate",)

        def illustrate(self, input_values, pixel_values):
            assert len(input_values) == len(pixel_values)
            return {"frames": pixel_values, "inverted": -pixel_values}

    class Shown:
        """Stands for a labelled set of 20 clips of 3 frames, of brightness 10 i + frame."""

        def __init__(self, order):
            video = Video(default_video_processor(16), 3)
            video.encoder_input = "pixel_values"
            self.inputs, self.order, self.pixels = Inputs(Audio(Wav2Vec2FeatureExtractor(), 0.1), video), order, [1]
            self.labels = type("Labels", (), {"splits": {"test": np.zeros(20)}})

        def reordered(self, split, order):
            return Shown(order)

        def joined_batches(self, split):
            clips = torch.stack([10.0 * i + torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 16, 16) for i in self.order])
            yield {"input_values": torch.zeros(len(clips), 9), "pixel_values": (clips / 127.5) - 1}

    draw, height = panels.illustration_panel(Drawing(), Shown(None), CPU)
    rows = draw.keywords["rows"]
    assert rows["frames"][:, 0, 0, 0].tolist() == [20 * i + 1 for i in range(panels.SHOWN)]
    assert rows["inverted"][0, 0, 0, 0] == 254 and height == 2 * panels.ROW
    assert len(drawn((draw, height)).axes) == 2 * (1 + panels.SHOWN)
