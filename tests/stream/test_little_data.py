"""Data that is too little to learn from: one warning each, and none for data that is not."""

import datasets
import pytest
import torch
from streamed import numbered
from test_divergence import trainer_of  # noqa: F401
from transformers import TrainerCallback

from hf_pretext.data.sources import open_source
from hf_pretext.stream.little_data import LOOKED_AT, LittleData, passes_notes
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.reader import make_order
from hf_pretext.stream.settings import StreamSettings


def notes(step: int, steps: int, *rows: int, weights=None) -> list[str]:
    sources = [numbered(0, count) for count in rows]
    for number, source in enumerate(sources):
        source.name = f"set{number}"
    data = Mixture(sources, weights)
    return list(passes_notes(data, make_order(data.sources, weights, StreamSettings(), 0), step, steps))


def test_five_images_at_batch_32():
    (note,) = notes(32, 100, 5)
    assert "set0 has fewer rows (5) than a step has samples (32): each step takes a row about 6.4 times." in note
    assert "Give a smaller --per_device_train_batch_size, or more data." in note


def test_many_passes_are_counted_for_each_source():
    assert notes(10, 1000, 10) == []
    (note,) = notes(10, 1001, 10)
    assert "The run makes 1,001 passes over set0, which has 10 rows. Give fewer --max_steps" in note
    (note,) = notes(10, 4000, 100, 10, weights=[0.5, 0.5])
    assert "passes over set1, which has 10 rows" in note  # half of 40,000 samples


def test_an_iterable_without_a_length_is_not_counted():
    class Endless:
        def __iter__(self):
            return iter([{"image": row["image"]} for row in datasets.Dataset.from_dict({"image": [b"a", b"b"]})])

    data = Mixture(open_source(Endless()))
    assert list(passes_notes(data, make_order(data.sources, None, StreamSettings(), 0), 100, 10**6)) == []


def captions(different: int, padded: int = 0) -> dict[str, torch.Tensor]:
    """A batch of 16 captions of three tokens, with padding."""
    ids = torch.arange(16)[:, None] % different + torch.tensor([10, 20, 30])
    mask = torch.cat([torch.ones(16, 3), torch.zeros(16, padded)], 1).long()
    return {"input_ids": torch.cat([ids, torch.zeros(16, padded, dtype=torch.long)], 1), "attention_mask": mask}


@pytest.mark.parametrize(("different", "warned"), [(1, True), (7, True), (8, False), (16, False)])
def test_captions_that_are_equal_are_one_warning(caplog, different, warned):
    check = LittleData(None, True)
    for padded in range(10):
        check.look([captions(different, padded)])  # equal captions stay equal, however they are padded
    expected = f"Among the first {LOOKED_AT} texts, only {different} differ, with {3 * different} different tokens"
    assert [expected in record.message for record in caplog.records] == [True] * warned


def test_packed_texts_and_batches_of_texts_are_counted(caplog):
    LittleData(None, True).look([{"input_ids": torch.ones(64, 5, dtype=torch.long)}])
    LittleData(None, True).look([{"input_ids": torch.ones(1, 100, 5, dtype=torch.long)}])
    assert [record.message.count("only 1 differ, with 1 different tokens") for record in caplog.records] == [1, 1]


def test_only_the_main_process_warns(caplog):
    LittleData(None, False).look([captions(1)] * 5)
    LittleData(None, True).look([{"pixel_values": torch.ones(64, 3, 4, 4)}])
    assert not caplog.records


def test_a_run_warns_once_before_its_first_step(trainer_of, caplog):  # noqa: F811
    before = []

    class Keep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            before.append([record.message for record in caplog.records if "fewer rows (40)" in record.message])

    trainer = trainer_of(per_device_train_batch_size=16, gradient_accumulation_steps=3, max_steps=2)
    trainer.add_callback(Keep())
    trainer.train()
    assert [len(messages) for messages in before] == [1, 1] and "samples (48)" in before[0][0]
