"""What VideoBERT answers by, on films whose visual words follow each other, next to texts of noise."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CONFIGS, TEXT
from transformers import BertConfig

from hf_pretext.audit.class_cues import SHUFFLED
from hf_pretext.audit.film_tokens import FilmTokens
from hf_pretext.audit.task import task_audit
from hf_pretext.audit.token_cues import FREQUENCY
from hf_pretext.encoders import build_encoder
from hf_pretext.modules.masking import IGNORED, positions_of
from hf_pretext.modules.token_cues import IN_PLACE, LEFT, NEIGHBOURS, POSITION, RIGHT, tokens_at
from hf_pretext.modules.video_text import VIDEO_TYPE
from hf_pretext.objectives.videobert import VideobertForPreTraining

PAD, UNK, CLS, SEP, MASK = range(5)
VIDEO, FIRST = 50, 51  # ids of [>] and of the first visual word
KINDS, FILM, LENGTH = 9, 8, 10  # visual words: of all, and of a film; tokens of a text with both ends
MASKED = round(FILM / 4)
KINDS_OF_DATA = SimpleNamespace(inputs=SimpleNamespace(by_name={"text": None, "video": None}))
ROWS = {"train": 900, "validation": 300, "test": 400}
WORDS, FILMS = "words", "visual words"


class Known(FilmTokens):
    """In place of a labelled set, films whose visual words count up, and random texts of two lengths."""

    def _batches(self, split, most):
        random = torch.Generator().manual_seed(len(split))
        for _ in range(0, ROWS[split], 100):
            ids = torch.randint(5, VIDEO, (100, LENGTH), generator=random)
            ids[:, 0], ids[:, -1] = CLS, SEP
            ids[:50, -3], ids[:50, -2:] = SEP, PAD
            film = torch.randint(KINDS, (100, 1), generator=random) + torch.arange(FILM)
            yield {"input_ids": ids, "attention_mask": (ids != PAD).long(), "visual_words": film % KINDS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen")
    build_encoder(CONFIGS["resnet"]()).save_pretrained(path)
    return str(path)


def model_of(folder: str, fitted: bool = True, **settings) -> VideobertForPreTraining:
    ids = dict(cls_token_id=CLS, sep_token_id=SEP, mask_token_id=MASK, special_token_ids=[PAD, UNK, CLS, SEP, MASK])
    shape = dict(num_words=FILM, levels=2, branches=3, video_mask_ratio=0.25, word_encoder=folder)
    torch.manual_seed(0)
    model = VideobertForPreTraining.from_encoder(
        BertConfig(**{**TEXT, "max_position_embeddings": 24}), **ids, **shape, **settings
    )
    model.visual_words.counts.fill_(float(fitted))
    return model


def counting(question, asked, input_ids, attention_mask, token_type_ids):
    """Answers the visual word that follows the one on the left, or the one before that on the right."""
    where, size = positions_of(asked), FIRST + KINDS
    left, right = (tokens_at(input_ids, place, 0)[where] - FIRST for place in (-1, 1))
    word = torch.where(left >= 0, left + 1, right - 1) % KINDS
    return torch.nn.functional.one_hot(word + FIRST, size) * 20.0


def test_visual_words_are_in_their_neighbours_and_words_of_noise_in_nothing(folder):
    table = Known(model_of(folder), KINDS_OF_DATA).sufficiency()
    visible = (FILM - MASKED) / (FILM - 1)  # probability that another word is not masked
    one = np.log2(KINDS) * visible * (1 - 1 / FILM)
    for cue in (LEFT, RIGHT):
        assert table[f"{cue.name} ({FILMS})"]["bits"][0] == pytest.approx(one, abs=0.2)
    assert table[f"{NEIGHBOURS.name} ({FILMS})"]["bits"][0] > one + 0.3
    nothing = [f"{cue.name} ({WORDS})" for cue in (LEFT, RIGHT, NEIGHBOURS, POSITION)]
    for name in (*nothing, f"{POSITION.name} ({FILMS})", *(f"{SHUFFLED} ({kind})" for kind in (WORDS, FILMS))):
        assert abs(table[name]["bits"][0]) < 0.02, name
    for kind in (WORDS, FILMS):
        assert table[f"{FREQUENCY} ({kind})"]["bits"] == [0.0]
        assert table[f"{IN_PLACE.name} ({kind})"]["bits"][0] < 0.5  # a tenth of what is masked stays as it is
    assert {each["question"] for each in table.values()} == {"words", "visual_words"}
    assert Known(model_of(folder), KINDS_OF_DATA).sufficiency() == table


def test_a_model_that_counts_relies_on_the_neighbours(folder):
    audit = Known(model_of(folder), KINDS_OF_DATA)
    audit.model.answer = counting
    answers, relies = audit.answers(), audit.reliance()
    visible = (FILM - MASKED) / (FILM - 1)
    assert answers["bits_visual_words"] > np.log2(KINDS) * visible - 0.2 and abs(answers["bits_words"]) < 1e-6
    assert answers["bits"] == pytest.approx(answers["bits_visual_words"] / 2)
    both = relies[f"{NEIGHBOURS.name} ({FILMS})"]
    assert both["conflict"] > 0.8 and both["without"] < 0.3
    assert relies[f"{IN_PLACE.name} ({FILMS})"]["without"] > 0.8


def test_questions_are_those_of_training_on_right_pairs(folder):
    model = model_of(folder).eval()
    batch = next(Known(model, KINDS_OF_DATA)._batches("test", 0))
    model.eval_seed = 3
    words, films = (model.ask(question=name, **batch) for name in model.questions)
    assert torch.equal(words.inputs["input_ids"], films.inputs["input_ids"])
    assert not ((words.labels != IGNORED) & (films.labels != IGNORED)).any()
    of_film = films.inputs["token_type_ids"] == VIDEO_TYPE
    for asked, first in ((words, 5), (films, FIRST)):
        ids, labels = asked.unmasked
        hidden = asked.labels != IGNORED
        assert torch.equal(ids[hidden], asked.labels[hidden]) and torch.equal(labels[hidden], asked.labels[hidden])
        possible = labels != IGNORED
        assert (ids[possible] >= first).all() and torch.equal(ids[possible], labels[possible])
    assert int((words.labels != IGNORED)[of_film].sum()) == 0
    assert (films.unmasked[1] != IGNORED).sum(1).eq(FILM).all() and (films.labels != IGNORED).sum(1).eq(MASKED).all()
    shown = torch.where(of_film & (films.unmasked[0] >= FIRST), films.unmasked[0] - FIRST, -1)
    assert torch.equal(shown[shown >= 0].view(100, FILM), batch["visual_words"])
    with torch.no_grad():
        seen = model.answer(question="words", asked=words.labels != IGNORED, **words.inputs)
    assert seen.shape == (int((words.labels != IGNORED).sum()), FIRST + KINDS)


def test_only_what_is_learned_is_asked(folder):
    assert model_of(folder, text_weight=0.0).questions == ("visual_words",)
    fresh = model_of(folder, fitted=False)
    assert fresh.questions == () and task_audit(fresh, KINDS_OF_DATA) is None
    assert isinstance(task_audit(model_of(folder), KINDS_OF_DATA), FilmTokens)


def test_a_set_without_films_can_not_be_asked(folder):
    texts = SimpleNamespace(inputs=SimpleNamespace(by_name={"text": None}))
    with pytest.raises(ValueError, match="answers are made from video.*--audit"):
        task_audit(model_of(folder), texts)
