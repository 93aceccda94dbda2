"""The pretext loss on data without labels: the same samples, clips and corruption at each evaluation.

eval_dataset -> rows, each once, without augmentation -> eval() -> {"loss", "accuracy", ...}
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from ..data.sources import Source
from ..modalities import Inputs
from ..modalities._for_model import open_rows, rows_for
from ..modeling import PretextModel
from ..stream.loader import each_row
from ..stream.mixture import Mixture
from ..stream.settings import StreamSettings
from .comparison import pretext_metrics

SEED = 0  # of the order of the rows, and of clips and views


class PretextSet:
    """Rows without labels on which the pretext task is measured.

    data: rows for the stream (see `modalities._for_model.rows_for`). inputs: without augmentation, except for several
    views of a row, which augmentation makes different. batch_size: rows of a batch, on
    which contrastive losses depend. least: smallest batch that the objective takes. workers: processes that decode.
    """

    def __init__(self, data: Sequence[Source], inputs: Inputs, batch_size: int, least: int = 1, workers: int = 0):
        """Raises `ValueError` for data of unknown length, or of fewer than `least` rows."""
        self.data, self.inputs = Mixture(data), inputs
        self.batch_size, self.least, self.workers = batch_size, least, workers
        if self.data.endless:
            raise ValueError(f"eval_dataset: {self.data.name} has no known length. Give data with a length.")
        if len(self.data) < least:
            raise ValueError(f"eval_dataset: {self.data.name} has {len(self.data)} row. Give at least {least} rows.")

    def batches(self, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Yields batches of model inputs. Rows that can't be used, and a last batch below `least`, are left out."""
        rows = each_row(self.data, self.inputs, self.batch_size, seed=SEED, num_workers=self.workers)
        for batch in rows:
            keys = batch.pop("keys")
            if len(keys) >= self.least:
                yield self.inputs.finish({name: value.to(device) for name, value in batch.items()})

    def metrics(self, model: PretextModel, device: torch.device) -> dict[str, float]:
        """Returns the mean loss and the means of the objective's logs, by name, in float32. Raises `ValueError` if no
        row can be used."""
        return pretext_metrics(model, self.batches(device), device)


def held_out_set(
    model: PretextModel,
    inputs: Inputs,
    dataset: Any,
    columns: Mapping[str, str] | None,
    stream: StreamSettings,
    batch_size: int,
    args: TrainingArguments,
) -> PretextSet:
    """Opens a dataset like the training data, and returns it as a `PretextSet`. Arguments are those of `open_rows`.

    dataset: may also be an open `Source` or `Mixture`. Raises `ValueError` for an objective that keeps a value for each
    row of the training data, and like `open_rows` and `PretextSet`."""
    if model.needs_keys:
        raise ValueError(
            f"eval_dataset has no effect: {model.objective} keeps a value for each row of the training data, "
            "which other rows do not have. Leave it out, and give evaluation=, a function model -> {name: value}."
        )
    inputs = inputs if inputs.views else inputs.evaluation()
    opened = isinstance(dataset, Source | Mixture)
    data = dataset if opened else open_rows(model, inputs, dataset, columns, stream, "eval_dataset", held_out=True)
    sources = data.sources if isinstance(data, Mixture) else [data]
    rows, batch_size = rows_for(model, inputs, sources, batch_size)
    return PretextSet(rows, inputs, batch_size, model.least_batch_of(model.task), args.dataloader_num_workers)


def measured(
    model: PretextModel,
    sets: Mapping[str, PretextSet],
    device: torch.device,
    evaluation: Callable[[PretextModel], Mapping[str, float]] | None = None,
) -> dict[str, float]:
    """Returns the metrics of all sets, `{"<name of the set>_loss": ...}`, and those of `evaluation`. The name of a
    single set is empty: `{"loss": ...}`. Raises `ValueError` for two metrics of one name."""
    metrics, more = {}, {} if evaluation is None else evaluation(model)
    for name, each in sets.items():
        begin = f"{name}_" if name else ""
        metrics |= {f"{begin}{metric}": value for metric, value in each.metrics(model, device).items()}
    if twice := sorted(metrics.keys() & more.keys()):
        raise ValueError(f"evaluation returns {', '.join(twice)}, which eval_dataset gives, too. Rename it.")
    return {**metrics, **more}
