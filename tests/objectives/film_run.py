"""A run on films that tests kill, resume and spread: of audio-visual correspondence on those of the repository, or of
MIL-NCE on a folder with subtitles.

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
from conftest import CONFIGS
from rank_runs import start
from tokenizers import Tokenizer, models, pre_tokenizers
from toy_clips import resnet
from transformers import (
    BertConfig,
    HfArgumentParser,
    PreTrainedTokenizerFast,
    TrainingArguments,
    Wav2Vec2FeatureExtractor,
    set_seed,
)

from hf_pretext.data.sources import open_source
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.audio import Audio, AudioArguments
from hf_pretext.modalities.image import Augmentation
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.modeling import PretextModel
from hf_pretext.objectives.audio_visual import AudioVisualForPreTraining
from hf_pretext.objectives.mil_nce import MilNceForPreTraining
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer

FILMS = Path(__file__).parents[2] / "hf_pretext" / "samples" / "emoji_films" / "train-*.tar"  # of 2 s each
VERBS, NOUNS = ("cut", "stir", "fry", "wash", "peel"), ("onions", "rice", "carrots", "beans", "leeks")
SENTENCES = [f"now {verb} the {noun}" for verb in VERBS for noun in NOUNS]


@dataclass
class Options:
    """die_at: kill this process, as by SIGKILL, in the forward pass of this step. narrated: folder of films with
    subtitles, for MIL-NCE."""

    narrated: str | None = None
    fusion: str = "distance"
    easy_until: float = 0.5
    die_at: int | None = None
    last: bool = False


def audio_visual(options: Options) -> tuple[PretextModel, Inputs]:
    model = AudioVisualForPreTraining.from_encoders(
        audio=resnet(1), video=resnet(3), fusion=options.fusion, negatives="shifted", easy_until=options.easy_until,
        shifted_share=0.5, min_shift=0.4, embedding_dim=16,
    )  # fmt: skip
    changes = AudioArguments(noise_level=-10.0, time_mask=0.2, frequency_mask=0.2, loudness_jitter=6.0, num_mel_bins=16)
    sounds = Audio(Wav2Vec2FeatureExtractor(), 1.0, settings=changes)
    films = Video(default_video_processor(16), 2, seconds=1.0, augmentation=Augmentation(crop_scale=0.5))
    sounds.fit(model.encoders["audio"])
    films.fit(model.encoders["video"])
    return model, Inputs(sounds, films, views=model.views_of(model.task))


def mil_nce() -> tuple[PretextModel, Inputs]:
    """Without batch norm and dropout, so that ranks compute what one does."""
    words = ["[PAD]", "[UNK]", *sorted({word for sentence in SENTENCES for word in sentence.split()})]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]")
    text = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = MilNceForPreTraining.from_encoders(video=CONFIGS["vit"](), text=text, bag_size=3, embedding_dim=16)
    films = Video(default_video_processor(32), 2, seconds=0.5, augmentation=Augmentation(crop_scale=0.5))
    films.fit(model.encoders["video"])
    return model, Inputs(films, Text(tokenizer, 8), views=model.views_of(model.task))


def main() -> None:
    options, args = HfArgumentParser((Options, TrainingArguments)).parse_args_into_dataclasses()
    torch.set_num_threads(1)
    set_seed(args.seed)
    model, inputs = mil_nce() if options.narrated else audio_visual(options)
    model.freeze_unused(inputs.noise()[0])
    data = open_source(options.narrated or str(FILMS), needed=inputs.needed)
    trainer = PretextTrainer(model, args, data, inputs, stream=StreamSettings(parts=4, max_bad_fraction=0.5))
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
        **account,
    }
    (Path(args.output_dir) / f"found-rank{args.process_index}.json").write_text(json.dumps(found))
    trainer.end()


# in tests


def run(folder: Path, ranks: int = 1, expect: int = 0, **options) -> str:
    """Runs this file with some options, and returns what it writes to stderr."""
    words = [word for name, value in {"output_dir": folder, **options}.items() for word in (f"--{name}", str(value))]
    return start(Path(__file__), *words, ranks=ranks, expect=expect)


def found(folder: Path, rank: int = 0) -> dict:
    return json.loads((folder / f"found-rank{rank}.json").read_text())


def same(folder: Path, unbroken: Path, names: tuple[str, ...], ranks: int = 1) -> None:
    """names: of logged values."""
    for rank in range(ranks):
        ours, theirs = found(folder, rank), found(unbroken, rank)
        for name in ("weights", "digest", "bad_samples"):
            assert ours[name] == theirs[name], name
        for name in names:
            assert [entry[name] for entry in ours["logs"]] == [entry[name] for entry in theirs["logs"]], name


if __name__ == "__main__":
    main()
