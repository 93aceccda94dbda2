"""Combined modalities: six combinations, with real files, through the stream and the labelled set."""

import hashlib
import io
import json
from dataclasses import fields
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from conftest import CONFIGS, EMOJI
from media import RATE, film, sound
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPProcessor,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderProcessor,
    Wav2Vec2FeatureExtractor,
)

from hf_pretext.data.captions import Captions, label_number
from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Context, Inputs, PairArguments, inputs_options, modality_classes
from hf_pretext.modalities._clips import ClipArguments
from hf_pretext.modalities.audio import Audio, AudioArguments
from hf_pretext.modalities.image import Augmentation, Image, ImageArguments, default_processor
from hf_pretext.modalities.text import CaptionArguments, Corpus, Sentences, Text, TextArguments
from hf_pretext.modalities.video import Video, VideoArguments, default_video_processor
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.settings import StreamSettings

ROWS, BATCH, SIDE = 16, 4, 16
WORDS = ["red", "green", "blue", "a long grey word", "white", "black", "pink and purple", "brown"]


@pytest.fixture(scope="module")
def tokenizer(cache):
    return train_tokenizer(open_source([{"text": word} for word in WORDS], needed=("text",)), size=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns a folder with two tables of PNG, wav and mp4 files: JSON lines with paths, Parquet with bytes."""
    folder = tmp_path_factory.mktemp("files")
    columns = {"image": [], "audio": [], "video": [], "text": WORDS * 2, "label": list("ab" * (ROWS // 2))}
    for i in range(ROWS):
        PIL.Image.new("RGB", (24, 20), (10 * i, 255 - 10 * i, 99)).save(folder / f"{i}.png")
        tone = 0.5 * np.sin(2 * np.pi * (200 + 50 * i) * np.arange(RATE // 2) / RATE)
        (folder / f"{i}.wav").write_bytes(sound(samples=tone.astype(np.float32)[: RATE // 2 - 500 * (i % 3)]))
        (folder / f"{i}.mp4").write_bytes(film(seconds=1.0 + 0.1 * (i % 2)))
        for kind, suffix in (("image", "png"), ("audio", "wav"), ("video", "mp4")):
            columns[kind].append({"path": str(folder / f"{i}.{suffix}"), "bytes": None})
    tables = tmp_path_factory.mktemp("tables")
    rows = [{name: values[i] for name, values in columns.items()} for i in range(ROWS)]
    (tables / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    held = {
        kind: [{"bytes": Path(v["path"]).read_bytes(), "path": None} for v in columns[kind]]
        for kind in ("image", "video")
    }
    datasets.Dataset.from_dict({**held, "text": columns["text"], "label": columns["label"]}).to_parquet(
        tables / "rows.parquet"
    )
    return tables


def image():
    return Image(default_processor(SIDE), Augmentation())


def audio(**options):
    return Audio(Wav2Vec2FeatureExtractor(return_attention_mask=True), 0.25, **options)


def video(frames=3):
    return Video(default_video_processor(SIDE), frames)


COMBINATIONS = {
    "image": ("jsonl", lambda tokenizer: Inputs(image()), {"pixel_values": (BATCH, 3, SIDE, SIDE)}),
    "image x 2": (
        "parquet",
        lambda tokenizer: Inputs(image(), views={"image": 2}),
        {"pixel_values": (BATCH, 2, 3, SIDE, SIDE)},
    ),
    "image + text": (
        "parquet",
        lambda tokenizer: Inputs(image(), Text(tokenizer, 8), pair_label="text"),
        {
            "pixel_values": (BATCH, 3, SIDE, SIDE),
            "input_ids": (BATCH, 0),
            "attention_mask": (BATCH, 0),
            "labels": (BATCH,),
        },
    ),
    "audio": (
        "jsonl",
        lambda tokenizer: Inputs(audio()),
        {"input_values": (BATCH, RATE // 4), "attention_mask": (BATCH, RATE // 4)},
    ),
    "audio + video": (
        "parquet",  # has only the sound of the videos
        lambda tokenizer: Inputs(audio(padded=True), video()),
        {"input_values": (BATCH, RATE // 4), "pixel_values_videos": (BATCH, 3, 3, SIDE, SIDE)},
    ),
    "video + 3 texts": (
        "jsonl",
        lambda tokenizer: Inputs(video(), Text(tokenizer, 8), views={"text": 3}, pair_label="text"),
        {
            "pixel_values_videos": (BATCH, 3, 3, SIDE, SIDE),
            "input_ids": (BATCH, 3, 0),
            "attention_mask": (BATCH, 3, 0),
            "labels": (BATCH,),
        },
    ),
}


@pytest.fixture(params=COMBINATIONS)
def combination(request, files, tokenizer):
    suffix, make, shapes = COMBINATIONS[request.param]
    return str(files / f"rows.{suffix}"), make(tokenizer), shapes


def check_shapes(batch, shapes, rows=BATCH):
    assert set(batch) == set(shapes)
    for name, shape in shapes.items():
        seen = tuple(batch[name].shape)
        assert seen[1:] == tuple(n or s for n, s in zip(shape, seen, strict=True))[1:] and seen[0] == rows, name
        assert torch.isfinite(batch[name].float()).all()


def opened(data, inputs):
    return open_source(data, needed=inputs.needed)


@pytest.mark.parametrize("workers", [0, 2])
def test_six_combinations_come_out_of_the_stream(combination, workers):
    data, inputs, shapes = combination

    def batches(count):
        loader = StreamLoader(opened(data, inputs), inputs, BATCH, seed=5, num_workers=count)
        finished = [inputs.finish(batch) for _, batch in zip(range(5), loader, strict=False)]
        loader.close()
        return finished

    expected = batches(0)
    for batch in expected:
        check_shapes(batch, shapes)
    if workers:
        for batch, same in zip(batches(workers), expected, strict=True):
            assert all(torch.equal(batch[name], same[name]) for name in same)
    assert not all(torch.equal(a, b) for a, b in zip(expected[0].values(), expected[1].values(), strict=True))


def test_six_combinations_come_out_of_the_labelled_set(combination, monkeypatch):
    data, inputs, shapes = combination
    labelled = LabelledSet(data, inputs, "label", batch_size=BATCH, workers=2)
    assert {split: len(labels) for split, labels in labelled.labels.splits.items()} == {
        "train": 12,
        "validation": 1,
        "test": 3,
    }
    assert len(labelled) == ROWS and not labelled.left_out and labelled.cut_from_train == {"test", "validation"}
    batches = labelled.pretext_batches("train")
    assert len(list(batches)) == len(batches) == 3
    for batch in batches:
        check_shapes(batch, shapes)
    for kind, modality in labelled.inputs.by_name.items():  # each encoder's inputs, without views
        (batch,) = labelled.batches("test", kind)
        assert len(batch[modality.encoder_input]) == 3 and set(batch) <= set(modality.outputs)
    monkeypatch.setattr("hf_pretext.evaluation.labelled_set.KEPT_BYTES", 0)
    streamed = LabelledSet(data, inputs, "label", batch_size=BATCH)
    assert streamed.pixels is None
    for kept, again in ((labelled.batches, streamed.batches), (labelled.pretext_batches, streamed.pretext_batches)):
        for batch, same in zip(kept("train"), again("train"), strict=True):
            assert batch.keys() == same.keys() and all(torch.equal(batch[name], same[name]) for name in batch)


def digest(batches) -> str:
    content = hashlib.blake2b(digest_size=8)
    for batch in batches:
        for name in sorted(batch):
            content.update(name.encode())
            content.update(np.ascontiguousarray(torch.as_tensor(batch[name]).numpy()).tobytes())
    return content.hexdigest()


def stream_digest(source, inputs) -> str:
    loader = StreamLoader(source, inputs, 8, seed=3)
    batches = [batch for _, batch in zip(range(3), loader, strict=False)]
    loader.close()
    return digest(batches)


def test_batches_are_bit_equal_to_recorded_ones(cache):
    """The digests were recorded with earlier classes. They change with any crop, random number or token."""
    images = Image(default_processor(24), Augmentation(crop_scale=0.5, color_jitter=0.3))
    assert stream_digest(open_source(str(EMOJI)), Inputs(images)) == "036d9796f9d11f49"
    tokenizer = train_tokenizer(open_source(str(EMOJI), needed=("text",)), size=500)
    columns = {"image": None, "text": "text", "other_captions/keywords": "keywords"}
    texts = Text(tokenizer, 6, Captions(["other_captions/keywords"], [0.3, 0.7]))
    source = open_source(str(EMOJI), columns=columns, needed=tuple(columns))
    assert stream_digest(source, Inputs(images, texts, pair_label="text")) == "59670933251995d5"


def test_one_position_in_time_is_drawn_where_a_kind_is_timed(files, tokenizer):
    (row,) = open_source(str(files / "rows.parquet"), needed=("video", "text", "image")).read(0, 0, 1)
    positions = []

    class Sounds(Audio):
        def __call__(self, row, random, at):
            positions.append(("audio", at))
            return super().__call__(row, random, at)

    class Films(Video):
        def __call__(self, row, random, at):
            positions.append(("video", at))
            return super().__call__(row, random, at)

    sounds, films = Sounds(Wav2Vec2FeatureExtractor(), 0.25), Films(default_video_processor(SIDE), 2)
    inputs = Inputs(sounds, films)
    inputs(row, np.random.default_rng(0))
    expected = np.random.default_rng(0).random()
    assert positions == [("audio", expected), ("video", expected)]
    positions.clear()
    inputs(row, None)
    assert positions == [("audio", 0.5), ("video", 0.5)]
    draws, same = np.random.default_rng(3), np.random.default_rng(3)
    Inputs(image(), Text(tokenizer, 8))(row, draws)
    same.random(13, dtype=np.float32)  # only those of a crop and its colours
    assert draws.bit_generator.state == same.bit_generator.state


def test_a_row_that_lacks_a_kind_gives_fewer(files, tokenizer):
    inputs = Inputs(image(), Text(tokenizer, 8), pair_label="text")
    row = open_source(str(files / "rows.parquet"), needed=("image", "text")).read(0, 2, 3)[0]
    random = np.random.default_rng(0)
    assert set(inputs(row, random)) == {"pixel_values", "colors", "input_ids", "attention_mask", "cut", "labels"}
    assert inputs(row, random)["labels"] == label_number("blue")
    assert set(inputs({"image": row["image"]}, random)) == {"pixel_values", "colors"}
    assert set(inputs({"text": "red"}, random)) == {"input_ids", "attention_mask", "cut"}
    with pytest.raises(BadSample, match="no image or text in this row"):
        inputs({"sound": 1}, random)
    with pytest.raises(BadSample, match="damaged|not an image"):
        inputs({"image": {"bytes": b"no image", "path": None}, "text": "red"}, random)


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
@pytest.mark.parametrize(
    ("option", "kinds"),
    [
        ({"max_sample_bytes": 50}, {"image", "audio", "video"}),
        ({"max_image_pixels": 100}, {"image", "video"}),
        ({"max_video_frames": 5}, {"video"}),
        ({"max_sound_seconds": 0.1}, {"audio"}),
    ],
)
def test_the_limits_of_a_run_reach_each_kind(files, kind, option, kinds):
    made = modality_classes([kind])[kind]
    row = open_source(str(files / "rows.jsonl"), needed=(kind,)).read(0, 2, 3)[0]
    for given, refuses in (({}, False), (option, kind in kinds)):
        settings, *own = (
            make(**{name: value for name, value in given.items() if name in {field.name for field in fields(make)}})
            for make in (StreamSettings, *made.options)
        )
        modality = made.from_options({type(each): each for each in own}, Context(limits=settings.limits))
        for random in (None, np.random.default_rng(0)):  # evaluation, training
            call = modality.evaluation() if random is None else modality
            if refuses:
                with pytest.raises(BadSample, match=next(iter(option))):
                    call(row, random, 0.5)
            else:
                assert call(row, random, 0.5)


def test_columns_of_one_name_are_kept_apart(files, tokenizer):
    inputs = Inputs(audio(), Text(tokenizer, 8))
    row = {"audio": {"bytes": sound(), "path": None}, "text": "red"}
    example = inputs(row, np.random.default_rng(0))
    assert example["sound_length"] == RATE // 4 and len(example["attention_mask"]) == len(example["input_ids"])
    assert inputs.fills == {"input_values": 0.0, "audio_attention_mask": 0, "input_ids": 0, "attention_mask": 0}
    batch = inputs.finish({name: torch.as_tensor(value)[None] for name, value in example.items()})
    assert batch["audio_attention_mask"].shape == (1, RATE // 4)
    assert set(inputs.of_kind(batch, "audio")) == {"input_values", "attention_mask"}
    assert set(inputs.of_kind(batch, "text")) == {"input_ids", "attention_mask"}
    visual = Inputs(video(), image())
    visual.by_name["video"].encoder_input = "pixel_values"
    assert set(visual.noise()[0]) == {"pixel_values", "video_pixel_values"}


def test_evaluation_draws_nothing(tokenizer):
    inputs = Inputs(image(), Text(tokenizer, 8, Captions(["others"])), pair_label="speaker")
    content = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(content, "PNG")
    row = {"image": {"bytes": content.getvalue(), "path": None}, "text": "red", "others": "blue", "speaker": 3}
    first, second = (inputs.evaluation()(row, np.random.default_rng(seed)) for seed in (0, 1))
    assert torch.equal(first["pixel_values"], second["pixel_values"]) and "colors" not in first
    assert first["labels"] == label_number("red") and inputs(row, None)["labels"] == label_number(3)


def test_noise_has_the_shapes_of_batches(combination):
    data, inputs, shapes = combination
    kinds = list(inputs.by_name)
    everything, *alone = inputs.noise(kinds)
    assert set(everything) == set(shapes) and {len(value) for value in everything.values()} == {2}
    assert {name for part in alone for name in part} == set(shapes) - {"labels"} and len(alone) == len(kinds)
    example = inputs.finish(
        {n: torch.as_tensor(v)[None] for n, v in inputs(opened(data, inputs).read(0, 0, 1)[0], None).items()}
    )
    for name, value in example.items():
        assert everything[name].dtype == value.dtype and everything[name].ndim == value.ndim, name


def test_shapes_by_name(tokenizer):
    text = Text(tokenizer, 8)
    assert Inputs(image(), text).shape() == {
        "image_size": SIDE,
        "vocab_size": len(tokenizer),
        "max_length": 8,
        "pad_token_id": 0,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    larger = Video(default_video_processor(2 * SIDE), 3)
    assert Inputs(image(), larger).shape() == {"image_size": SIDE, "video_image_size": 2 * SIDE, "num_frames": 3}
    assert Inputs(audio(), video()).shape() == {
        "sampling_rate": RATE,
        "seconds": 0.25,
        "num_mel_bins": 64,
        "spectrogram_frames": 23,
        "image_size": SIDE,
        "num_frames": 3,
    }


def test_processors_of_several_kinds(tokenizer, tmp_path):
    assert Inputs(image()).processor.crop_size["height"] == SIDE
    pairs = Inputs(image(), Text(tokenizer, 8))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(CONFIGS["vit"](), CONFIGS["bert"]())
    assert type(pairs.combine(config)) is VisionTextDualEncoderProcessor is type(pairs.processor)
    assert type(pairs.combine(CLIPConfig())) is CLIPProcessor and pairs.processor.tokenizer is tokenizer
    assert type(pairs.evaluation().processor) is CLIPProcessor
    both = Inputs(audio(), video())
    both.combine(CONFIGS["vit"]())
    both.processor.save_pretrained(tmp_path)
    assert Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "audio").sampling_rate == RATE
    assert (tmp_path / "video" / "video_preprocessor_config.json").exists()
    Inputs(video(), Text(tokenizer, 8)).processor.save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "text")) == len(tokenizer)


def test_options_follow_from_the_kinds():
    assert inputs_options(("text",)) == (TextArguments,)
    assert inputs_options(("text",), views=("text",)) == (TextArguments, CaptionArguments)
    assert modality_classes(("text",), one_text_a_row=True) == {"text": Sentences}
    assert inputs_options(("text",), one_text_a_row=True) == (TextArguments,)
    *first, pairs, encoders = inputs_options(("image", "text"))
    assert first == [ImageArguments, Augmentation, TextArguments, CaptionArguments] and pairs is PairArguments
    assert encoders(text_encoder="bert").text_encoder == "bert" and encoders().image_encoder is None
    assert "Start the text encoder from this checkpoint" in encoders.__doc__
    assert inputs_options(("audio", "video"))[:4] == (ClipArguments, AudioArguments, VideoArguments, Augmentation)
    assert modality_classes(("text",)) == {"text": Corpus} and modality_classes(("text", "image"))["text"] is Text
    with pytest.raises(ValueError, match="No modality 'smell' in this version"):
        inputs_options(("smell",))


def test_what_cannot_be_composed_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"modalities \['image', 'image'\]. Give one or more, each once"):
        Inputs(image(), image())
    with pytest.raises(
        ValueError, match="views contains text, which is not a modality of these inputs. Use only image"
    ):
        Inputs(image(), views={"text": 2})
    assert (
        Inputs(image(), Text(tokenizer, 8)).samples == "pairs"
        and Inputs(audio(), video()).samples == "audio clips and videos"
    )
