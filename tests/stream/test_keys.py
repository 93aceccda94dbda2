"""Keys of rows: the same row has the same number, whatever the epoch, ranks, workers, start and bad samples are."""

import shutil

import datasets
import numpy as np
import pytest
import torch
from conftest import CONFIGS, IMAGE
from streamed import ROWS, Counter, Number, Words, batches, lenient, numbered, numbers
from transformers import TrainingArguments

from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modeling import PretextModel
from hf_pretext.objectives.rotation import RotationForPreTraining, RotationTask
from hf_pretext.stream.loader import StreamLoader, each_row
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer


def texts(first: int, count: int):
    return open_source([{"text": str(i)} for i in range(first, first + count)], needed=("text",))


def mixed() -> Mixture:
    """Rows 0 to 299 in three sources, of which the last is drawn far more often than its rows would be."""
    return Mixture([texts(0, 150), texts(150, 100), texts(250, 50)], [0.2, 0.3, 0.5])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pieces", [0, 5])
def test_a_key_is_the_number_of_the_row_in_each_epoch(pieces, workers):
    outcome, _ = batches(30, numbered(pieces), keys=0, num_workers=workers)  # more than two epochs
    for batch in outcome:
        assert batch["keys"].dtype == torch.int64 and torch.equal(batch["keys"], batch["number"])
    assert set(numbers(outcome)) == set(range(ROWS))


@pytest.mark.parametrize("workers", [0, 2])
def test_keys_count_over_all_sources_of_a_mixture(workers):
    outcome, _ = batches(60, mixed(), Words(), keys=0, num_workers=workers)
    assert all(torch.equal(batch["keys"], batch["number"]) for batch in outcome)
    assert {n // 50 for n in numbers(outcome)} == set(range(6))


@pytest.mark.parametrize(("ranks", "start"), [(2, 0), (3, 96), (2, 48)])
def test_keys_are_the_same_for_any_ranks_and_start(ranks, start):
    for rank in range(ranks):
        outcome, _ = batches(20, rank=rank, ranks=ranks, start=start, keys=0)
        assert all(torch.equal(batch["keys"], batch["number"]) for batch in outcome)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_substitute_has_the_key_of_its_row(workers):
    outcome, _ = batches(26, process=Number({5, 50, 77}), num_workers=workers, settings=lenient(), keys=0)
    assert all(torch.equal(batch["keys"], batch["number"]) for batch in outcome)
    assert not {5, 50, 77} & set(torch.cat([batch["keys"] for batch in outcome]).tolist())
    few, _ = batches(3, numbered(rows=6), Number({2}), settings=lenient(), keys=0)  # good rows are repeated
    assert all(torch.equal(batch["keys"], batch["number"]) for batch in few)


def test_keys_change_nothing_else():
    plain, first = batches(26, process=Number({5}), settings=lenient())
    keyed, second = batches(26, process=Number({5}), settings=lenient(), keys=0)
    assert first.sample_log.digest == second.sample_log.digest
    for a, b in zip(plain, keyed, strict=True):
        assert set(a) == {"number", "draw"} and set(b) == {"number", "draw", "keys"}
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_row_comes_once(ranks, workers):
    """Although the shares of the sources differ from their rows, and the last batches reach into the next epoch."""
    bad = {7, 155, 299}
    options = dict(seed=3, settings=lenient(), num_workers=workers, ranks=ranks)
    found = [list(each_row(mixed(), Words(bad), 16, rank=rank, **options)) for rank in range(ranks)]
    for batch in (batch for of_rank in found for batch in of_rank):
        assert torch.equal(batch["keys"], batch["number"]) and 0 < len(batch["keys"]) <= 16
    assert sorted(numbers(batch for of_rank in found for batch in of_rank)) == sorted(set(range(300)) - bad)
    first = texts(0, 150)  # every rank gets every n-th row of the order
    order = StreamLoader(first, Words(), 16, seed=3, settings=lenient()).reader
    for rank, of_rank in enumerate(found):
        expected = [order.number(g) for g in range(rank, 150, ranks)]
        assert numbers(of_rank)[: len(expected) - 2] == [n for n in expected if n not in bad][: len(expected) - 2]


class Draws(Words):
    """Row {"text": "7 ..."} -> its number, and a draw from its generator."""

    def __call__(self, row, random):
        return {**super().__call__(row, random), "draw": torch.tensor(random.random())}


def drawn(draw: int, seed: int = 3, window: int = 50, **options) -> dict[int, float]:
    settings = lenient(window=window)
    outcome = [
        batch
        for rank in range(options.get("ranks", 1))
        for batch in each_row(mixed(), Draws(), 16, seed=seed, settings=settings, rank=rank, draw=draw, **options)
    ]
    return dict(zip(numbers(outcome), torch.cat([batch["draw"] for batch in outcome]).tolist(), strict=True))


@pytest.mark.parametrize("options", [dict(window=3), dict(ranks=3), dict(num_workers=2)])
def test_what_is_drawn_for_each_row_depends_on_the_row_and_the_number_of_the_draw_alone(options):
    """Not on the order: another --window must not give other clips of the same rows."""
    first = drawn(0)
    assert drawn(0, **options) == first
    assert len(set(first.values())) == 300
    for other in (drawn(1, **options), drawn(0, seed=4, **options)):
        assert not set(other.values()) & set(first.values())


def test_few_rows_leave_some_ranks_without_batches():
    found = [list(each_row(Mixture(texts(0, 3)), Words(), 4, rank=rank, ranks=5)) for rank in range(5)]
    assert [len(batches) for batches in found] == [1, 1, 1, 0, 0]
    assert sorted(numbers(batch for of_rank in found for batch in of_rank)) == [0, 1, 2]


class KeyedForPreTraining(RotationForPreTraining):
    """Rotation that looks at the keys of its batches."""

    objective, task_class, needs_keys = "keyed", RotationTask, True

    def set_rows(self, rows):
        self.rows, self.seen, self.rounds, self.sizes, self.brightness = rows, [], [], [], {}

    def forward(self, keys, pixel_values):
        self.seen.append((keys, pixel_values.detach().mean((1, 2, 3))))
        return super().forward(pixel_values)

    def before_round(self, batches):
        batches = list(batches)
        self.sizes += [len(batch["keys"]) for batch in batches]
        for batch in batches:
            self.brightness |= dict(zip(batch["keys"].tolist(), batch["pixel_values"].mean((1, 2, 3)), strict=True))
        self.rounds.append(torch.cat([batch["keys"] for batch in batches]))
        return {"rows_read": len(self.rounds[-1])}


class EveryOtherEpoch(KeyedForPreTraining):
    round_epochs = 2


def train(folder, model_class, data, stream=None, augmentation=None, **options):
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, disable_tqdm=True,
        **{"per_device_train_batch_size": 8, "max_steps": 7, "logging_steps": 1, "save_steps": 4, **options},
    )  # fmt: skip
    model = model_class.from_encoder(CONFIGS["resnet"]())
    return PretextTrainer(model, args, data, Image(default_processor(IMAGE), augmentation), stream=stream)


def gray(rows: int) -> list[dict]:
    """Images whose brightness is the number of their row."""
    from PIL import Image as Pillow

    values = [np.full((IMAGE, IMAGE, 3), 10 * i % 256, np.uint8) for i in range(rows)]
    features = datasets.Features({"image": datasets.Image()})
    return datasets.Dataset.from_dict({"image": [Pillow.fromarray(value) for value in values]}, features)


def test_the_trainer_gives_keys_to_a_model_that_needs_them(tmp_path):
    trainer = train(tmp_path, KeyedForPreTraining, open_source(gray(20)))
    trainer.train()
    model = trainer.model
    assert model.rows == 20 and len(model.seen) == 7
    for keys, brightness in model.seen:  # normalised with mean and deviation 0.5
        torch.testing.assert_close(brightness, 2 * (10 * keys / 255) - 1, atol=1e-4, rtol=0)
    resumed = train(tmp_path, KeyedForPreTraining, open_source(gray(20)))
    resumed.train(str(tmp_path / "checkpoint-4"))
    for (keys, _), (same, _) in zip(model.seen[4:], resumed.model.seen, strict=True):
        assert torch.equal(keys, same)


def test_a_round_reads_each_row_once_and_its_values_are_logged(tmp_path):
    trainer = train(tmp_path, KeyedForPreTraining, open_source(gray(20)))
    trainer.train()
    assert [sorted(keys.tolist()) for keys in trainer.model.rounds] == [list(range(20))] * 3  # 56 samples of 20 rows
    logged = [(entry["step"], entry["rows_read"]) for entry in trainer.state.log_history if "rows_read" in entry]
    assert logged == [(0, 20), (3, 20), (6, 20)]  # an epoch is 3 whole steps


def test_a_round_reads_rows_without_random_changes_in_batches_of_one_device(tmp_path):
    options = dict(augmentation=Augmentation(color_jitter=0.8), gradient_accumulation_steps=2, max_steps=2)
    trainer = train(tmp_path, KeyedForPreTraining, open_source(gray(20)), **options)
    trainer.train()
    model = trainer.model
    assert model.sizes == [8, 8, 4]
    for key, brightness in model.brightness.items():  # normalised with mean and deviation 0.5
        assert brightness == pytest.approx(2 * (10 * key / 255) - 1, abs=1e-4)
    changed = [abs(value - model.brightness[int(key)]) for some in model.seen for key, value in zip(*some, strict=True)]
    assert max(changed) > 0.1, "training has the changes"


@pytest.mark.slow
def test_another_batch_size_on_resume_skips_and_repeats_no_round(tmp_path):
    """A round is 100 rows, and 13 steps of 8: the second begins after 104 samples."""
    options = dict(save_steps=1, max_steps=18)
    whole = train(tmp_path / "whole", KeyedForPreTraining, open_source(gray(100)), **options)
    whole.train()
    assert len(whole.model.rounds) == 2
    for step, size, rounds in ((13, 2, 1), (13, 16, 1), (14, 16, 0), (14, 2, 0), (12, 2, 1)):
        options |= dict(per_device_train_batch_size=size, save_strategy="no")
        folder = tmp_path / f"{step}-{size}"
        shutil.copytree(tmp_path / "whole", folder)
        resumed = train(folder, KeyedForPreTraining, open_source(gray(100)), **options)
        resumed.train(str(folder / f"checkpoint-{step}"))
        assert len(resumed.model.rounds) == rounds, (step, size)


def test_a_round_may_last_several_epochs(tmp_path):
    trainer = train(tmp_path, EveryOtherEpoch, open_source(gray(20)), max_steps=13)
    trainer.train()
    assert len(trainer.model.rounds) == 3  # of 6 steps


def test_data_without_a_length_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="Counter has no known length, but keyed keeps a value for each row.*Give data "
    ):
        train(tmp_path, KeyedForPreTraining, open_source(Counter()))


def test_other_data_in_a_resumed_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--allow_changed_source: keyed keeps a value for each row.*Leave it out"):
        train(tmp_path, KeyedForPreTraining, open_source(gray(20)), stream=StreamSettings(allow_changed_source=True))


def test_other_objectives_get_no_keys(tmp_path):
    assert not PretextModel.needs_keys
    trainer = train(tmp_path, RotationForPreTraining, open_source(gray(20)), max_steps=1)
    assert set(next(iter(trainer.get_train_dataloader()))) == {"pixel_values"}
