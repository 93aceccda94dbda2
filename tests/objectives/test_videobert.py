"""VideoBERT: losses next to `BertForPreTraining`, masks, alignment, batches of one kind, and its checkpoint."""

import json
import shutil

import pytest
import torch
from conftest import CONFIGS, IMAGE, TEXT
from contract import check_contract
from loopback_hub import online
from safetensors.torch import load_file
from transformers import AutoModel, BertConfig, BertForPreTraining, BertModel, RobertaConfig

import hf_pretext
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities.image import default_processor
from hf_pretext.modules import named as named_models
from hf_pretext.modules import word_encoder
from hf_pretext.modules.masking import IGNORED
from hf_pretext.modules.video_text import TEXT_TYPE, VIDEO_TYPE, Tokens, masked_text, tokens_of
from hf_pretext.modules.word_strips import nearest_pieces
from hf_pretext.objectives import videobert
from hf_pretext.objectives.videobert import VideobertForPreTraining, VideobertTask

PAD, UNK, CLS, SEP, MASK = range(5)
VIDEO, FIRST, WORDS = 50, 51, 4  # of `bert()` and `model_of`
TOKENS = dict(cls_token_id=CLS, sep_token_id=SEP, mask_token_id=MASK, special_token_ids=[PAD, UNK, CLS, SEP, MASK])
SETTINGS = dict(num_words=WORDS, levels=2, branches=3, **TOKENS)


def bert(**sizes) -> BertConfig:
    quiet = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return BertConfig(**{**TEXT, "max_position_embeddings": 24, **quiet, **sizes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a frozen encoder, with its image processor. Its config has classes, as that of a classifier."""
    path, config = tmp_path_factory.mktemp("frozen"), CONFIGS["resnet"]()
    config.num_labels = 3
    torch.manual_seed(0)
    build_encoder(config).save_pretrained(path)
    default_processor(IMAGE).save_pretrained(path)
    return path


def model_of(folder, encoder=None, fitted: bool = True, **settings) -> VideobertForPreTraining:
    model = VideobertForPreTraining.from_encoder(
        encoder or bert(), **{**SETTINGS, "word_encoder": str(folder), **settings}
    )
    if fitted:
        model.visual_words.fit([pairs(30)["pixel_values"]], progress=False)
    return model


def pairs(count: int = 8, length: int = 9) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VIDEO, (count, length), generator=random)
    ids[:, 0] = CLS
    for row, end in enumerate(torch.randint(4, length, (count,), generator=random).tolist()):
        ids[row, end], ids[row, end + 1 :] = SEP, PAD
    pixels = torch.randn(count, 2 * WORDS, 3, IMAGE, IMAGE, generator=random)
    tone = torch.randn(count, WORDS, 3, 1, 1, generator=random).repeat_interleave(2, 1)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "pixel_values": pixels + 2 * tone}


def kinds(batch: dict) -> dict[str, dict]:
    texts = {name: value for name, value in batch.items() if name != "pixel_values"}
    return {"pairs": batch, "films": {"pixel_values": batch["pixel_values"]}, "texts": texts}


def watched(model: VideobertForPreTraining, monkeypatch) -> list[Tokens]:
    """What the model encodes from now on, with the labels of all that is masked."""
    seen, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda tokens: seen.append(tokens) or encode(tokens))
    return seen


def drawn_pairs(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Which pairs are wrong, and their partners, of each batch from now on."""
    drawn, draw = [], videobert.half_wrong
    monkeypatch.setattr(videobert, "half_wrong", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    return drawn


def theirs_of(model: VideobertForPreTraining) -> BertForPreTraining:
    theirs = BertForPreTraining(model.config).eval()
    theirs.load_state_dict(model.full_model.state_dict())
    return theirs


def inputs_of(tokens: Tokens) -> dict[str, torch.Tensor]:
    mask = tokens.present.long()
    return {"input_ids": tokens.ids, "attention_mask": mask, "token_type_ids": tokens.types}


@pytest.mark.parametrize("fitted", [True, False])
def test_condensed_films_take_the_place_of_frames(folder, fitted):
    model, batch = model_of(folder, fitted=fitted).eval(), pairs()
    films = model.condense("video", **kinds(batch)["films"])
    assert list(films) == ["visual_words"] and films["visual_words"].shape == (8, WORDS)
    assert (films["visual_words"] > 0).any() == fitted
    texts, masked = kinds(batch)["texts"], batch["input_ids"] > MASK
    with torch.no_grad():
        assert torch.equal(model.match(**texts, **films), model.match(**batch))
        assert torch.equal(model.predict_tokens(masked, **texts, **films), model.predict_tokens(masked, **batch))
        swapped = {"visual_words": films["visual_words"].flip(0)}
        assert torch.equal(model.match(**texts, **swapped), model.match(**batch)) != fitted


def plain(model: VideobertForPreTraining, batch: dict) -> Tokens:
    """The sequences of a batch, nothing masked."""
    text = tokens_of(batch["input_ids"], TEXT_TYPE, batch["attention_mask"].bool())
    return model.joined(text, model.film_of(batch))


@pytest.mark.parametrize("kind", ["pairs", "films", "texts"])
def test_contract(tmp_path, folder, monkeypatch, kind):
    begun = VideobertForPreTraining.from_encoder.__func__

    def fitted(cls, *encoder, **settings):
        model = begun(cls, *encoder, **settings)
        model.visual_words.fit([pairs(30)["pixel_values"]], progress=False)
        return model

    monkeypatch.setattr(VideobertForPreTraining, "from_encoder", classmethod(fitted))
    monkeypatch.chdir(folder.parent)  # a checkpoint keeps a path only if it is relative
    settings = {**SETTINGS, "word_encoder": folder.name}
    check_contract(VideobertForPreTraining, BertForPreTraining(bert()), kinds(pairs())[kind], tmp_path, **settings)


# losses and what is masked


@pytest.mark.parametrize("kind", ["pairs", "films", "texts"])
def test_losses_equal_those_of_transformers_on_the_same_labels(folder, monkeypatch, kind):
    model = model_of(folder, text_weight=0.5, video_weight=2.0, alignment_weight=3.0).eval()
    seen, drawn = watched(model, monkeypatch), drawn_pairs(monkeypatch)
    losses = model(**kinds(pairs())[kind]).losses
    (tokens,), theirs, expected = seen, theirs_of(model), {}
    wrong = drawn[0][0] if kind == "pairs" else torch.zeros(8, dtype=torch.bool)
    assert int(wrong.sum()) == (4 if kind == "pairs" else 0)
    labels = tokens.labels.masked_fill(wrong[:, None], IGNORED)
    for name, of_type, weight in (("words", TEXT_TYPE, 0.5), ("visual_words", VIDEO_TYPE, 2.0)):
        some = labels.masked_fill(tokens.types != of_type, IGNORED)
        if (some != IGNORED).any():
            given = theirs(**inputs_of(tokens), labels=some, next_sentence_label=wrong.long())
            alignment = torch.nn.functional.cross_entropy(given.seq_relationship_logits, wrong.long())
            expected["pair_" * (kind == "pairs") + name] = weight * (given.loss - alignment)
    if kind == "pairs":
        expected["alignment"] = 3.0 * alignment
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_only_words_and_visual_words_are_masked_and_nothing_else_changes(folder, monkeypatch):
    model, batch = model_of(folder, alignment_weight=0.0, text_mask_ratio=0.5, video_mask_ratio=0.5), pairs()
    original, seen = plain(model.eval(), batch), watched(model.train(), monkeypatch)
    for _ in range(20):
        model(**batch)
    for tokens in seen:
        masked = tokens.labels != IGNORED
        assert torch.equal(tokens.labels[masked], original.ids[masked])
        assert torch.equal(tokens.ids[~masked], original.ids[~masked])
        assert (masked & (tokens.types == TEXT_TYPE)).any(1).all() and (masked & (tokens.types == VIDEO_TYPE)).any(
            1
        ).all()
        special = torch.isin(original.ids, torch.tensor([*range(5), VIDEO]))
        assert not (masked & special).any() and not (masked & ~tokens.present).any()
    ids, labels = (torch.stack([getattr(tokens, name) for tokens in seen]) for name in ("ids", "labels"))
    shown = ids[(labels != IGNORED) & (ids != MASK)]
    assert {*shown.tolist()}.isdisjoint({*range(5), VIDEO}) and (shown < FIRST).any() and (shown >= FIRST).any()


def test_four_of_five_masked_tokens_are_replaced_by_the_mask_token(folder):
    model = model_of(folder, text_mask_ratio=0.5, video_mask_ratio=0.5).train()
    ids = torch.randint(5, VIDEO, (2000, 10))
    text = masked_text(model.task, ids, torch.ones_like(ids, dtype=torch.bool))
    film = model.mask_film(torch.randint(9, (5000, WORDS)))
    for tokens, others in ((text, VIDEO - 5), (film, 9)):
        masked, unchanged = tokens.labels != IGNORED, tokens.ids == tokens.labels
        assert masked.float().mean() == 0.5
        assert abs((tokens.ids[masked] == MASK).float().mean() - 0.8) < 0.02
        assert abs(unchanged[masked].float().mean() - (0.1 + 0.1 / others)) < 0.02


def test_a_wrong_pair_has_the_film_of_its_partner_and_nothing_to_predict(folder, monkeypatch):
    model, batch = model_of(folder).eval(), pairs()
    seen, drawn = watched(model, monkeypatch), drawn_pairs(monkeypatch)
    model(**batch, labels=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]))
    (tokens,), ((wrong, partner),) = seen, drawn
    films = model.film_of(batch).ids[partner]
    shown = torch.where(tokens.labels != IGNORED, tokens.labels, tokens.ids)
    for row, (types, words) in enumerate(zip(tokens.types, films, strict=True)):
        assert shown[row][(types == VIDEO_TYPE) & tokens.present[row]].tolist() == [*words.tolist(), SEP]
    assert int(wrong.sum()) == 4
    monkeypatch.setattr(videobert, "half_wrong", lambda *_: (torch.ones(8, dtype=torch.bool), torch.arange(8).flip(0)))
    losses = model(**batch).losses
    assert losses["pair_words"] == losses["pair_visual_words"] == 0 and losses["alignment"] > 0


def test_visual_words_are_left_out_in_training_only(folder, monkeypatch):
    model, batch = model_of(folder, max_step=4), {"pixel_values": pairs(200)["pixel_values"]}
    seen = watched(model, monkeypatch)
    model.train()(**batch)
    model.eval()(**batch)
    counts = [(tokens.present.sum(1) - 3).tolist() for tokens in seen]  # [CLS] [>] and [SEP]
    assert set(counts[0]) == {4, 2, 1} and set(counts[1]) == {4}


def test_terms_of_weight_0_are_left_out(folder, monkeypatch):
    drawn = drawn_pairs(monkeypatch)
    model = model_of(folder, text_weight=0.0, alignment_weight=0.0)
    assert model(**pairs()).losses.keys() == {"pair_visual_words"} and not drawn
    with pytest.raises(ValueError, match="the weights of all its losses are 0"):
        model(**kinds(pairs())["texts"])


# visual words of all rows


def cached(folder, rows: int = 12, lost: tuple[int, ...] = (), texts: int = 0, **settings):
    """A model with the visual words of `rows` pairs, without those of `lost` ones, and of rows of texts alone."""
    model, films = model_of(folder, cache_words=True, **settings), pairs(rows)["pixel_values"]
    model.set_rows(rows + texts)
    good = torch.tensor([row for row in range(rows) if row not in lost])
    batches = [{"keys": keys, "pixel_values": films[keys]} for keys in good.split(5)]
    model.before_training(iter([*batches, {"keys": torch.arange(rows, rows + texts), "input_ids": None}]))
    return model


@pytest.mark.parametrize("kind", ["pairs", "films"])
def test_cached_visual_words_give_the_losses_of_the_frames(folder, kind):
    model, batch = cached(folder, texts=3).eval(), kinds(pairs(12))[kind]
    rows = torch.tensor([7, 0, 11, 3])
    some = {name: value[rows] for name, value in batch.items()}
    without = {name: value for name, value in some.items() if name != "pixel_values"}
    ours, theirs = model(**without, keys=rows), model(**some)
    assert ours.losses.keys() == theirs.losses.keys()
    torch.testing.assert_close(ours.losses, theirs.losses)
    assert model.step_inputs() == ("text",) and model_of(folder).step_inputs() == ("text", "video")


def test_rows_of_texts_alone_stay_texts_alone(folder):
    model, batch = cached(folder, texts=3).eval(), kinds(pairs(3))["texts"]
    torch.testing.assert_close(model(**batch, keys=torch.arange(12, 15)).losses, model(**batch).losses)
    with pytest.raises(ValueError, match="No film of the batch has visual words"):
        model(keys=torch.arange(12, 15))


def test_a_film_that_could_not_be_used_is_replaced_by_another_of_its_batch_with_its_text(folder, monkeypatch):
    warnings = []
    monkeypatch.setattr(word_encoder.log, "warning", warnings.append)
    model, batch = cached(folder, lost=(3, 4), texts=3, alignment_weight=0.0).eval(), kinds(pairs(12))["texts"]
    assert len(warnings) == 1 and warnings[0].startswith("2 of 12 films have no visual words")
    seen, rows = watched(model, monkeypatch), torch.tensor([3, 8, 4, 1])
    model(**{name: value[rows] for name, value in batch.items()}, keys=rows)
    shown = torch.where(seen[0].labels != IGNORED, seen[0].labels, seen[0].ids)
    for row, replaced in enumerate([8, 8, 8, 1]):
        expected = plain(model, {name: value[[replaced]] for name, value in pairs(12).items()})
        assert shown[row][seen[0].present[row]].tolist() == expected.ids[expected.present].tolist()


def test_too_many_visual_words_are_computed_in_each_step(folder, monkeypatch):
    monkeypatch.setattr(word_encoder, "CACHED_BYTES", 4 * 12 * WORDS - 1)
    warnings = []
    monkeypatch.setattr(word_encoder.log, "warning", warnings.append)
    model = cached(folder)
    assert model.cached is None and model.step_inputs() == ("text", "video")
    assert len(warnings) == 1 and warnings[0].startswith("The visual words of 12 rows would take more than")


# what it predicts


def test_scores_and_predictions_are_those_of_transformers(folder):
    model, batch = model_of(folder).eval(), pairs()
    theirs, masked = theirs_of(model), torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    masked[:, 1], masked[2, 2] = True, True
    with torch.no_grad():
        output = theirs(**inputs_of(plain(model, batch)))
        score = model.match(**batch)
        of_pairs = model.predict_tokens(masked, **batch)
        of_texts = model.predict_tokens(masked, **kinds(batch)["texts"])
        alone = theirs(batch["input_ids"], batch["attention_mask"]).prediction_logits
    torch.testing.assert_close(score, output.seq_relationship_logits[:, 0] - output.seq_relationship_logits[:, 1])
    length = masked.shape[1]
    torch.testing.assert_close(of_pairs, output.prediction_logits[:, :length][masked])
    torch.testing.assert_close(of_texts, alone[masked])
    assert not torch.allclose(of_pairs, of_texts)


def test_strips_show_films_what_is_masked_and_frames_of_the_predicted_words(folder, monkeypatch):
    model, batch = model_of(folder, video_mask_ratio=0.5).eval(), pairs()
    score = torch.eye(model.config.vocab_size)[FIRST + 4]  # the fifth visual word, in each place
    monkeypatch.setattr(model.full_model.cls.predictions, "forward", lambda hidden: score.expand(len(hidden), -1))
    with torch.no_grad():
        drawn = model.illustrate(**batch)
    assert list(drawn) == [f"{i}: {title}" for i in (1, 2, 3) for title in ("film", "masked pieces", "predicted")]
    clips = batch["pixel_values"]
    shown = set()
    for row in range(3):
        film, masked, predicted = (drawn[f"{row + 1}: {name}"] for name in ("film", "masked pieces", "predicted"))
        assert film.shape == (WORDS, 2 * WORDS, 3, IMAGE, IMAGE) and torch.equal(film[:, 0], clips[row, 1::2])
        hidden = (masked[:, 0] == 0).flatten(1).all(1)
        assert hidden.sum() == WORDS // 2 and torch.equal(masked[~hidden], film[~hidden])
        assert torch.equal(predicted[~hidden], film[~hidden])
        shown |= {frame.numpy().tobytes() for frame in predicted[hidden][:, 0]}
        assert not shown & {frame.numpy().tobytes() for frame in film[hidden][:, 0]}
    features = model.visual_words.describe(clips).flatten(0, 1)
    order = (features - model.visual_words.tree[-1][4]).square().sum(1).argsort()
    frames = clips[:, 1::2].flatten(0, 1)[order]  # of pieces of two frames
    assert len(shown) == 1 and shown <= {frame.numpy().tobytes() for frame in frames[: len(order) // 2 + 1]}
    masked = torch.zeros(len(order), dtype=torch.bool)
    for nearest in range(2):  # the nearest of those that are not masked
        words, places = torch.tensor([4]), masked.view(len(clips), -1)
        assert torch.equal(nearest_pieces(model.visual_words, clips, words, places)[0], frames[nearest])
        masked[order[nearest]] = True


def test_a_random_model_can_be_measured_but_not_trained_without_clusters(folder):
    model = model_of(folder, fitted=False)
    assert torch.isfinite(model.eval().match(**pairs())).all() and torch.isfinite(model(**pairs()).loss)
    with pytest.raises(ValueError, match="These 9 visual words have no clusters yet"):
        model.train()(**pairs())


# vocabulary, visual words, checkpoint


def test_vocabulary_has_the_visual_words_after_those_of_the_text(folder):
    native = BertModel(bert())
    before = native.embeddings.word_embeddings.weight.detach().clone()
    model = model_of(folder, native, fitted=False)
    assert (model.task.video_token_id, model.task.first_word_id, model.config.vocab_size) == (VIDEO, FIRST, FIRST + 9)
    embeddings = model.full_model.bert.embeddings.word_embeddings.weight
    assert torch.equal(embeddings[:VIDEO], before)
    assert model.full_model.cls.predictions.decoder.weight is embeddings
    spare = model_of(folder, bert(vocab_size=80), fitted=False, video_token_id=60, first_word_id=61)
    assert spare.config.vocab_size == 80  # it had room for them


def test_vocabulary_and_clusters_survive_save_and_load(tmp_path, folder):
    model, clips = model_of(folder, image_mean=[0.1] * 3, image_std=[0.3] * 3), pairs()["pixel_values"]
    model.save_pretrained(tmp_path / "run")
    native = AutoModel.from_pretrained(tmp_path / "run")
    assert type(native) is BertModel and native.config.vocab_size == FIRST + 9
    frozen = AutoModel.from_pretrained(tmp_path / "run", subfolder="video").state_dict()
    assert all(torch.equal(value, model.visual_words.encoder.state_dict()[name]) for name, value in frozen.items())
    assert not any("encoder." in name for name in load_file(tmp_path / "run" / "pretext.safetensors"))
    loaded = hf_pretext.load(tmp_path / "run")  # does not need the folder of the frozen encoder
    assert torch.equal(loaded.visual_words(clips), model.visual_words(clips))
    assert loaded.prepared() == model.prepared() and loaded.prepared()["visual_words"]["size"] == 9
    half = hf_pretext.load(tmp_path / "run", dtype=torch.bfloat16)
    assert half.full_model.dtype == torch.bfloat16 and torch.equal(half.visual_words(clips), loaded.visual_words(clips))
    shutil.rmtree(tmp_path / "run" / "video")
    with pytest.raises(ValueError, match="lacks the sub-folder video/"):
        hf_pretext.load(tmp_path / "run")


def test_a_place_for_an_encoder_that_the_checkpoint_contains_is_refused(folder, tmp_path):
    model_of(folder).save_pretrained(tmp_path / "run")
    with pytest.raises(ValueError, match="contains its frozen encoder, so word_encoder='elsewhere' has no effect"):
        hf_pretext.load(tmp_path / "run", word_encoder="elsewhere")


@pytest.fixture
def named(folder, tmp_path, monkeypatch):
    """A saved model that only names its frozen encoder, next to the folder of this encoder, as of another process."""
    shutil.copytree(folder, tmp_path / "frozen")
    model = model_of(tmp_path / "frozen", store_word_encoder=False)
    model.save_pretrained(tmp_path / "run")
    monkeypatch.setattr(named_models, "PLACES", {})
    monkeypatch.chdir(tmp_path)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["pretext"]["word_encoder"] == ".../frozen"
    return model


def test_a_checkpoint_may_only_name_its_frozen_encoder(named, tmp_path):
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.json", "model.safetensors", "pretext.safetensors"
    }  # fmt: skip
    assert type(AutoModel.from_pretrained("run")) is BertModel
    loaded, clips = hf_pretext.load("run", word_encoder="frozen"), pairs()["pixel_values"]
    assert torch.equal(loaded.visual_words(clips), named.visual_words(clips))
    named_models.note_place(str(tmp_path / "frozen"))  # as in the process of a run
    assert torch.equal(hf_pretext.load("run").visual_words(clips), named.visual_words(clips))


def test_a_named_encoder_that_is_missing_or_has_changed_is_an_error(named, tmp_path):
    with pytest.raises(ValueError, match=r"does not contain the encoder .*load\(\.\.\., word_encoder=.*\.\.\./frozen"):
        hf_pretext.load("run")
    other = AutoModel.from_pretrained("frozen")
    next(other.parameters()).data += 1
    other.save_pretrained("frozen")
    with pytest.raises(ValueError, match="frozen has other weights than the encoder of this model's visual words"):
        hf_pretext.load("run", word_encoder="frozen")


def test_a_named_encoder_of_the_hub_is_loaded_at_its_commit(folder, tmp_path, monkeypatch):
    with online(tmp_path / "hub", monkeypatch) as hub:
        from huggingface_hub import HfApi

        monkeypatch.setattr("transformers.utils.hub._hf_api", HfApi(endpoint=hub.url))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        encoder = AutoModel.from_pretrained(folder)
        encoder.push_to_hub("tester/frozen")
        model = model_of("tester/frozen", store_word_encoder=False)
        assert len(model.parts["named"]["revision"]) == 40
        model.save_pretrained(tmp_path / "run")
        next(encoder.parameters()).data += 1
        encoder.push_to_hub("tester/frozen")  # main has other weights now
        clips = pairs()["pixel_values"]
        assert torch.equal(hf_pretext.load(tmp_path / "run").visual_words(clips), model.visual_words(clips))
        older = model_of("tester/frozen", word_encoder_revision=model.parts["named"]["revision"])
        assert torch.equal(next(older.visual_words.encoder.parameters()), next(model.visual_words.encoder.parameters()))
        assert "named" not in older.parts


def test_the_objective_of_the_frozen_encoder_is_not_kept(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "frozen")
    config = json.loads((tmp_path / "frozen" / "config.json").read_text())
    config["pretext"] = {"objective": "rotation"}
    (tmp_path / "frozen" / "config.json").write_text(json.dumps(config))
    model_of(tmp_path / "frozen", fitted=False).save_pretrained(tmp_path / "run")
    assert "pretext" not in json.loads((tmp_path / "run" / "video" / "config.json").read_text())


def test_frames_are_normalised_as_the_frozen_encoder_expects(folder):
    words = model_of(folder, fitted=False, image_mean=[0.1] * 3, image_std=[0.3] * 3).visual_words
    expected = default_processor(IMAGE)
    assert words.mean.tolist() == pytest.approx([0.1] * 3) and words.std.tolist() == pytest.approx([0.3] * 3)
    assert words.encoder_mean.tolist() == pytest.approx(list(expected.image_mean))
    assert words.encoder_std.tolist() == pytest.approx(list(expected.image_std))


def test_prepare_fits_the_visual_words_to_films(folder):
    model, films = model_of(folder, fitted=False, word_pieces=40), pairs(30)["pixel_values"]
    batches = [kinds(pairs())["texts"], {"pixel_values_videos": films[:8]}, {"pixel_values": films[8:]}]
    model.prepare(iter(batches))
    other = model_of(folder, fitted=False)
    other.visual_words.fit([films[:8], films[8:]], pieces=40, progress=False)
    assert torch.equal(model.visual_words.counts, other.visual_words.counts) and model.visual_words.counts.sum() == 40
    assert all(torch.equal(*pair) for pair in zip(model.visual_words.tree, other.visual_words.tree, strict=True))


def test_complete_adds_the_new_tokens_to_the_tokenizer(tmp_path, folder):
    (tmp_path / "texts.txt").write_text("go to the red ball\npick up the blue key\n" * 20)
    tokenizer = train_tokenizer(open_source(str(tmp_path / "texts.txt"), needed=("text",)), size=200)
    known, processors = len(tokenizer), {"text": tokenizer, "video": default_processor(IMAGE)}
    task = VideobertForPreTraining.complete(VideobertTask(levels=2, branches=3, word_encoder=str(folder)), processors)
    assert (task.cls_token_id, task.sep_token_id) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert (task.video_token_id, task.first_word_id, len(tokenizer)) == (known, known + 1, known + 10)
    assert task.image_mean == pytest.approx(list(default_processor(IMAGE).image_mean))
    assert VideobertForPreTraining.complete(task, processors) == task
    model = VideobertForPreTraining.from_encoder(bert(vocab_size=known), **vars(task))
    assert model.config.vocab_size == len(tokenizer)


# bad input


@pytest.mark.parametrize(
    ("encoder", "settings", "message"),
    [
        (RobertaConfig(**TEXT), {}, "needs a BertConfig, a BertModel or a BertForPreTraining, not a RobertaConfig"),
        (bert(type_vocab_size=1), {}, "needs 2 token types, for text and film, but type_vocab_size is 1"),
        (BertModel(bert(), add_pooling_layer=False), {}, "has no pooler, which alignment needs"),
        (bert(), {"word_encoder": None}, "give one of images or videos with --word_encoder"),
        (bert(), {"word_encoder": "nowhere"}, "--word_encoder nowhere can't be loaded"),
        (bert(), {"word_encoder_revision": "v1"}, "--word_encoder_revision v1: .* is a folder, which has no revisions"),
        (bert(), {"sep_token_id": None}, "sep_token_id is not set"),
        (bert(), {"max_step": 5}, "max_step must be at least 1 and at most num_words=4, but is 5"),
        (bert(), {"video_mask_ratio": 1.0}, "video_mask_ratio must lie between 0 and 1"),
        (bert(), {"text_weight": -1.0}, "Weights of losses must be at least 0"),
    ],
)
def test_models_and_settings_that_do_not_fit(folder, encoder, settings, message):
    with pytest.raises(ValueError, match=message):
        model_of(folder, encoder, fitted=False, **settings)


def test_batches_that_do_not_fit(folder):
    model, batch = model_of(folder), pairs()
    for given, message in (
        ({}, "needs input_ids, pixel_values_videos, or the two of them"),
        ({**batch, "pixel_values": batch["pixel_values"][:3]}, "8 texts came with 3 films"),
        ({"pixel_values": batch["pixel_values"][:, 0]}, r"frames \(B, F, 3, S, S\), but their shapes are"),
        ({"pixel_values": batch["pixel_values"][:, :6]}, "6 frames .* can't be cut into 4 pieces"),
        (pairs(length=20), "Text and film have 25 tokens, but the model has 24 positions"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**given)


def test_a_video_encoder_is_not_trained():
    with pytest.raises(ValueError, match="trains no video encoder. Leave it out, and give a frozen one"):
        VideobertForPreTraining.with_encoders(bert(), {"video": CONFIGS["resnet"]()})
    with pytest.raises(ValueError, match="--text_encoder: .*Start from a full model with --encoder"):
        VideobertForPreTraining.with_encoders(bert(), {"text": bert()})
