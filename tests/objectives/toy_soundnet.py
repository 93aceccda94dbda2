"""A run of SoundNet on toy clips, on one or several ranks.

`python tests/objectives/toy_soundnet.py --teacher folder --output_dir run [options]`: options are those of
`TrainingArguments` and below. Leaves `found-rank*.safetensors` at its end.
"""

import copy
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from toy_clips import Toy, resnet
from transformers import HfArgumentParser, TrainingArguments, set_seed

from hf_pretext.data.sources import open_source
from hf_pretext.objectives.soundnet import SoundnetForPreTraining
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer
from hf_pretext.utils.ranks import rank_and_ranks


@dataclass
class Options:
    """teacher: folder of the teacher. fails: the rank whose teacher can't be used."""

    teacher: str
    rows: int = 40
    fails: int | None = None


class Films(Toy):
    """Frames are brighter or darker, at random, as another clip of the film."""

    frames = True

    def facts(self):
        return {}

    def __call__(self, row, random):
        example = super().__call__(row, random)
        if not self.frames:
            return {"pixel_values": example["pixel_values"]}
        return {**example, "video_pixel_values": example["video_pixel_values"] * random.random()}

    def keep_processor_of(self, kind):
        pass

    def only(self, kinds):
        other = copy.copy(self)
        other.frames = False
        return other


class Noted(SoundnetForPreTraining):
    """Notes the keys of the rows that this rank computes posteriors of."""

    def before_training(self, batches):
        super().before_training(self.noted(batches))

    def noted(self, batches):
        for batch in batches:
            if self.fails == rank_and_ranks()[0]:
                raise ValueError("failed on purpose")
            self.read += batch["keys"].tolist()
            yield batch


def main() -> None:
    options, args = HfArgumentParser((Options, TrainingArguments)).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    set_seed(args.seed)
    model = Noted.from_encoder(resnet(1), teachers=[options.teacher])
    model.read, model.fails = [], options.fails
    data = open_source([{"text": str(i)} for i in range(options.rows)], needed=("text",))
    stream = StreamSettings(max_bad_fraction=1.0)
    trainer = PretextTrainer(model, args, data, Films(options.rows, [7, 22]), stream=stream)
    trainer.train()
    found = {
        "cached": model.cached,
        "read": torch.tensor(sorted(model.read)),
        "head": model.pretext_head.teacher_1.bias,
    }
    save_file(found, f"{args.output_dir}/found-rank{args.process_index}.safetensors")
    trainer.end()


if __name__ == "__main__":
    main()
