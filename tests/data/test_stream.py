import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.data.stream import GlobalOrder, StreamLoader

ROWS = 101


def numbered(pieces: int = 5):
    """A source whose pictures' first pixel is the row's number."""
    images = [Image.fromarray(np.full((4, 4, 3), i, np.uint8)) for i in range(ROWS)]
    data = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))
    return open_source(data.to_iterable_dataset(num_shards=pieces))


class Number:
    """Row -> its number, and a draw from its generator. Module level, so that workers can be given it."""

    def __init__(self, bad=()):
        self.bad = bad

    def __call__(self, row, random):
        from hf_pretext.data.decoding import to_image

        number = int(to_image(row["image"])[0, 0, 0])
        if number in self.bad:
            raise BadSample("broken on purpose")
        return {"number": torch.tensor(number), "draw": random.random()}


def batches(count, source=None, process=None, **options):
    options = {"batch_size": 8, "seed": 3, **options}
    loader = StreamLoader(source or numbered(), process or Number(), **options)
    found = []
    while len(found) < count:
        found += [batch for _, batch in zip(range(count - len(found)), loader, strict=False)]
    return found, loader


def numbers(found) -> list[int]:
    return torch.cat([batch["number"] for batch in found]).tolist()


@pytest.mark.parametrize("counts", [[1], [7], [3, 0, 5, 1], [256] * 20, [1000, 3, 17, 640], [16] * 3])
@pytest.mark.parametrize(("parts", "window"), [(16, 256), (3, 4), (1, 1), (16, 1)])
def test_each_row_comes_once_an_epoch(counts, parts, window):
    order = GlobalOrder(counts, seed=1, parts=parts, window=window)
    rows = sum(counts)
    for epoch in range(3):
        places = [order[g] for g in range(epoch * rows, (epoch + 1) * rows)]
        assert sorted(places) == [(p, i) for p, count in enumerate(counts) for i in range(count)]


def test_order_depends_on_seed_and_epoch_and_nothing_else():
    counts = [100, 50, 30]
    first = [GlobalOrder(counts, 1)[g] for g in range(360)]
    assert first == [GlobalOrder(counts, 1)[g] for g in range(360)]
    one = GlobalOrder(counts, 1)
    assert [one[g] for g in reversed(range(360))] == first[::-1]  # asked in any order
    assert first[:180] != first[180:]
    assert first != [GlobalOrder(counts, 2)[g] for g in range(360)]


def test_order_is_shuffled():
    order = GlobalOrder([50] * 40, seed=0)
    position = {order[g]: g for g in range(2000)}
    by_place = [position[p, i] for p in range(40) for i in range(50)]
    assert abs(np.corrcoef(by_place, range(2000))[0, 1]) < 0.1
    steps = np.abs(np.diff(by_place))
    assert np.median(steps) > 200  # neighbours in the files come far apart


def test_reads_stay_within_the_windows_in_use():
    order = GlobalOrder([1] * 10_000, seed=0, parts=4, window=50)
    pieces = [order[g][0] for g in range(10_000)]
    places = {int(p): i for i, p in enumerate(order._pieces)}
    first = sorted(places[p] for p in pieces[: 4 * 50])
    assert first == [part * 2500 + i for part in range(4) for i in range(50)]


def test_substitutes_come_from_the_windows_in_use():
    order = GlobalOrder([1] * 10_000, seed=0, parts=4, window=50)
    for g in (0, 777, 9_999, 10_001):
        for draw in range(50):
            near = order.near(g, draw)
            assert near // 200 == g // 200 or near // 10_000 == g // 10_000
            assert abs(near - g) < 200


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    alone, _ = batches(30)
    helped, _ = batches(30, num_workers=workers)
    assert numbers(alone) == numbers(helped)
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["draw"], b["draw"])


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_divide_the_same_global_batches(ranks):
    whole, _ = batches(20, batch_size=8)
    parts = [batches(20, batch_size=8 // ranks, rank=rank, ranks=ranks)[0] for rank in range(ranks)]
    for step in range(20):
        together = torch.stack([part[step]["number"] for part in parts]).T.flatten()
        assert torch.equal(together, whole[step]["number"])


@pytest.mark.parametrize("start", [8, 40, 96, 104, 512])
def test_starting_later_gives_the_very_same_samples(start):
    whole, _ = batches(80)
    rest, _ = batches(80 - start // 8, start=start)
    assert numbers(rest) == numbers(whole)[start:]
    for a, b in zip(rest, whole[start // 8 :], strict=True):
        assert torch.equal(a["draw"], b["draw"])


def test_epochs_flow_into_each_other():
    found, loader = batches(26)
    assert len(loader) == 13  # 101 rows in batches of 8
    assert sorted(numbers(found)[:ROWS]) == list(range(ROWS))
    assert sorted(numbers(found)[ROWS : 2 * ROWS]) == list(range(ROWS))


def test_an_epoch_is_whole_steps():
    _, loader = batches(1, accumulation=4)
    assert len(loader) == 16
    resumed = StreamLoader(numbered(), Number(), 8, accumulation=4, start=64)
    assert [len(list(resumed)) for _ in range(2)] == [8, 16]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_replaced_and_told(workers):
    bad = {5, 50, 77}
    whole, _ = batches(26)
    found, loader = batches(26, process=Number(bad), num_workers=workers)
    assert not bad & set(numbers(found))
    assert all(len(batch["number"]) == 8 for batch in found)
    for a, b in zip(whole, found, strict=True):  # what is not bad stays where it was
        kept = torch.tensor([n not in bad for n in a["number"].tolist()])
        assert torch.equal(a["number"][kept], b["number"][kept])
    assert {report["reason"] for report in loader.bad} == {"broken on purpose"}
    assert len({report["key"] for report in loader.bad}) == 3


def test_bad_rows_are_replaced_the_same_way_for_any_number_of_workers():
    alone, _ = batches(26, process=Number({1, 2, 3, 4, 5}))
    helped, _ = batches(26, process=Number({1, 2, 3, 4, 5}), num_workers=2)
    assert numbers(alone) == numbers(helped)


def test_more_bad_rows_than_spares_still_give_a_whole_batch():
    found, loader = batches(13, process=Number(set(range(50))))
    assert all(len(batch["number"]) == 8 for batch in found)
    assert min(numbers(found)) >= 50
    assert len({bad["key"] for bad in loader.bad}) == 50


def test_nothing_but_bad_rows_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="No sample of a batch of 8.*broken on purpose.*right column"):
        batches(1, process=Number(set(range(ROWS))))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    batches(3)
    batches(3, num_workers=1)
    assert torch.equal(state, torch.get_rng_state())
