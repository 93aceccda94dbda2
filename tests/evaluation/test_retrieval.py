"""Retrieval against a reference that counts with loops, its chance level against embeddings drawn at random."""

import json
import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
import torch
from media import RATE, sound, video
from torch import nn
from transformers import Wav2Vec2FeatureExtractor

from hf_pretext.evaluation import retrieval as module
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.measure import chance_levels, measure_model
from hf_pretext.evaluation.retrieval import MEASURE, chance, numbered, ranks, retrieval
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.video import Video, default_video_processor


def reference(queries, candidates, wanted, given, ks):
    """R@k, median rank and the queries left out, one query and one candidate at a time."""
    positions, left_out = [], 0
    for query, number in zip(queries.tolist(), wanted, strict=True):
        if number not in given:
            left_out += 1
            continue
        cosines = [
            sum(a * b for a, b in zip(query, other, strict=True)) / (math.hypot(*query) * math.hypot(*other))
            for other in candidates.tolist()
        ]
        best = max(cosine for cosine, other in zip(cosines, given, strict=True) if other == number)
        ahead = [o for cosine, o in zip(cosines, given, strict=True) if o != number and cosine >= best - 1e-6]
        positions.append(len(ahead) + 1)
    recalls = {f"r{k}": sum(rank <= k for rank in positions) / len(positions) for k in ks}
    return {**recalls, "median_rank": statistics.median(positions), "left_out": left_out}


def all_directions(images, texts, image_ids, text_ids, ks=(1, 5, 10)):
    forward = reference(images, texts, image_ids, text_ids, ks)
    backward = reference(texts, images, text_ids, image_ids, ks)
    to_images = {f"text_to_image_{name}": value for name, value in backward.items()}
    return {**{f"image_to_text_{name}": value for name, value in forward.items()}, **to_images}


def related(image_ids, text_ids, noise=1.0, dim=6, seed=0):
    """Embeddings near one another where ids are equal."""
    random = torch.Generator().manual_seed(seed)
    names = sorted({*image_ids, *text_ids})
    centres = torch.randn(len(names), dim, generator=random)
    images, texts = (
        centres[[names.index(one) for one in ids]] + noise * torch.randn(len(ids), dim, generator=random)
        for ids in (image_ids, text_ids)
    )
    return 3 * images, texts


PAIRS = (list(range(20)), list(range(20))[::-1])
CAPTIONS = ([f"image {i}" for i in range(9)], [f"image {i % 9}" for i in range(40)])  # several of each image
STYLES = ([i % 13 for i in range(39)], list(range(13)))  # several images of each text
MANY = ([i % 7 for i in range(30)], [i * i % 7 for i in range(25)])  # 3, 5 and 6 have no text
DISTRACTORS = (["a", "b", "c", "x"], ["c", "a", "y", "b", "z", "a"])


@pytest.mark.parametrize("ids", [PAIRS, CAPTIONS, STYLES, MANY, DISTRACTORS])
def test_metrics_are_those_counted_one_by_one(ids):
    images, texts = related(*ids, noise=2.0, seed=1)
    expected = all_directions(images, texts, *ids)
    assert retrieval(images, texts, *ids) == pytest.approx(expected)
    assert 0 < expected["image_to_text_r1"] < 1  # neither trivial nor hopeless


def test_the_best_of_several_right_answers_counts_and_the_others_are_not_in_its_way():
    images, texts = torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 0.1], [1, 0.2], [1, 0.3], [0, 1], [1, 0.25]])
    metrics = retrieval(images, texts, [7], [7, 7, 7, 7, 8], ks=(1, 2))
    assert (metrics["image_to_text_r1"], metrics["image_to_text_median_rank"]) == (1.0, 1.0)
    assert metrics["text_to_image_left_out"] == 1
    worse = retrieval(images, texts, [7], [8, 8, 7, 7, 8], ks=(1, 3, 4))
    assert (worse["image_to_text_r3"], worse["image_to_text_r4"], worse["image_to_text_median_rank"]) == (0.0, 1.0, 4.0)


def test_median_rank_is_between_the_middle_two():
    images = torch.eye(4)
    texts = torch.tensor([[1.0, 0, 0, 0], [0, 0.1, 1, 0], [0, 1, 0.1, 0], [0, 0, 0, 1]])
    assert retrieval(images, texts, range(4), range(4))["image_to_text_median_rank"] == 1.5  # of ranks 1, 1, 2, 2


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_change_nothing(chunk):
    images, texts = related(*CAPTIONS)
    assert retrieval(images, texts, *CAPTIONS, chunk=chunk) == retrieval(images, texts, *CAPTIONS)


def test_no_more_than_a_chunk_of_queries_is_compared_at_a_time(monkeypatch):
    sizes, normalize = [], torch.nn.functional.normalize
    monkeypatch.setattr(module.F, "normalize", lambda x, dim: sizes.append(len(x)) or normalize(x, dim=dim))
    numbers = torch.arange(100)
    ranks(torch.randn(100, 3), torch.randn(100, 3), numbers, numbers, chunk=30)
    assert sizes == [100, 30, 30, 30, 10]  # all candidates once, then the queries


@pytest.mark.parametrize("dim", [3, 512, 2048])
@pytest.mark.parametrize("chunk", [1, 512])
def test_one_vector_for_everything_finds_nothing(dim, chunk):
    features = torch.randn(1, dim).repeat(211, 1)  # their own cosines differ in the last bits
    metrics = retrieval(features, 2 * features, range(211), range(211), chunk=chunk)
    expected = {"r1": 0, "r5": 0, "r10": 0, "median_rank": 211, "left_out": 0}
    assert metrics == {f"{way}_{k}": v for way in ("image_to_text", "text_to_image") for k, v in expected.items()}


def test_vectors_of_no_length_find_nothing():
    metrics = retrieval(torch.zeros(30, 4), torch.randn(30, 4), range(30), range(30))
    assert metrics["image_to_text_r10"] == metrics["text_to_image_r10"] == 0


def test_texts_that_are_given_twice_under_two_ids_take_each_others_place():
    images = texts = torch.eye(3)[[0, 0, 1]]
    assert retrieval(images, texts, [0, 1, 2], [0, 1, 2])["image_to_text_r1"] == pytest.approx(1 / 3)
    merged = retrieval(images, torch.eye(3)[[0, 1]], ["a", "a", "b"], ["a", "b"])
    assert merged["image_to_text_r1"] == merged["text_to_image_r1"] == 1.0


def test_ids_may_come_in_lists_arrays_and_tensors_and_features_in_half_precision():
    images, texts = related(*STYLES)
    expected = retrieval(images, texts, *STYLES)
    for kind in (tuple, np.array, torch.tensor, lambda ids: [np.int64(one) for one in ids]):
        assert retrieval(images, texts, kind(STYLES[0]), STYLES[1]) == expected
    assert retrieval(images.double(), texts, *STYLES) == expected
    assert retrieval(images, texts, np.array(STYLES[0]).astype(str), [str(one) for one in STYLES[1]]) == expected
    halves = images.bfloat16(), texts.bfloat16()
    assert retrieval(*halves, *STYLES) == retrieval(halves[0].float(), halves[1].float(), *STYLES)


@pytest.mark.parametrize("ids", [PAIRS, CAPTIONS, STYLES, MANY, DISTRACTORS])
def test_chance_is_the_mean_over_random_embeddings(ids):
    draws = [related(*ids, noise=1e4, seed=seed) for seed in range(400)]
    metrics = [retrieval(*draw, *ids) for draw in draws]
    expected = chance(*ids)
    assert set(metrics[0]) - set(expected) == {"image_to_text_left_out", "text_to_image_left_out"}
    for name, value in expected.items():
        if "median" not in name:
            values = [one[name] for one in metrics]
            assert value == pytest.approx(np.mean(values), abs=max(4 * np.std(values) / 20, 1e-9)), name


def test_chance_where_it_is_known():
    metrics = chance(range(100), range(100), ks=(1, 10, 100, 500))
    expected = {"r1": 0.01, "r10": 0.1, "r100": 1.0, "r500": 1.0, "median_rank": 50.5}
    assert metrics == pytest.approx(
        {f"{w}_{k}": v for w in ("image_to_text", "text_to_image") for k, v in expected.items()}
    )
    several = chance(["a", "b", "nothing"], ["a"] * 3 + ["b"] * 5 + ["other"] * 4, ks=(2,))
    missed = (math.comb(9, 2) + math.comb(7, 2)) / (2 * math.comb(12, 2))
    assert several["image_to_text_r2"] == pytest.approx(1 - missed)
    assert several["text_to_image_r2"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("ids", [CAPTIONS, STYLES, (list(range(75)), [i % 75 for i in range(300)])])
def test_chance_of_the_median_is_the_median_of_all_ranks(ids):
    draws = [related(*ids, noise=1e4, seed=seed) for seed in range(200)]
    wanted, given = numbered(*ids)
    for way, drawn in {
        "image_to_text": [ranks(images, texts, wanted, given) for images, texts in draws],
        "text_to_image": [ranks(texts, images, given, wanted) for images, texts in draws],
    }.items():
        assert chance(*ids)[f"{way}_median_rank"] == pytest.approx(np.median(torch.cat(drawn)), rel=0.05, abs=0.5)


def test_random_embeddings_are_at_chance_on_many():
    ids = [i % 300 for i in range(1500)], list(range(300))
    metrics, expected = retrieval(torch.randn(1500, 32), torch.randn(300, 32), *ids), chance(*ids)
    assert metrics["text_to_image_r10"] == pytest.approx(expected["text_to_image_r10"], abs=0.03)
    assert metrics["image_to_text_median_rank"] == pytest.approx(expected["image_to_text_median_rank"], rel=0.1)


def test_nonsense_is_refused():
    images, texts = related(*PAIRS)
    for bad in (float("nan"), float("inf")):
        spoilt = texts.clone()
        spoilt[3, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            retrieval(images, spoilt, *PAIRS)
        with pytest.raises(ValueError, match="NaN or infinity"):
            retrieval(spoilt, texts, *PAIRS)
    with pytest.raises(ValueError, match="20 images have 19 image_ids"):
        retrieval(images, texts, PAIRS[0][1:], PAIRS[1])
    with pytest.raises(ValueError, match="20 texts have 19 text_ids"):
        retrieval(images, texts, PAIRS[0], PAIRS[1][1:])
    with pytest.raises(ValueError, match=r"images 6 and texts 5.*projections"):
        retrieval(images, texts[:, 1:], *PAIRS)
    with pytest.raises(ValueError, match=r"texts must be \(examples, channels\).*\(20, 6, 1\)"):
        retrieval(images, texts[..., None], *PAIRS)
    for ks in ((), (0, 1), (-1,)):
        with pytest.raises(ValueError, match="ks must be ranks from 1"):
            retrieval(images, texts, *PAIRS, ks=ks)
        with pytest.raises(ValueError, match="ks must be ranks from 1"):
            chance(*PAIRS, ks=ks)
    with pytest.raises(ValueError, match="chunk must be at least 1, but is 0"):
        retrieval(images, texts, *PAIRS, chunk=0)


@pytest.mark.parametrize("measure", [chance, lambda *ids: retrieval(torch.ones(2, 3), torch.ones(2, 3), *ids)])
def test_ids_that_can_never_meet_are_refused(measure):
    with pytest.raises(ValueError, match="of these types: int, str"):
        measure([1, 2], ["1", "2"])
    with pytest.raises(ValueError, match="of these types: int, str"):
        measure([1, "2"], [1, 2])
    for strange in ([0.5, 1.5], [True, False], [None, None], [("a",), ("b",)]):
        with pytest.raises(ValueError, match="all integers or all strings"):
            measure(strange, strange)
    with pytest.raises(ValueError, match=r"None of 2 image_ids \(first: \['001', '002'\]\) is among the 2 text_ids"):
        measure(["001", "002"], ["1", "2"])


def test_no_embeddings_are_refused():
    with pytest.raises(ValueError, match="None of 0 image_ids"):
        retrieval(torch.ones(0, 3), torch.ones(2, 3), [], [1, 2])


# two kinds of data without text

ROWS = 6


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Rows of a sound and a video, the louder the brighter: as wav and mp4 files."""
    folder, tables = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("tables")
    rows = []
    for i in range(ROWS):
        loudness = np.full(RATE // 2, 0.1 * (i + 1), np.float32)
        (folder / f"{i}.wav").write_bytes(sound(samples=loudness))
        (folder / f"{i}.mp4").write_bytes(video(frames=4 * i + 4))  # frame n is of brightness 8 n
        files = {kind: {"path": str(folder / f"{i}.{suffix}"), "bytes": None} for kind, suffix in SUFFIXES.items()}
        rows.append({**files, "label": "ab"[i % 2]})
    for split in ("train", "validation", "test"):
        (tables / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sounds = Audio(Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True), 0.25)
    return LabelledSet(str(tables), Inputs(sounds, Video(default_video_processor(16), 1)), "label", batch_size=4)


SUFFIXES = {"audio": "wav", "video": "mp4"}


class Hearing(nn.Module):
    """Embeds a sound by its loudness and a video by the brightness of its middle frame; videos `shift` rows off."""

    inputs, capabilities = ("audio", "video"), ("embed",)

    def __init__(self, shift: int = 0):
        super().__init__()
        self.shift = shift

    def embed(self, kind, **batch):
        if kind == "audio":
            numbers = batch["input_values"].mean(1) / 0.1 - 1
        else:
            brightness = (batch["pixel_values_videos"].mean((1, 2, 3, 4)) + 1) * 127.5
            numbers = brightness / 16 - 0.75 + self.shift  # of frame 2 i + 1 or 2 i + 2
        return nn.functional.one_hot(numbers.round().long() % ROWS, ROWS).float()


def test_sounds_and_videos_of_a_row_belong_together(films):
    metrics = measure_model(Hearing(), films)
    assert set(metrics) == {
        f"{way}_{name}"
        for way in ("audio_to_video", "video_to_audio")
        for name in ("r1", "r5", "r10", "median_rank", "left_out")
    }
    assert metrics["audio_to_video_r1"] == metrics["video_to_audio_r1"] == 1.0
    shifted = measure_model(Hearing(shift=1), films)
    assert shifted["audio_to_video_r1"] == shifted["video_to_audio_r5"] == 0.0
    levels = chance_levels(Hearing, films)
    assert levels["audio_to_video_r1"] == pytest.approx(1 / ROWS) and levels["video_to_audio_r10"] == 1.0
    assert set(levels) == {name for name in metrics if not name.endswith("left_out")}


def test_words_of_two_kinds_without_text():
    assert MEASURE.words("audio_to_video_r5") == "audio to video, R@5"
    assert MEASURE.words("text_to_video_median_rank") == "caption to video, median rank"
    assert MEASURE.words("audio_to_video_left_out") is None
    assert "captions" not in MEASURE.protocol({"inputs": ["audio", "video"]})
    assert "captions" in MEASURE.protocol({"inputs": ["video", "text"]})


def test_libraries_of_other_measures_are_not_imported():
    code = (
        "import sys, hf_pretext.evaluation.retrieval, hf_pretext.evaluation.zero_shot; "
        "print([m for m in ('evaluate', 'sklearn', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_protocol_says_the_number_of_candidates():
    results = {"inputs": ["audio", "video"], "transfer": {"rows": {"test": 1234}}}
    assert "candidates are the 1,234 rows of the test split. R@k" in MEASURE.protocol(results)
    assert "candidates are the rows of the test split, labelled and" in MEASURE.protocol(
        {**results, "inputs": ["text"]}
    )
