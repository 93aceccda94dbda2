"""A run of audio-visual correspondence on the films of the repository, that tests kill, resume and spread.

`python tests/objectives/film_run.py --output_dir run [options]`: options are those of `TrainingArguments` and below.
Each clip has a random place in time, and random changes of its sound and frames. Leaves `found-rank*.json` at its end.
"""

import hashlib
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from toy_clips import resnet
from transformers import HfArgumentParser, TrainingArguments, Wav2Vec2FeatureExtractor, set_seed

from hf_pretext.data.sources import open_source
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio, AudioArguments
from hf_pretext.modalities.image import Augmentation
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.objectives.audio_visual import AudioVisualForPreTraining
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer

FILMS = Path(__file__).parents[2] / "recipes" / "data" / "emoji_films" / "train-*.tar"  # of 2 s each


@dataclass
class Options:
    """die_at: kill this process, as by SIGKILL, in the forward pass of this step."""

    fusion: str = "distance"
    easy_until: float = 0.5
    die_at: int | None = None
    last: bool = False


def inputs_for(model: AudioVisualForPreTraining) -> Inputs:
    changes = AudioArguments(noise_level=-10.0, time_mask=0.2, frequency_mask=0.2, loudness_jitter=6.0, num_mel_bins=16)
    sounds = Audio(Wav2Vec2FeatureExtractor(), 1.0, settings=changes)
    films = Video(default_video_processor(16), 2, seconds=1.0, augmentation=Augmentation(crop_scale=0.5))
    sounds.fit(model.encoders["audio"])
    films.fit(model.encoders["video"])
    return Inputs(sounds, films, views=model.views_of(model.task))


def main() -> None:
    options, args = HfArgumentParser((Options, TrainingArguments)).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    set_seed(args.seed)
    model = AudioVisualForPreTraining.from_encoders(
        audio=resnet(1), video=resnet(3), fusion=options.fusion, negatives="shifted", easy_until=options.easy_until,
        shifted_share=0.5, min_shift=0.4, embedding_dim=16,
    )  # fmt: skip
    inputs = inputs_for(model)
    model.freeze_unused(inputs.noise()[0])
    data = open_source(str(FILMS), needed=inputs.needed)
    trainer = PretextTrainer(model, args, data, inputs, stream=StreamSettings(parts=4))
    compute = trainer.compute_loss

    def dying(*args, **kwargs):
        if trainer.state.global_step == options.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(*args, **kwargs)

    trainer.compute_loss = dying
    trainer.train("last" if options.last else None)
    account = trainer.account()
    state = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    found = {
        "weights": hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest(),
        "logs": [entry for entry in trainer.state.log_history if "train_runtime" not in entry],
        "digest": account["digest"],
    }
    (Path(args.output_dir) / f"found-rank{args.process_index}.json").write_text(json.dumps(found))
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
