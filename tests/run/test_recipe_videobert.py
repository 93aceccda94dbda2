"""VideoBERT's recipe in smoke size, on films with sentences that are made here, and on texts alone."""

import json

import pytest
from media import video
from recipe_runs import main, refused
from transformers import AutoModel, AutoTokenizer, BertModel, ResNetModel

import hf_pretext

pytestmark = pytest.mark.usefixtures("cache")
VIDEOBERT = "videobert_babyai"
UNMEASURED = ("--eval_dataset", "none")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Eight films of 1 to 3 seconds, each with a sentence next to it."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(8):
        (folder / f"{number}.mp4").write_bytes(video(frames=10 + 3 * number))
        (folder / f"{number}.txt").write_text(f"go to the {('red', 'blue', 'grey', 'green')[number % 4]} ball")
    return folder


def test_a_run_leaves_a_bert_whose_tokenizer_knows_the_new_tokens(films, tmp_path):
    run = tmp_path / "run"
    (tmp_path / "alone.txt").write_text("pick up the key\nopen the door\n" * 8)
    (tmp_path / "silent").mkdir()
    for number in range(8):
        (tmp_path / "silent" / f"{number}.mp4").write_bytes(video(frames=12 + number))
    alone = ("--texts_alone", tmp_path / "alone.txt", "--videos_alone", tmp_path / "silent")
    alone = (*alone, "--max_steps", 12, "--logging_steps", 1)
    main(VIDEOBERT, "--dataset", films, *UNMEASURED, *alone, output_dir=run)
    model, info = AutoModel.from_pretrained(run, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(run)
    assert type(model) is BertModel and not info["missing_keys"] and model.config.vocab_size == len(tokenizer)
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer) - 17, len(tokenizer)))[:2] == ["[>]", "[v0]"]
    assert type(AutoModel.from_pretrained(run, subfolder="video")) is ResNetModel
    record = json.loads((run / "run.json").read_text())
    assert record["prepared"]["visual_words"]["size"] == 16 and hf_pretext.load(run).visual_words.fitted
    terms = {name for entry in record["history"] for name in entry}
    assert {"loss_words", "loss_visual_words", "loss_pair_words", "loss_pair_visual_words", "loss_alignment"} <= terms


def test_frames_that_are_no_multiple_of_the_visual_words_are_refused(films):
    message = refused(VIDEOBERT, "--dataset", films, *UNMEASURED, "--num_frames", 25)
    assert "25 frames (--num_frames) can't be cut into 12 pieces of equal length (--num_words)" in message


@pytest.mark.slow
def test_the_frozen_encoder_may_be_named_only(films, tmp_path):
    run = tmp_path / "run"
    main(VIDEOBERT, "--dataset", films, *UNMEASURED, "--store_word_encoder", "False", output_dir=run)
    assert not (run / "video").exists() and AutoModel.from_pretrained(run).config.model_type == "bert"
    assert hf_pretext.load(run).visual_words.fitted  # this process knows its place
