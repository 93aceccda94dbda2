"""Each row once an epoch, a function of the seed and the row counts, and reads that stay together."""

from collections import Counter

import numpy as np
import pytest

from hf_pretext.data.rows import ENDLESS
from hf_pretext.stream.order import BLOCK, CYCLE, GlobalOrder, MixedOrder, RowsOf, can_be_met, quotas

COUNTS = [[1], [7], [3, 0, 5, 1], [256] * 20, [1000, 3, 17, 640], [16] * 3]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("parts", "window"), [(16, 256), (3, 4), (1, 1), (16, 1), (4, 50)])
def test_each_row_comes_once_an_epoch(counts, parts, window):
    order = GlobalOrder(counts, seed=1, parts=parts, window=window)
    rows = sum(counts)
    for epoch in range(3):
        places = [order[g] for g in range(epoch * rows, (epoch + 1) * rows)]
        assert sorted(places) == [(p, i) for p, count in enumerate(counts) for i in range(count)]


@pytest.mark.parametrize("counts", COUNTS)
def test_a_windows_ranges_hold_its_rows_in_order(counts):
    order = GlobalOrder(counts, seed=1, parts=3, window=20)
    for g in range(2 * sum(counts)):
        window, at = order.find(g)
        places = [(piece, i) for piece, start, stop in order.ranges(window) for i in range(start, stop)]
        assert len(places) == order.size(window) <= max(20, 1)
        assert order[g] == places[at]


@pytest.mark.parametrize("counts", COUNTS)
def test_a_row_leads_back_to_its_sample(counts):
    order, rows = GlobalOrder(counts, seed=1, parts=3, window=20), sum(counts)
    for i in range(2 * rows):
        assert order.number(*order[i], epoch=i // rows) == i
    endless = GlobalOrder([ENDLESS], seed=1, window=20)
    assert [endless.number(*endless[i], epoch=0) for i in range(100)] == list(range(100))


MIXTURES = {
    "one source": ([[50] * 10], None, 1),
    "a tiny source": ([[7]], None, 1),
    "a mixture": ([[50] * 10, [256, 44], [31]], [0.5, 0.3, 0.2], 1),
    "steps of one source": ([[90], [64, 20]], None, 16),
    "an iterable": ([[ENDLESS]], None, 1),
    "a mixture with an iterable": ([[ENDLESS], [60]], [0.6, 0.4], 1),
}


def order_of(counts, weights, together) -> MixedOrder:
    return MixedOrder([GlobalOrder(c, k, parts=4, window=16) for k, c in enumerate(counts)], weights, 5, together)


@pytest.mark.parametrize("kind", MIXTURES)
def test_a_sources_sample_leads_back_to_its_number(kind):
    order = order_of(*MIXTURES[kind])
    assert [order.number(*order.choose(g)) for g in range(3000)] == list(range(3000))


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("numbers", [range(48), range(480, 544), range(1, 2), range(900, 2500)])
def test_the_rows_of_a_batch_are_those_of_its_samples(kind, numbers):
    """Also of other epochs: a batch may contain the end of an epoch, or many epochs of a small source."""
    order = order_of(*MIXTURES[kind])
    rows, listed = RowsOf(order, numbers), {(k, order.orders[k][i]) for k, i in map(order.choose, numbers)}
    samples = [order.choose(g) for g in range(max(numbers.start - 600, 0), numbers.stop + 600)]
    assert [sample in rows for sample in samples] == [(k, order.orders[k][i]) in listed for k, i in samples]


def test_order_depends_on_seed_and_epoch_and_nothing_else():
    counts = [100, 50, 30]
    first = [GlobalOrder(counts, 1)[g] for g in range(360)]
    one = GlobalOrder(counts, 1)
    assert [one[g] for g in reversed(range(360))] == first[::-1]  # asked in any order
    assert first[:180] != first[180:]
    assert first != [GlobalOrder(counts, 2)[g] for g in range(360)]


def test_order_is_shuffled():
    order = GlobalOrder([50] * 40, seed=0)
    position = {order[g]: g for g in range(2000)}
    by_place = [position[p, i] for p in range(40) for i in range(50)]
    assert abs(np.corrcoef(by_place, range(2000))[0, 1]) < 0.1
    assert np.median(np.abs(np.diff(by_place))) > 200  # neighbours in the files come far apart


def test_windows_of_one_large_piece_differ_between_epochs():
    order = GlobalOrder([10_000], seed=0, parts=4, window=50)
    first, second = ({order[g][1] for g in range(epoch * 10_000, epoch * 10_000 + 400)} for epoch in (0, 1))
    assert len(first & second) < 200


def test_windows_in_use_are_few_and_end_at_different_times():
    order = GlobalOrder([1] * 10_000, seed=0, parts=4, window=50)
    entered = {}
    for g in range(10_000):
        window, _ = order.find(g)
        entered.setdefault(window, g)
    starts = sorted(entered.values())[4:]
    assert len(starts) == len(set(starts))  # never two at once, but for the first of each part
    assert np.diff(starts).max() <= 2 * 50
    recent = [{order.find(h)[0] for h in range(g, g + 40)} for g in range(0, 9_000, 997)]
    assert max(map(len, recent)) <= 2 * 4


@pytest.mark.parametrize("rows", [10_000, 10_003, 130])
def test_the_window_after_is_the_next_one_that_the_lane_needs(rows):
    order = GlobalOrder([rows], seed=0, parts=4, window=50)
    for g in (*range(0, 2 * rows, 37), rows - 1, rows - 4):
        window, _ = order.find(g)
        later = g
        while order.find(later)[0] == window:
            later += 4
        assert order.after(g) == order.find(later)[0]


@pytest.mark.parametrize(
    ("rows", "step"), [(1000, 8), (1003, 64), (101, 8), (4000, 500), pytest.param(20_000, 2048, marks=pytest.mark.slow)]
)
def test_no_two_samples_of_a_step_have_a_spare_in_common(rows, step):
    order = MixedOrder([GlobalOrder([100] * (rows // 100) + [rows % 100], seed=0, parts=16, window=100)])
    lonely = 0
    for first in (0, 3, rows - step, 5 * rows):  # within an epoch: at its edge, neighbours may have a row in common
        spares = [list(order.spares(g, step)) for g in range(first, first + step)]
        rows_of = [{order.orders[0][n] for n in numbers} for numbers in spares]
        assert sum(map(len, rows_of)) == len(set().union(*rows_of)) == sum(map(len, spares))
        original = [order.orders[0][g] for g in range(first, first + step)]
        assert not any(place in others for place, others in zip(original, rows_of, strict=True))
        lonely += sum(not numbers for numbers in spares)
        if rows > 8 * step:
            assert min(map(len, spares)) >= 3
            parts = [{n % 16 for n in numbers} for numbers in spares]
            assert np.mean(list(map(len, parts))) > 2  # else damage in one part would leave nothing to take
    assert lonely <= step / 10


def test_no_two_samples_of_a_step_have_a_spare_in_common_in_a_mixture():
    orders = [GlobalOrder([700], 0, window=50), GlobalOrder([ENDLESS], 1, window=50)]
    order = MixedOrder(orders, [0.5, 0.5], seed=5)
    for first in (100, 1300):
        spares = [(order.choose(g)[0], n) for g in range(first, first + 96) for n in order.spares(g, 96)]
        places = [(k, n if orders[k].endless else orders[k][n]) for k, n in spares]
        assert len(places) > 96
        assert len(set(places)) == len(places) or first == 1300  # there, the first source is at an epoch's edge


@pytest.mark.parametrize("endless", [False, True])
def test_a_window_is_past_when_its_last_sample_is(endless):
    orders = [GlobalOrder([700], 0, window=50), GlobalOrder([ENDLESS if endless else 300], 1, window=50)]
    for order in (MixedOrder(orders, [0.5, 0.5], seed=5), MixedOrder(orders[:1]), MixedOrder(orders[1:])):
        last = {}
        for g in range(4000):
            k, i = order.choose(g)
            last[k, order.orders[k].find(i)[0]] = g
        for (k, window), g in last.items():
            if g < 3000:
                assert order.is_past(k, window, g + 1) and not order.is_past(k, window, g)


def test_an_endless_source_is_read_from_its_start_in_windows():
    order = GlobalOrder([ENDLESS], seed=0, parts=16, window=10)
    places = [order[g] for g in range(100)]
    for first in range(0, 100, 10):
        assert sorted(places[first : first + 10]) == [(0, i) for i in range(first, first + 10)]
    assert places != sorted(places)
    assert order[10**15][1] // 10 == 10**14


def mixed(rows=(3000, 500), weights=(0.7, 0.3), **options):
    return MixedOrder([GlobalOrder([n], k, **options) for k, n in enumerate(rows)], weights, seed=5)


def test_a_mixture_meets_its_weights_and_takes_each_sources_samples_once():
    order = mixed()
    n = 16 * BLOCK
    chosen = [order.choose(g) for g in range(n)]
    assert Counter(k for k, _ in chosen) == {0: 0.7 * n, 1: 0.3 * n}
    for k in (0, 1):
        assert sorted(i for source, i in chosen if source == k) == list(range(Counter(c for c, _ in chosen)[k]))
    share = np.mean([k for k, _ in chosen[:500]])
    assert 0.2 < share < 0.4  # not only in the long run


def test_a_mixture_knows_how_much_it_drew_of_each_source():
    order = mixed(weights=(1, 3))
    counts = [0, 0]
    for g in range(40_000):
        if g % 3331 == 0:
            assert order.drawn(g) == counts
        counts[order.choose(g)[0]] += 1


def test_a_lane_of_a_mixture_reads_one_part_of_each_source():
    order = mixed(rows=(16 * 300, 16 * 100), window=20)
    for lane in (0, 7):
        parts = {}
        for g in range(lane, 16 * 200, 16):
            k, i = order.choose(g)
            parts.setdefault(k, set()).add(order.orders[k].find(i)[0].part)
        assert all(len(outcome) == 1 for outcome in parts.values())


def in_steps(together=48, weights=(0.5, 0.3, 0.2), **options):
    orders = [GlobalOrder([n], k, parts=8, **options) for k, n in enumerate((700, 300, 90))]
    return MixedOrder(orders, weights, seed=5, together=together)


def test_a_step_of_a_mixture_can_be_of_one_source():
    order = in_steps()
    chosen = [[order.choose(g) for g in range(step * 48, (step + 1) * 48)] for step in range(4 * CYCLE)]
    assert all(len({k for k, _ in step}) == 1 for step in chosen)
    kinds = [step[0][0] for step in chosen]
    for first in range(0, len(kinds), CYCLE):  # each cycle meets the weights
        assert Counter(kinds[first : first + CYCLE]) == {0: 10, 1: 6, 2: 4}
    assert kinds[:CYCLE] != kinds[CYCLE : 2 * CYCLE]
    for k in range(3):  # each source's own samples come once, in their order
        original = [i for step in chosen for source, i in step if source == k]
        assert original == list(range(len(original)))


def test_steps_of_one_source_keep_the_books():
    order, counts = in_steps(window=20), [0, 0, 0]
    last = {}
    for g in range(48 * 60):
        if g % 331 == 0:
            assert order.drawn(g) == counts
        k, i = order.choose(g)
        counts[k] += 1
        last[k, order.orders[k].find(i)[0]] = g
        assert i % 8 == g % 8  # each lane reads its own part of every source
    for (k, window), g in last.items():
        if g < 48 * 30:
            assert order.is_past(k, window, g + 1) and not order.is_past(k, window, g)
    spares = [(order.choose(g)[0], n) for g in range(480, 528) for n in order.spares(g, 48)]
    assert len(spares) == len(set(spares)) > 48


def test_weights_follow_the_rows_where_none_are_given():
    assert MixedOrder([GlobalOrder([300]), GlobalOrder([100])]).weights == [0.75, 0.25]


def test_weights_too_small_to_be_met():
    assert can_be_met([1, 900]) and can_be_met([5])
    assert not can_be_met([1, 100_000])


def test_quotas_add_up():
    assert quotas([1 / 3] * 3, 1000) == [334, 333, 333]
    assert quotas([0.9995, 0.0005], 1000) in ([1000, 0], [999, 1])
