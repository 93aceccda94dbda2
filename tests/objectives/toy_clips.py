"""Rows of toy sounds and films with known classes, small encoders for them, and a run of XDC that tests kill.

`python tests/objectives/toy_clips.py --output_dir run [options]`: options are those of `TrainingArguments` and below.
Leaves `found-rank*.json` at its end.
"""

import hashlib
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import HfArgumentParser, ResNetConfig, TrainingArguments, set_seed

from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import default_processor
from hf_pretext.objectives.xdc import XdcForPreTraining
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer
from hf_pretext.utils.ranks import rank_and_ranks

CLASSES, SIDE, FRAMES = 4, 12, 2
SOUND, FILM = (1, SIDE, SIDE), (FRAMES, 3, SIDE, SIDE)


def resnet(channels: int) -> ResNetConfig:
    return ResNetConfig(
        num_channels=channels, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )


def toy_rows(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Classes `(n,)`, sounds that are almost the pattern of the class, films in which noise and brightness hide it."""
    patterns = torch.Generator().manual_seed(0)
    of_sounds = torch.randn(CLASSES, *SOUND, generator=patterns)
    of_films = torch.randn(CLASSES, 1, *FILM[1:], generator=patterns)
    draws, classes = torch.Generator().manual_seed(seed + 1), torch.arange(rows) % CLASSES
    sounds = of_sounds[classes] + 0.1 * torch.randn(rows, *SOUND, generator=draws)
    brightness = 3 * torch.randn(rows, 1, 1, 1, 1, generator=draws)
    films = of_films[classes] + torch.randn(rows, *FILM, generator=draws) + brightness
    return classes, sounds, films


def toy_batches(sounds, films, order, size: int = 32):
    """Batches of some rows, with their keys."""
    for keys in order.split(size):
        yield {"keys": keys, "pixel_values": sounds[keys], "video_pixel_values": films[keys]}


class Toy:
    """Processing: the row {"text": "7"} is row 7 of the toy rows. Some are bad."""

    processor, fills = default_processor(SIDE), {}

    def __init__(self, rows: int, bad: Sequence[int] = ()):
        (_, self.sounds, self.films), self.bad = toy_rows(rows), bad

    def __call__(self, row, random):
        number = int(row["text"])
        if number in self.bad:
            raise BadSample("broken on purpose")
        return {"pixel_values": self.sounds[number], "video_pixel_values": self.films[number]}

    def finish(self, batch):
        return batch

    def evaluation(self):
        return self


@dataclass
class Options:
    """die_at: kill this process, as by SIGKILL, in the forward pass of this step. bad: rows that can't be read. fails:
    the rank that fails while it reads rows for the clusters."""

    rows: int = 40
    labels: str = "cross"
    clusters: int = 4
    die_at: int | None = None
    last: bool = False
    fails: int | None = None
    bad: list[int] = field(default_factory=lambda: [7, 22])


class Counted(XdcForPreTraining):
    """Counts its rounds and the rows that it read for them."""

    def before_round(self, batches):
        self.read.append([])
        return super().before_round(self.counted(batches))

    def counted(self, batches):
        for batch in batches:
            if self.fails == rank_and_ranks()[0]:
                raise ValueError("failed on purpose")
            self.read[-1] += batch["keys"].tolist()
            yield batch


def main() -> None:
    options, args = HfArgumentParser((Options, TrainingArguments)).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    set_seed(args.seed)
    settings = dict(labels=options.labels, num_clusters=options.clusters, cluster_rows=30)
    model = Counted.from_encoders(audio=resnet(1), video=resnet(3), **settings)
    model.read, model.fails = [], options.fails
    data = open_source([{"text": str(i)} for i in range(options.rows)], needed=("text",))
    stream = StreamSettings(max_bad_fraction=1.0)
    trainer = PretextTrainer(model, args, data, Toy(options.rows, options.bad), stream=stream)
    compute = trainer.compute_loss

    def dying(*args, **kwargs):
        if trainer.state.global_step == options.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(*args, **kwargs)

    trainer.compute_loss = dying
    trainer.train("last" if options.last else None)
    state = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    found = {
        "read": model.read,
        "codes": {name: model.clusters.codes(name).tolist() for name in model.clusters.widths},
        "weights": hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest(),
        "logs": [entry for entry in trainer.state.log_history if "train_runtime" not in entry],
    }
    (Path(args.output_dir) / f"found-rank{args.process_index}.json").write_text(json.dumps(found))
    trainer.end()


if __name__ == "__main__":
    main()
