"""What was consumed: the digest, the bad samples and how many there may be, the records."""

import json
from pathlib import Path

import pytest
from streamed import Number, Words, batches, numbered

from hf_pretext.data.sources import open_source
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.sample_log import SampleLog, TooManyBadSamples, forget_after, read_lines, sizes_of_records
from hf_pretext.stream.settings import StreamSettings


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
