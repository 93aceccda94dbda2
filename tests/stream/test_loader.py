"""The same samples for any workers, ranks and place to begin; bad ones replaced without moving any other."""

import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from media import RATE, sound, video
from PIL import Image
from test_rows import damaged_group

from hf_pretext.data.decoding import UNREADABLE, BadSample, to_image, to_sound, to_text, to_video
from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Augmentation, default_processor
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.stream import reader as reader_module
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.reader import make_order, reading_notes
from hf_pretext.stream.sample_log import SampleLog, TooManyBadSamples, forget_after, read_lines, sizes_of_records
from hf_pretext.stream.settings import StreamSettings

ROWS = 101


def numbered(pieces: int = 5, rows: int = ROWS, first: int = 0):
    """A source whose images' first pixel is the row's number."""
    images = [Image.fromarray(np.full((4, 4, 3), i, np.uint8)) for i in range(first, first + rows)]
    data = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))
    return open_source(data.to_iterable_dataset(num_shards=pieces) if pieces else data)


class Number:
    """Row -> its number, and a draw from its generator. Module level, so that workers can be given it."""

    def __init__(self, bad=()):
        self.bad = bad

    def __call__(self, row, random):
        number = int(to_image(row["image"])[0, 0, 0])
        if number in self.bad:
            raise BadSample("broken on purpose: truly")
        return {"number": torch.tensor(number), "draw": random.random()}


def batches(count, source=None, process=None, **options):
    options = {"batch_size": 8, "seed": 3, **options}
    loader = StreamLoader(numbered() if source is None else source, process or Number(), **options)
    outcome = []
    while len(outcome) < count:
        outcome += [batch for _, batch in zip(range(count - len(outcome)), loader, strict=False)]
    loader.close()
    return outcome, loader


def numbers(outcome) -> list[int]:
    return torch.cat([batch["number"] for batch in outcome]).tolist()


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


def _sound(row, random):
    return {"sound": to_sound(row["audio"], RATE, seconds=0.5, at=random.random())}


def _video(row, random):
    return {"video": to_video(row["video"], frames=4, at=random.random(), stride=2)}


def _text(row, random):
    return {"length": len(to_text(row["text"]))}


@pytest.mark.parametrize(
    ("kind", "feature", "process", "good", "bad"),
    [
        ("audio", datasets.Audio(), _sound, sound, {b"RIFF" * 50: "damaged sound", b"": "no bytes"}),
        ("video", datasets.Video(), _video, video, {b"hello": "damaged video", None: "neither bytes nor a path"}),
        ("text", datasets.Value("string"), _text, lambda: "a text", {" ": "blank text", None: "no text but NoneType"}),
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


def lenient(**options):
    return StreamSettings(max_bad_fraction=1.0, **options)


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


class Words(Number):
    """Row {"text": "7 ..."} -> its number."""

    def __call__(self, row, random):
        number = int(row["text"].split()[0])
        if number in self.bad:
            raise BadSample("broken on purpose: truly")
        return {"number": torch.tensor(number)}


def test_read_rows_are_not_read_once_more(monkeypatch):
    """Else each would cost a read from far away."""
    source = numbered(0)
    loader = StreamLoader(source, Number(), 8, settings=lenient())
    monkeypatch.setattr(source, "read", lambda *args: pytest.fail("read"))
    everything = {source.key(piece, i) for piece, count in enumerate(source.counts) for i in range(count)}
    assert list(loader.reader.substitutes(3, 8, everything)) == []


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
    with pytest.raises(ValueError, match="No sample of a batch of 8.*broken on purpose.*right column"):
        batches(1, process=Number(set(range(ROWS))))


def test_too_many_bad_rows_end_the_run_with_examples(tmp_path):
    bad = Number(set(range(0, 100, 10)))  # a tenth
    settings = StreamSettings(max_bad_fraction=0.05)
    with pytest.raises(TooManyBadSamples, match=r"of the last 101 samples.*max_bad_fraction 0.05") as error:
        batches(26, process=bad, settings=settings, folder=tmp_path)
    assert str(error.value).count("broken on purpose") == 5
    assert len(read_lines(tmp_path / "bad_samples.jsonl")) == 10  # not before an epoch was seen
    batches(26, process=bad, settings=StreamSettings(max_bad_fraction=0.12), folder=tmp_path)
    batches(40, process=Number({1, 2, 3, 4, 5}), settings=settings)  # just below


def test_never_before_a_thousand_samples():
    source = numbered(rows=200)
    big = Mixture([source] * 6)  # 1,200 rows
    settings = StreamSettings(max_bad_fraction=0.05)
    seen = []

    class Counting(Number):
        def __call__(self, row, random):
            seen.append(row["g"])
            return super().__call__(row, random)

    with pytest.raises(TooManyBadSamples, match="of the last 1,000"):
        batches(300, big, Counting(set(range(0, 200, 5))), settings=settings)
    assert 1000 <= len(set(seen)) <= 1024


def test_bad_rows_are_counted_on_through_resumes_and_over_ranks():
    source = open_source([{"text": str(i)} for i in range(5000)], needed=("text",))
    process = Words(set(range(0, 5000, 10)))  # a tenth

    def refused(ranks, step=80):
        """The error, and the samples seen when it came, of runs that are killed after each 400 samples."""
        watched = [None] * ranks
        for start in range(0, 4000, 400):
            loaders = []
            for rank in range(ranks):
                loaders.append(
                    batches(
                        400 // step, source, process, batch_size=step // ranks, rank=rank, ranks=ranks, start=start,
                        watched=watched[rank],
                    )[1]
                )  # fmt: skip
            pending = [loader.sample_log.pop_pending() for loader in loaders]
            errors = set()
            for loader in loaders if ranks > 1 else ():
                try:
                    loader.sample_log.merge(pending)
                except TooManyBadSamples as error:
                    errors.add(str(error))
                else:
                    errors.add(None)
            assert len(errors) <= 1  # all ranks say the same
            if errors - {None}:
                return start, errors.pop()
            watched = json.loads(json.dumps([loader.sample_log.watched() for loader in loaders]))
            assert all(watched_by == watched[0] for watched_by in watched)

    with pytest.raises(TooManyBadSamples, match="of the last 1,000") as error:
        refused(1)
    for ranks in (2, 4):
        start, message = refused(ranks)
        assert start == 800 and message == str(error.value)


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
    assert loader.sample_log.reasons["its file can't be read"] >= 1


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


def test_keys_of_each_step_are_recorded_and_forgotten(tmp_path):
    settings = StreamSettings(record_samples=True)
    loader = StreamLoader(numbered(), Number(), 8, seed=3, settings=settings, folder=tmp_path, rank=1, ranks=2)
    batch = iter(loader)
    for step in range(1, 4):
        next(batch), next(batch)
        loader.sample_log.step(step)
    lines = read_lines(tmp_path / "samples-rank1.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["keys"] == [loader.reader.key(g) for g in range(1, 33, 2)]
    with open(tmp_path / "samples-rank1.jsonl", "a") as file:
        file.write('{"step": 4, "keys": ["half')  # killed while writing
    refused = {"shard": "a.parquet", "row": 3, "reason": "no bytes"}
    (tmp_path / "bad_samples.jsonl").write_text(json.dumps(refused) + '\n{"shard": "a.par')
    forget_after(tmp_path, 2)
    assert read_lines(tmp_path / "samples-rank1.jsonl") == lines[:2]
    assert (tmp_path / "bad_samples.jsonl").read_text() == json.dumps(refused) + "\n"
    forget_after(tmp_path, 0)  # from the start again
    assert read_lines(tmp_path / "samples-rank1.jsonl") == []


def test_records_are_cut_where_the_checkpoint_says_without_being_read(tmp_path, monkeypatch):
    record, other = tmp_path / "samples-rank0.jsonl", tmp_path / "samples-rank1.jsonl"
    record.write_text('{"step": 1, "keys": ["a:0"]}\n')
    sizes = json.loads(json.dumps(sizes_of_records(tmp_path)))
    kept = record.read_text()
    record.write_text(kept + '{"step": 2, "keys": ["a:1"]}\n{"step": 3, "ke')
    other.write_text('{"step": 2, "keys": ["a:1"]}\n')  # of a rank that the run did not have then
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *args, **options: pytest.fail("read"))
        forget_after(tmp_path, 1, sizes)
    assert record.read_text() == kept and other.read_text() == ""
    record.write_text("")  # by somebody else
    forget_after(tmp_path, 1, sizes)
    assert record.read_text() == ""


def test_half_lines_and_lines_of_several_ranks_are_left_out(tmp_path):
    sample_logs = [SampleLog(tmp_path, rank, 2) for rank in range(2)]
    for sample_log in sample_logs:  # each has read the file before the other writes
        sample_log.note([0], ["a:1"], [{"key": "a:2", "reason": "no bytes"}])
    sample_logs[0].note([1], ["a:1"], [{"key": "a:3", "reason": "no bytes"}])
    sample_logs[1].note([1], ["a:1"], [{"key": "a:3", "reason": "no bytes"}])
    path = tmp_path / "bad_samples.jsonl"
    with open(path, "a") as file:
        file.write('{"shard": "a", "row": 4, "re{"shard": "a", "row": 5, "reason": "x"}\n')
    assert [line["row"] for line in read_lines(path)] == [2, 3]
    forget_after(tmp_path, 1)
    assert path.read_text().count("\n") == 2


def test_the_digest_shows_orders_apart():
    digests = {batches(10, **options)[1].sample_log.digest for options in ({}, {"seed": 4}, {"start": 8})}
    assert len(digests) == 3
    assert batches(10)[1].sample_log.digest in digests


def test_a_mixture_is_deterministic_and_starts_anywhere():
    data = Mixture([numbered(rows=60), numbered(0, 30, first=100)], [0.7, 0.3])
    assert len(data) == 90 and data.name.count(" + ") == 1
    unbroken, loader = batches(60, data)
    rest, _ = batches(30, data, start=240)
    assert numbers(rest) == numbers(unbroken)[240:]
    assert np.mean([n >= 100 for n in numbers(unbroken)]) == pytest.approx(0.3, abs=0.04)
    helped, _ = batches(60, data, num_workers=2)
    assert numbers(helped) == numbers(unbroken)
    parts = [batches(60, data, batch_size=4, rank=rank, ranks=2)[0] for rank in range(2)]
    together = [torch.stack([a["number"], b["number"]]).T.flatten() for a, b in zip(*parts, strict=True)]
    assert torch.cat(together).tolist() == numbers(unbroken)
    drawn = loader.reader.order.drawn(480)
    assert drawn == [sum(n < 100 for n in numbers(unbroken)), sum(n >= 100 for n in numbers(unbroken))]


def test_files_of_one_name_in_two_sources_are_not_mistaken_for_each_other(tmp_path):
    """Decoded images are kept by their keys."""
    for name, grey in (("dark", 10), ("light", 200)):
        images = [Image.new("RGB", (16, 16), (grey, grey, grey)) for _ in range(40)]
        data = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))
        (tmp_path / name).mkdir()
        data.to_parquet(tmp_path / name / "train-00000-of-00001.parquet")
    mixture = Mixture([open_source(str(tmp_path / name)) for name in ("dark", "light")], [1, 1])
    process = ImageModality(default_processor(16), Augmentation(color_jitter=0.0))
    outcome, loader = batches(8, mixture, process, batch_size=20)
    greys = torch.cat([batch["pixel_values"] for batch in outcome]).float().mean((1, 2, 3)).round().tolist()
    assert greys == [(10, 200)[loader.reader.order.choose(g)[0]] for g in range(160)]
    assert process._kept and min(greys) == 10 and max(greys) == 200


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


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0.5, -1], [0, 1]])
def test_weights_that_do_not_fit(weights):
    with pytest.raises(ValueError, match="--mixture_weights.*a positive number for each of the 2"):
        Mixture([numbered(), numbered()], weights)


def test_sources_too_small_for_their_share_are_reported_at_once():
    small, large = numbered(0, 1), numbered(0, 101)
    with pytest.raises(ValueError, match="--mixture_weights 1 100000: each must be at least a thousandth"):
        Mixture([small, large], [1, 100_000])
    with pytest.raises(ValueError, match="Dataset has 1 of 5,001 rows, less than a thousandth. Leave it out"):
        Mixture([small, open_source(datasets.Dataset.from_dict({"image": [1] * 5000}), columns={"image": "image"})])


def test_numbers_of_settings():
    assert StreamSettings(max_bad_fraction=1).max_bad_fraction == 1.0
    assert isinstance(Augmentation(crop_scale=1).crop_scale, float)
    for wrong in ({"max_bad_fraction": True}, {"max_bad_fraction": 2}, {"parts": 1.0}):
        with pytest.raises(StrictDataclassError):
            StreamSettings(**wrong)


class Counter:
    """A plain iterable of images, 50 long; nobody knows."""

    def __iter__(self):
        return ({"image": Image.fromarray(np.full((4, 4, 3), i, np.uint8))} for i in range(50))


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


def test_windows_are_smaller_where_rows_are_large(tmp_path):
    big = [{"text": "x" * 10_000} for _ in range(1000)]
    source = open_source(big, needed=("text",))
    assert make_order([source], None, StreamSettings(), 0).orders[0].window == 256
    order = make_order([source], None, StreamSettings(buffer_bytes=2**24), 0)
    window = order.orders[0].window
    assert 20 < window < 30
    assert make_order([source], None, StreamSettings(), 0, [window]).orders[0].window == window  # of a run resumed

    reader = reader_module.Reader([source], order, 2**24)
    most = 0
    for g in range(1000):
        assert len(reader.row(g)["text"]) == 10_000
        most = max(most, reader._held())
    assert most <= 2**24


def test_how_large_rows_are_is_reported_by_several_pieces():
    rows = [{"text": "x" * (10 if i < 256 else 50_000)} for i in range(2000)]
    source = open_source(rows, needed=("text",))
    assert 30_000 < source.row_bytes() < 50_000
    assert open_source(rows[:100], needed=("text",)).row_bytes() < 1000


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


def test_no_more_readers_stay_open_than_present_are_parts(tmp_path):
    table = pa.Table.from_pylist([{"text": str(i)} for i in range(4000)])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    source = open_source(str(tmp_path), needed=("text",))
    loader = StreamLoader(source, Words(), 64, settings=StreamSettings(parts=4, window=30))
    most = 0
    for _ in zip(range(200), loader, strict=False):
        most = max(most, len(source.rows._opened))
    assert 2 < most <= 4


def test_more_than_the_buffer_is_read_once_more_and_reported(caplog):
    rows = [{"text": "x" * (10 if i % 256 < 8 else 50_000)} for i in range(600)]  # the first of each piece are small
    source = open_source(rows, needed=("text",))
    reader = reader_module.Reader([source], make_order([source], None, StreamSettings(buffer_bytes=2**20), 0), 2**20)
    logging.getLogger("transformers").addHandler(caplog.handler)
    keys = [reader.row(g)["key"] for g in range(600)]
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert len(set(keys)) == 600
    assert "Raise it, or give a smaller --window" in caplog.text
    assert reader._held() < 2**20 + 65 * 50_100  # what it may hold, and the one window in use


def test_the_next_window_is_read_ahead():
    source = numbered(0, rows=200)
    order = make_order([source], None, StreamSettings(parts=2, window=10), 0)
    reader = reader_module.Reader([source], order, 2**30)
    missing = []
    for g in range(200):
        place = (0, order.orders[0].find(g)[0])
        if place not in reader._windows:
            missing.append(g)
        reader.row(g)
    assert missing == [0, 1]  # only the first of each part had to be waited for
    assert len(reader._windows) <= 6
    reader.close()


@pytest.mark.parametrize(
    ("rows", "group", "noted"), [(20_000, 20_000, True), (20_000, 1_000, False), (900, 900, False)]
)
def test_few_large_row_groups_are_reported(tmp_path, rows, group, noted):
    table = pa.Table.from_pylist([{"text": str(i)} for i in range(rows)])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    source = open_source(str(tmp_path), needed=("text",))
    notes = reading_notes([source], make_order([source], None, StreamSettings(), 0), 4)
    assert len(notes) == noted
    if noted:
        assert "has 1 row group, which" in notes[0] and "begun about 16 times an epoch" in notes[0]
        assert "Write smaller row groups" in notes[0]


def test_what_is_read_twice_is_reported():
    def notes(source, ranks, **settings):
        return reading_notes([source], make_order([source], None, StreamSettings(**settings), 0), ranks)

    assert notes(numbered(16), 4) == []
    assert notes(numbered(0), 8) == []
    (note,) = notes(numbered(16), 3)
    assert "3 processes do not divide --parts 16: each row is read by 3 of them. --parts 18" in note
    (note,) = notes(numbered(2), 2)
    assert "2 shards" in note and "begun about 8 times an epoch" in note and "--parts 2" in note
    assert "resuming goes through what was seen again" in notes(open_source(Counter()), 1)[0]


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    batches(3)
    batches(3, num_workers=1)
    assert torch.equal(state, torch.get_rng_state())


def test_the_state_is_one_integer(tmp_path):
    """Windows, seed and samples seen are all that a run needs to go on; and they are JSON."""
    unbroken, loader = batches(20)
    state = json.loads(json.dumps({"start": 80, "windows": [o.window for o in loader.reader.order.orders]}))
    rest, _ = batches(10, **state)
    assert numbers(rest) == numbers(unbroken)[80:]
