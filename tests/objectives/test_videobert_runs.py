"""Runs of VideoBERT on films with texts: cached visual words, films and texts alone, and exact resumes."""

import pytest
import torch
from conftest import CONFIGS, IMAGE
from media import film, video
from test_videobert import WORDS, bert
from transformers import TrainingArguments

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities import Inputs, _clips
from hf_pretext.modalities.image import UNCHANGED, Augmentation, default_processor
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video
from hf_pretext.objectives.videobert import VideobertForPreTraining, VideobertTask
from hf_pretext.stream.mixture import Mixture
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer

pytestmark = pytest.mark.usefixtures("cache")
TEXTS = [f"go to the {color} {thing}" for color in ("red", "blue", "grey") for thing in ("ball", "box", "key")]
TEXT_ALONE, FILM_ALONE = {"input_ids", "attention_mask", "keys"}, {"keys"}
PAIR = TEXT_ALONE | {"labels"}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    torch.manual_seed(0)
    build_encoder(CONFIGS["resnet"]()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer(cache):
    return train_tokenizer(open_source([{"text": text} for text in TEXTS], needed=("text",)), size=80)


@pytest.fixture(scope="module")
def films():
    """Films of half a second and of one, and one that can't be read."""
    made = [film(size=(24 + 4 * i, 24), seconds=0.5 + 0.5 * (i % 2)) for i in range(8)]
    return [{"bytes": content, "path": None} for content in (*made, video(frames=9)[:200])]


@pytest.fixture
def decoded(monkeypatch):
    """Numbers of frames of all clips that this process decodes."""
    counts, decode = [], _clips.to_clip

    def counted(value, **options):
        counts.append(options["frames"])
        return decode(value, **options)

    monkeypatch.setattr(_clips, "to_clip", counted)
    return counts


def trained(folder, frozen, tokenizer, sources, resume=None, augmentation=UNCHANGED, **settings):
    """Trains five steps. Returns the trainer, and the columns of each batch of training."""
    texts = Text(tokenizer, 12)
    clips = Video(default_processor(IMAGE), 2 * WORDS, seconds=1.0, augmentation=Augmentation(**augmentation))
    given = dict(word_encoder=frozen, num_words=WORDS, levels=1, branches=4, word_pieces=30, max_step=2, **settings)
    task = VideobertForPreTraining.complete(VideobertTask(**given), {"text": tokenizer, "video": clips.processor})
    torch.manual_seed(0)
    config, columns = bert(vocab_size=len(tokenizer), hidden_dropout_prob=0.1), []
    model = VideobertForPreTraining.from_encoder(config, **vars(task))
    inputs = Inputs(texts, clips, pair_label="text")
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, save_steps=1, logging_steps=1, seed=1, use_cpu=True,
        disable_tqdm=True, report_to="none", learning_rate=1e-2, max_steps=5,
    )  # fmt: skip
    data = Mixture(sources, one_source_a_step=True)
    trainer = PretextTrainer(model, args, data, inputs, stream=StreamSettings(max_bad_fraction=1.0, parts=1))
    hook = lambda model, _, batch: columns.append(set(batch)) if model.training else None  # noqa: E731
    model.register_forward_pre_hook(hook, with_kwargs=True)
    trainer.train(resume and str(folder / resume))
    return trainer, columns


def sources_of(films, *kinds: str):
    rows = {
        "pairs": [{"video": each, "text": TEXTS[i % 9]} for i, each in enumerate(films)],
        "films": [{"video": each} for each in films[:8]],
        "texts": [{"text": text} for text in TEXTS],
    }
    needed = {"pairs": ("text", "video"), "films": ("video",), "texts": ("text",)}
    return [open_source(rows[kind], needed=needed[kind]) for kind in kinds]


@pytest.mark.parametrize("cache_words", [True, False])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, frozen, tokenizer, films, decoded, cache_words):
    sources = sources_of(films, "pairs")
    run, columns = trained(tmp_path, frozen, tokenizer, sources, cache_words=cache_words)
    assert columns == [PAIR if cache_words else PAIR - {"keys"} | {"pixel_values_videos"}] * 5
    assert not cache_words or (run.model.cached >= 0).all(1).tolist() == [True] * 8 + [False]
    decoded.clear()
    resumed, columns = trained(tmp_path, frozen, tokenizer, sources, "checkpoint-3", cache_words=cache_words)
    assert len(columns) == 2
    if cache_words:
        assert len(decoded) <= 9 + 4  # once each, and substitutes of the bad one
        assert torch.equal(resumed.model.cached, run.model.cached)
    for name, value in run.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert resumed.account()["digest"] == run.account()["digest"]


def test_films_alone_and_texts_alone_train_as_their_own_kinds_with_cached_visual_words(
    tmp_path, frozen, tokenizer, films
):
    sources = sources_of(films, "pairs", "films", "texts")
    run, columns = trained(tmp_path, frozen, tokenizer, sources, cache_words=True)
    known = (run.model.cached >= 0).all(1).tolist()
    assert known == [True] * 8 + [False] + [True] * 8 + [False] * 9
    assert {frozenset(each) for each in columns} == {frozenset(each) for each in (PAIR, FILM_ALONE, TEXT_ALONE)}
    terms = {name for entry in run.state.log_history for name in entry if name.startswith("loss_")}
    assert terms == {
        "loss_words", "loss_visual_words", "loss_pair_words", "loss_pair_visual_words", "loss_alignment"
    }  # fmt: skip


def test_texts_with_times_are_refused_with_cached_visual_words(tmp_path, frozen, tokenizer, films):
    rows = [{"video": each, "text": TEXTS[:2], "start": [0.0, 0.4], "end": [0.3, 0.8]} for each in films[:8]]
    source = open_source(rows, needed=(("text", "subtitles"), "video"))
    with pytest.raises(ValueError, match="has texts with times, .* Give --cache_words False"):
        trained(tmp_path, frozen, tokenizer, [source], cache_words=True)
    _, columns = trained(tmp_path, frozen, tokenizer, [source])
    assert len(columns) == 5


def test_frames_are_not_changed_at_random(tmp_path, frozen, tokenizer, films):
    changed = {**UNCHANGED, "crop_scale": 0.5}
    with pytest.raises(ValueError, match="--crop_scale 0.5: visual words are those of films as they are"):
        trained(tmp_path, frozen, tokenizer, sources_of(films, "pairs"), augmentation=changed)
