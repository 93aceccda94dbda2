"""Rows that are held out of training: which ones, and that the others stay as they are."""

import pytest
from conftest import EMOJI

from hf_pretext.data.hold_out import LEAST, MOST, SEEN, OtherRows, chosen, held_out_rows, hold_out
from hf_pretext.data.sources import Source, open_source
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.mixture import Mixture

ROWS = 2000


def numbers(rows: int, name: str = "x") -> Source:
    return open_source([{"text": f"{name} {i}"} for i in range(rows)], needed=("text",))


def every(source: Source) -> list[tuple[str, str]]:
    """Key and text of each row, in order."""
    return [
        (source.key(piece, i), row["text"])
        for piece, count in enumerate(source.counts)
        for i, row in enumerate(source.read(piece, 0, count))
    ]


def test_a_hundredth_is_held_out_at_least_64_rows_at_most_1000_and_none_of_little_data():
    assert [held_out_rows(rows) for rows in (0, 639, 640, 6400, 10_000, 10**5, 10**9)] == [
        0,
        0,
        64,
        64,
        100,
        1000,
        1000,
    ]
    assert held_out_rows(50, 5) == 5 and held_out_rows(50, 0) == 0
    with pytest.raises(ValueError, match="--held_out_rows 6 is too many of 50 rows. Give at most 5, or 0"):
        held_out_rows(50, 6)


def test_held_out_rows_and_the_others_are_all_rows_once_and_keep_order_and_keys():
    source = numbers(ROWS)
    (others,), (held,) = hold_out([source])
    everything, kept = every(source), every(others)
    left_out = [everything[256 * piece + i] for piece, i in held.places]
    assert len(left_out) == LEAST and len(others) == ROWS - LEAST and not held.trained_on
    assert kept == [row for row in everything if row not in left_out]
    assert [row["text"] for row in held.source.take(held.places)] == [text for _, text in left_out]


@pytest.mark.parametrize("places", [[], [0], [0, 1, 2], [255], [3, 4, 200, 255], list(range(256))])
def test_any_range_of_the_others_is_read(places):
    source = numbers(300)
    others = OtherRows(source, [(0, i) for i in places])
    expected = [f"x {i}" for i in range(256) if i not in places]
    assert others.counts == [256 - len(places), 44]
    for start in range(0, len(expected), 19):
        for stop in (start, start + 1, min(start + 60, len(expected)), len(expected)):
            assert [row["text"] for row in others.read(0, start, stop)] == expected[start:stop]


def test_the_choice_depends_only_on_row_counts_and_is_spread_over_pieces():
    counts = [256] * 40
    assert chosen(counts, 100) == chosen(counts, 100) == sorted(chosen(counts, 100))
    assert chosen(counts, 100) != chosen([256] * 41, 100)
    assert len({piece for piece, _ in chosen(counts, 100)}) == 16
    assert len({piece for piece, _ in chosen([10**6] * 4, MOST)}) == 4
    assert chosen([0, 3, 0, 2], 5) == [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1)]
    (_,), (held,) = hold_out([numbers(ROWS, "x")])
    assert hold_out([numbers(ROWS, "y")])[1][0].places == held.places


def test_each_source_of_a_mixture_gives_its_share():
    kept, held = hold_out([numbers(9000, "x"), numbers(1000, "y"), numbers(5, "z")])
    assert [len(each.places) for each in held] == [89, 10, 1]  # 1 % of all rows
    assert [len(source) for source in kept] == [8911, 990, 4]
    expected = ["x"] * 89 + ["y"] * 10 + ["z"]
    assert [row["text"][0] for each in held for row in each.source.take(each.places)] == expected


def test_many_small_sources_give_rows_too():
    kept, held = hold_out([numbers(10, "x") for _ in range(200)])
    assert sum(len(each.places) for each in held) == 64 and sum(map(len, kept)) == 2000 - 64
    _, sampled = hold_out([numbers(1) for _ in range(3)])
    assert [len(each.places) for each in sampled] == [1, 1, 1]


def test_little_data_and_data_without_a_length_is_trained_on_in_full():
    class Endless:
        def __iter__(self):
            return iter({"text": str(i)} for i in range(300))

    few = numbers(100)
    for source, count in ((few, 100), (open_source(Endless(), needed=("text",)), SEEN)):
        (same,), (held,) = hold_out([source])
        assert same is source and held.trained_on and len(held.places) == count
    with pytest.raises(ValueError, match="--held_out_rows 5: the data has no known length"):
        hold_out([open_source(Endless(), needed=("text",))], 5)
    (same,), (held,) = hold_out([numbers(ROWS)], 0)
    assert len(same) == ROWS and held.trained_on and len(held.places) == SEEN


def test_the_fingerprint_names_what_is_held_out():
    source = open_source(str(EMOJI))
    (others,), _ = hold_out([source])
    (more,), _ = hold_out([source], 100)
    prints = [Mixture(each).fingerprint() for each in (source, others, more)]
    assert prints[0] != prints[1] != prints[2] and prints[0] == Mixture(open_source(str(EMOJI))).fingerprint()
    assert others.revision == source.revision and others.rows.contents is source.rows.contents


def test_training_sees_each_other_row_once_in_an_epoch_and_no_held_out_row():
    (others,), (held,) = hold_out([numbers(700)])
    loader = StreamLoader(others, lambda row, random: {"number": int(row["text"][2:])}, 6)
    seen = [int(number) for batch in loader for number in batch["number"]]
    left_out = {256 * piece + i for piece, i in held.places}
    assert sorted(seen[:636]) == sorted(set(range(700)) - left_out)
