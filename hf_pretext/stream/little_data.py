"""Warns about data that is too little to learn from, from counts that are known and from the first batches of a run.

rows, samples of a step, steps -> passes over the rows; first batches with input_ids -> different texts and tokens
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor
from transformers import TrainerCallback
from transformers.utils import logging

from ..utils.paths import relative
from .mixture import Mixture
from .order import MixedOrder

MOST_PASSES = 1000  # over the rows of a source
LOOKED_AT, FEW = 64, 8  # texts of the first batches, and how many of them must differ
log = logging.get_logger(__name__)


class LittleData(TrainerCallback):
    """Callback that warns once about each kind of too little data. It reads nothing that is not read anyway.

    main_process: False keeps silent."""

    def __init__(self, data: Mixture, main_process: bool):
        self.data, self.main_process = data, main_process
        self._texts: list[tuple[int, ...]] = []

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        """Warns if a step has more samples than the data has rows, and about too many passes over a source."""
        if self.main_process:
            step = state.train_batch_size * args.gradient_accumulation_steps * args.world_size
            for note in passes_notes(self.data, train_dataloader.reader.order, step, state.max_steps):
                log.warning(note)

    def look(self, batches: Sequence[Mapping[str, Tensor]]) -> None:
        """Takes the texts of batches of the loader, until there are enough, and warns if most of them are equal."""
        for batch in batches if self.main_process else ():
            missing = LOOKED_AT - len(self._texts)
            if missing > 0 and "input_ids" in batch:
                self._texts += texts_of(batch, missing)
                if len(self._texts) == LOOKED_AT:
                    self._warn()

    def on_train_end(self, args, state, control, **kwargs):
        """Judges the texts of a run that was too short to see enough of them."""
        if 2 * FEW <= len(self._texts) < LOOKED_AT:
            self._warn()

    def _warn(self) -> None:
        if note := texts_note(self._texts):
            log.warning(note)


def passes_notes(data: Mixture, order: MixedOrder, step: int, steps: int) -> Iterator[str]:
    """Yields warnings for data with few rows. step: samples of a step of all processes. steps: of the run."""
    if not data.endless and step > len(data):
        yield (
            f"{relative(data.name)} has fewer rows ({len(data):,}) than a step has samples ({step:,}): each step takes "
            f"a row about {step / len(data):,.1f} times. Give a smaller --per_device_train_batch_size, or more data."
        )
    for source, samples in zip(data.sources, order.drawn(step * steps), strict=True):
        if not source.endless and samples > MOST_PASSES * len(source):
            yield (
                f"The run makes {samples / len(source):,.0f} passes over {relative(source.name)}, which has "
                f"{len(source):,} rows. Give fewer --max_steps or --num_train_epochs, or more data."
            )


def texts_of(batch: Mapping[str, Tensor], most: int) -> list[tuple[int, ...]]:
    """Returns the tokens of the first texts of a batch, without padding where it has an attention mask."""
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    rows = ids.reshape(-1, ids.shape[-1])[:most]
    if mask is None or mask.shape != ids.shape:
        return [tuple(row) for row in rows.tolist()]
    masks = mask.reshape(-1, mask.shape[-1])[:most].bool()
    return [tuple(row[kept].tolist()) for row, kept in zip(rows, masks, strict=True)]


def texts_note(texts: Sequence[tuple[int, ...]]) -> str | None:
    """Returns a warning if few of the texts differ; else None."""
    different, tokens = len(set(texts)), len({token for text in texts for token in text})
    if different >= FEW:
        return None
    return (
        f"Among the first {len(texts)} texts, only {different} differ, with {tokens} different tokens: they are too "
        "few to learn from. Choose another column of texts (--text_column), or give more data."
    )
