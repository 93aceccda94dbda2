"""The same samples for any workers, ranks and place to begin; bad ones replaced without moving any other."""

import os

import datasets
import numpy as np
import pytest
import torch
from made_files import damaged_group
from media import RATE, sound, video
from PIL import Image
from streamed import ROWS, Counter, Number, Words, batches, lenient, numbered, numbers

from hf_pretext.data.clips import to_clip
from hf_pretext.data.decoding import UNREADABLE, BadSample, to_text
from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Augmentation, default_processor
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.stream.loader import Decoder, StreamLoader
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.order import GlobalOrder, MixedOrder
from hf_pretext.stream.sample_log import read_lines
from hf_pretext.stream.settings import StreamSettings


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_nothing(workers):
    alone, first = batches(30)
    helped, second = batches(30, num_workers=workers)
    assert numbers(alone) == numbers(helped)
    assert first.sample_log.digest == second.sample_log.digest
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["draw"], b["draw"])


@pytest.mark.parametrize("bad", [(), (5, 50, 77)])
@pytest.mark.parametrize("pieces", [0, 2, 5])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_divide_the_same_global_batches(ranks, pieces, bad):
    """Also with fewer pieces than ranks, and a number of ranks that does not divide the parts."""
    source = numbered(pieces)
    unbroken, loader = batches(30, source, Number(bad), batch_size=12)
    parts = [batches(30, source, Number(bad), batch_size=12 // ranks, rank=rank, ranks=ranks) for rank in range(ranks)]
    for step in range(30):
        together = torch.stack([part[step]["number"] for part, _ in parts]).T.flatten()
        assert torch.equal(together, unbroken[step]["number"])
    assert sum(part.sample_log.digest for _, part in parts) % 2**64 == loader.sample_log.digest


def test_different_global_batch_gives_the_same_order():
    unbroken, _ = batches(48, batch_size=8)
    for ranks, batch in ((1, 24), (3, 8), (4, 4), (2, 1)):
        count = 384 // (ranks * batch)
        parts = [batches(count, batch_size=batch, rank=rank, ranks=ranks)[0] for rank in range(ranks)]
        steps = zip(*parts, strict=True)
        together = [n for step in steps for n in torch.stack([b["number"] for b in step]).T.flatten().tolist()]
        assert together == numbers(unbroken)


def test_ranks_may_change_in_the_middle_of_an_epoch():
    expected = numbers(batches(40, batch_size=12)[0])
    outcome = []
    for ranks, steps in ((2, 3), (1, 4), (4, 7), (3, 11), (2, 15)):
        start = len(outcome)
        parts = [batches(steps, batch_size=12 // ranks, rank=r, ranks=ranks, start=start)[0] for r in range(ranks)]
        for step in zip(*parts, strict=True):
            outcome += torch.stack([batch["number"] for batch in step]).T.flatten().tolist()
    assert outcome == expected


@pytest.mark.parametrize("start", [8, 40, 96, 104, 512, 8 * 10**9])
def test_starting_later_gives_the_very_same_samples(start):
    first = max(start - 96, 0)
    unbroken, _ = batches(24, start=first)
    rest, _ = batches(24 - (start - first) // 8, start=start)
    assert numbers(rest) == numbers(unbroken)[start - first :]
    for a, b in zip(rest, unbroken[(start - first) // 8 :], strict=True):
        assert torch.equal(a["draw"], b["draw"])


def test_epochs_flow_into_each_other():
    outcome, loader = batches(26)
    assert len(loader) == 13  # 101 rows in batches of 8
    assert sorted(numbers(outcome)[:ROWS]) == list(range(ROWS))
    assert sorted(numbers(outcome)[ROWS : 2 * ROWS]) == list(range(ROWS))


def test_an_epoch_is_full_steps():
    _, loader = batches(1, accumulation=4)
    assert len(loader) == 16
    resumed = StreamLoader(numbered(), Number(), 8, accumulation=4, start=64)
    assert [len(list(resumed)) for _ in range(2)] == [8, 16]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_replaced_and_reported(workers, tmp_path):
    bad = {5, 50, 77}
    unbroken, _ = batches(26)
    outcome, loader = batches(26, process=Number(bad), num_workers=workers, folder=tmp_path, settings=lenient())
    assert not bad & set(numbers(outcome))
    for a, b in zip(unbroken, outcome, strict=True):
        kept = torch.tensor([n not in bad for n in a["number"].tolist()])
        assert torch.equal(a["number"][kept], b["number"][kept])  # what is not bad stays where it was
    for batch in outcome[:12]:
        assert len(set(batch["number"].tolist())) == 8  # no row twice in a batch
    assert loader.sample_log.reasons == {"broken on purpose": 6}
    refused = read_lines(tmp_path / "bad_samples.jsonl")
    assert len(refused) == 3  # each row once
    assert {line["reason"] for line in refused} == {"broken on purpose: truly"}
    assert all(set(line) == {"shard", "row", "reason"} and line["shard"].startswith("Iter") for line in refused)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_whose_path_is_a_pipe_or_a_device_are_replaced(workers, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for number in range(20):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    bad = {3: str(tmp_path / "pipe"), 7: "/dev/zero", 9: "/dev/urandom", 12: "nul\0.png", 15: str(tmp_path)}
    rows = [{"image": {"bytes": None, "path": bad.get(i, str(tmp_path / f"{i}.png"))}} for i in range(20)]
    outcome, loader = batches(5, open_source(rows), batch_size=4, num_workers=workers, settings=lenient())
    assert set(numbers(outcome)) == set(range(20)) - set(bad)
    assert set(loader.sample_log.reasons) == {"unreadable file"} and loader.sample_log.reasons.total() >= 5


def _sound(row, random):
    return {"sound": to_clip(row["audio"], 0.5, at=random.random(), sampling_rate=RATE).sound}


def _video(row, random):
    return {"video": to_clip(row["video"], fps=5, frames=4, at=random.random()).frames}


def _text(row, random):
    return {"length": len(to_text(row["text"]))}


@pytest.mark.parametrize(
    ("kind", "feature", "process", "good", "bad"),
    [
        (
            "audio",
            datasets.Audio(),
            _sound,
            sound,
            {b"RIFF" * 50: "cut file", b"": "empty sound"},
        ),
        ("video", datasets.Video(), _video, video, {b"hello": "damaged video", None: "neither bytes nor a path"}),
        (
            "text",
            datasets.Value("string"),
            _text,
            lambda: "a text",
            {" ": "blank text", None: "text is NoneType, not a string"},
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_sound_video_and_text_are_replaced(kind, feature, process, good, bad, workers, tmp_path):
    contents = [good()] * 30
    contents[7], contents[20] = bad
    if kind != "text":
        contents = [{"bytes": content, "path": None} for content in contents]
    datasets.Dataset.from_dict({kind: contents}).cast_column(kind, feature).to_parquet(tmp_path / "a.parquet")
    source = open_source(str(tmp_path / "a.parquet"), needed=(kind,))
    outcome, loader = batches(
        5, source, process, batch_size=6, num_workers=workers, settings=lenient(), folder=tmp_path
    )
    assert all(len(next(iter(batch.values()))) == 6 for batch in outcome)
    assert dict(loader.sample_log.reasons) == dict.fromkeys(bad.values(), 1)
    assert [line["row"] for line in sorted(read_lines(tmp_path / "bad_samples.jsonl"), key=lambda x: x["row"])] == [
        7,
        20,
    ]


def test_bad_rows_are_replaced_the_same_way_for_any_workers_and_start():
    bad = Number(set(range(5)))
    alone, _ = batches(26, process=bad, settings=lenient())
    helped, _ = batches(26, process=bad, num_workers=2, settings=lenient())
    later, _ = batches(16, process=bad, start=80, settings=lenient())
    assert numbers(alone) == numbers(helped)
    assert numbers(alone)[80:] == numbers(later)


@pytest.mark.parametrize(("rows", "batch"), [(2000, 64), (20_000, 2048)])
def test_no_row_is_twice_in_a_global_batch_though_many_are_replaced(rows, batch):
    bad = set(np.random.default_rng(0).choice(rows, rows // 20, replace=False).tolist())
    source = open_source([{"text": str(i)} for i in range(rows)], needed=("text",))
    ranks = [
        batches(rows // batch, source, Words(bad), batch_size=batch // 2, rank=r, ranks=2, settings=lenient())[0]
        for r in range(2)
    ]
    for parts in zip(*ranks, strict=True):
        together = numbers(parts)
        assert len(set(together)) == batch and not bad & set(together)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_bad_sample_of_a_large_batch_costs_no_more_than_one_of_a_small_batch(mixed, monkeypatch):
    """Work is counted, not timed: the places of rows that are computed to replace the sample."""
    rows = [{"text": str(i)} for i in range(100_000)]
    data = Mixture([open_source(rows, needed=("text",))] * (1 + mixed), [0.7, 0.3] if mixed else None)
    loader = StreamLoader(data, Words(), 32, ranks=1024, settings=lenient())
    samples = [loader._decoder.decode(loader.reader.row(g)) for g in loader._numbers(0)]
    samples[5] = {"key": samples[5]["key"], "path": None, "reason": "broken"}
    work = []
    for owner, name in ((GlobalOrder, "find"), (GlobalOrder, "number"), (MixedOrder, "choose")):
        original = getattr(owner, name)
        counted = lambda *args, original=original: work.append(0) or original(*args)  # noqa: E731
        monkeypatch.setattr(owner, name, counted)
    fixed, bad = loader._fixed(samples, loader._numbers(0))
    assert "example" in fixed[5] and len(bad) == 1
    assert len(work) < 50  # of a batch of 32,768 samples
    loader.close()


def test_half_the_rows_may_be_bad():
    outcome, loader = batches(13, process=Number(set(range(50))), settings=lenient())
    assert all(len(batch["number"]) == 8 for batch in outcome)
    assert min(numbers(outcome)) >= 50
    assert len(loader.sample_log.reasons) == 1


def test_a_set_smaller_than_the_batch_uses_good_rows_twice():
    outcome, _ = batches(3, numbered(rows=6), Number({2}), settings=lenient())
    assert all(len(batch["number"]) == 8 for batch in outcome)
    assert set(numbers(outcome)) == {0, 1, 3, 4, 5}


def test_nothing_but_bad_rows_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="All samples of a batch of 8 are bad.*broken on purpose.*Check the dataset"):
        batches(1, process=Number(set(range(ROWS))))


def test_rows_that_can_not_be_read_are_replaced(monkeypatch):
    source = numbered(0)
    original = source.rows.read

    def failing(piece, start, stop):
        if start <= 20 < stop:
            raise OSError("Corrupt snappy compressed data")
        return original(piece, start, stop)

    monkeypatch.setattr(source.rows, "read", failing)
    assert [UNREADABLE in row for row in source.read(0, 15, 25)] == [i == 20 for i in range(15, 25)]
    outcome, loader = batches(13, source, settings=lenient(window=3, parts=2))
    assert 20 not in numbers(outcome)
    assert loader.sample_log.reasons["the file can't be read"] >= 1


@pytest.mark.parametrize("workers", [2, 4])
def test_a_damaged_row_group_is_the_same_for_any_workers_ranks_and_start(workers, tmp_path):
    def run(count=60, batch=40, **options):
        source = open_source(str(damaged_group(tmp_path / "a.parquet")), needed=("text",))
        settings = lenient(parts=4, window=64)
        outcome, loader = batches(count, source, Words(), batch_size=batch, settings=settings, **options)
        return numbers(outcome), loader.sample_log.digest

    unbroken, digest = run()
    assert run(num_workers=workers) == (unbroken, digest)
    assert run(30, start=40 * 30)[0] == unbroken[40 * 30 :]
    parts = [run(batch=40 // workers, rank=rank, ranks=workers) for rank in range(workers)]
    assert np.stack([part for part, _ in parts], 1).flatten().tolist() == unbroken
    assert sum(part for _, part in parts) % 2**64 == digest


def test_a_huge_picture_is_replaced_undecoded(tmp_path, monkeypatch):
    images = [Image.new("RGB", (16, 16), (i, i, i)) for i in range(30)]
    images[7] = Image.new("1", (12_000, 9_000))  # a small file of more pixels than are allowed
    data = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))
    data.to_parquet(tmp_path / "a.parquet")
    process = ImageModality(default_processor(16), Augmentation(color_jitter=0.0))
    source = open_source(str(tmp_path / "a.parquet"))
    loaded = []
    monkeypatch.setattr(
        Image.Image, "load", lambda self, original=Image.Image.load: loaded.append(self.size) or original(self)
    )
    outcome, _ = batches(5, source, process, batch_size=6, settings=lenient(), folder=tmp_path / "run")
    assert all(len(batch["pixel_values"]) == 6 for batch in outcome)
    (line,) = read_lines(tmp_path / "run" / "bad_samples.jsonl")
    assert line["row"] == 7 and line["reason"].startswith("12000x9000 pixels, more than 89,478,485")
    assert (12_000, 9_000) not in loaded


def test_a_plain_iterable_never_ends_and_is_replayed():
    source = open_source(Counter())
    unbroken, loader = batches(20, source, settings=StreamSettings(window=10))
    with pytest.raises(TypeError):
        len(loader)
    assert sorted(numbers(unbroken)[:50]) == list(range(50)) == sorted(numbers(unbroken)[50:100])
    rest, _ = batches(10, source, start=80, settings=StreamSettings(window=10))
    assert numbers(rest) == numbers(unbroken)[80:]
    parts = [batches(20, source, batch_size=4, rank=r, ranks=2, settings=StreamSettings(window=10))[0] for r in (0, 1)]
    together = [torch.stack([a["number"], b["number"]]).T.flatten() for a, b in zip(*parts, strict=True)]
    assert torch.cat(together).tolist() == numbers(unbroken)


class Drawn:
    """A plain iterable of numbers that counts how many were drawn from it."""

    def __init__(self):
        self.count = 0

    def __iter__(self):
        for i in range(10**6):
            self.count += 1
            yield {"text": str(i)}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("workers", "batch"), [(0, 64), (2, 256)])
def test_a_plain_iterable_is_drawn_from_once(mixed, workers, batch):
    """Also where lanes take from it at their own pace, and where substitutes are asked for."""
    plain = Drawn()
    data = source = open_source(plain, needed=("text",))
    if mixed:
        data = Mixture([source, open_source([{"text": str(i)} for i in range(3000)], needed=("text",))], [1, 1])
    process, before = Words(set(range(7, 10**6, 101))), plain.count
    outcome, loader = batches(12_800 // batch, data, process, batch_size=batch, settings=lenient(), num_workers=workers)
    assert sum(loader.sample_log.reasons.values()) > 0
    given = loader.reader.order.drawn(12_800)[0]
    assert given <= plain.count - before <= given + 256 * 4 + 2 * workers * batch
    if not mixed:
        assert len(set(numbers(outcome))) > 12_600


def test_damage_at_the_start_of_a_piece_does_not_keep_a_stream_from_beginning(monkeypatch):
    source = numbered()
    read = source.rows.read

    def damaged(piece, start, stop):
        if piece == 0:
            raise ValueError("broken on purpose")
        return read(piece, start, stop)

    monkeypatch.setattr(source.rows, "read", damaged)
    outcome, _ = batches(3, source, num_workers=2, settings=lenient())
    assert all(len(batch["number"]) == 8 for batch in outcome)
    assert 0 < source.row_bytes() < 1000


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    batches(3)
    batches(3, num_workers=1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("row, path", [
    ({"image": {"bytes": None, "path": "a.png"}}, "a.png"),
    ({"audio": {"bytes": None, "path": "a.wav"}}, "a.wav"),
    ({"video": {"bytes": None, "path": "a.mp4"}, "text": "b"}, "a.mp4"),
    ({"audio": None, "video": {"bytes": None, "path": "a.mp4"}}, "a.mp4"),
    ({"audio": {"bytes": b"", "path": "0.wav"}, "video": {"bytes": None, "path": "a.mp4"}}, "a.mp4"),
    ({"audio": {"bytes": b"x", "path": "0.wav"}}, None),  # a member of a tar, which the key names
    ({"image": b"x", "text": "a"}, None),
])  # fmt: skip
def test_a_bad_sample_has_the_path_of_its_file(row, path):
    def bad(row, random):
        raise BadSample("damaged")

    assert Decoder(bad, 0).decode({**row, "key": "a:1", "g": 0}) == {"key": "a:1", "path": path, "reason": "damaged"}
