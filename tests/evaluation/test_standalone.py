"""An encoder from a folder is measured as a recipe measures its own."""

import json
import math
import os
import shutil
import signal

import datasets
import pytest
import torch
import transformers
from conftest import CONFIGS, EMOJI
from huggingface_hub import HfApi
from loopback_hub import online
from transformers import AutoModel, PreTrainedTokenizerFast, ResNetConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor

import hf_pretext
from hf_pretext.cli import main
from hf_pretext.evaluation.comparison import encoder_transfer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.standalone import evaluate, open_encoder
from hf_pretext.evaluation.transfer import chosen_together, methods_of
from hf_pretext.interop.sentence_transformers import write_modules
from hf_pretext.modalities import Inputs
from hf_pretext.modalities._saved_pooling import saved_pooling
from hf_pretext.modalities.audio import Audio, AudioArguments
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.video import Video, default_video_processor

ROWS = 60
FILMS = EMOJI.parent / "emoji_films"
FILM_METHODS = methods_of(Video.fractions)


@pytest.fixture
def ours(tmp_path):
    """A checkpoint of ours, with its processor."""
    model = hf_pretext.RotationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()))
    model.save_pretrained(tmp_path / "ours")
    default_processor(32).save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


def test_metrics_are_those_of_the_protocol(ours):
    results = evaluate(ours, str(EMOJI), "group", rows=ROWS)
    assert results["objective"]["name"] == "rotation" and results["encoder"]["class"] == "ResNetModel"
    labelled = LabelledSet(str(EMOJI), Inputs(Image(default_processor(32))), "group", limit=ROWS)
    expected = encoder_transfer(AutoModel.from_pretrained(ours), labelled, "image")
    (expected,) = chosen_together([{"": expected}])
    figures = results["transfer"]["figures"]
    for method in ("linear_probe", "knn"):
        assert figures["trained"][f"{method}_top1"]["mean"] == expected[method]["test"]["top1"]
    assert len(figures["random"]["knn_top1"]["values"]) == 3 and "pixels" in figures
    assert results["transfer"]["beats_random"] == {"linear_probe_top1": None, "knn_top1": None}  # of one seed


def test_an_encoder_that_saw_only_grey_is_measured_on_grey_too(tmp_path):
    model = hf_pretext.ColorizationForPreTraining.from_encoder(AutoModel.from_config(CONFIGS["resnet"]()), head_dim=8)
    model.save_pretrained(tmp_path / "ours")
    default_processor(32).save_pretrained(tmp_path / "ours")
    figures = evaluate(tmp_path / "ours", str(EMOJI), "group", rows=ROWS)["transfer"]["figures"]
    gray, colored = (figures["trained"][f"linear_probe{end}_top1"]["mean"] for end in ("_gray", ""))
    assert gray and colored and figures["pixels"]["knn_gray_top1"] != figures["pixels"]["knn_top1"]


def test_a_plain_encoder_from_the_command_line(ours, tmp_path, capsys):
    AutoModel.from_config(CONFIGS["resnet"]()).save_pretrained(tmp_path / "plain")
    shutil.copy(ours / "preprocessor_config.json", tmp_path / "plain")
    output = tmp_path / "metrics.json"
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(tmp_path / "plain"), "--dataset", str(EMOJI), "--label", "group", "--rows", str(ROWS),
              "--output", str(output)])  # fmt: skip
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "trained (not of hf_pretext)" in printed and "no verdict" in printed
    assert json.loads(output.read_text())["transfer"]["label"] == "group"
    for place in (tmp_path, tmp_path / "not" / "there.json"):
        with pytest.raises(SystemExit, match=r"--output .* can't be written"):
            main(["evaluate", str(tmp_path / "plain"), "--dataset", str(EMOJI), "--output", str(place)])
    with pytest.raises(SystemExit, match=r"no column 'nosuch' \(--label\)"):
        main(["evaluate", str(tmp_path / "plain"), "--dataset", str(EMOJI), "--label", "nosuch"])


def test_an_encoder_of_ours_that_was_saved_without_its_heads(ours, tmp_path):
    AutoModel.from_pretrained(ours).save_pretrained(tmp_path / "alone")
    shutil.copy(ours / "preprocessor_config.json", tmp_path / "alone")
    figures = [
        evaluate(place, str(EMOJI), "group", rows=ROWS)["transfer"]["figures"] for place in (ours, tmp_path / "alone")
    ]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_an_encoder_without_a_processor_takes_a_size(ours, tmp_path):
    AutoModel.from_pretrained(ours).save_pretrained(tmp_path / "alone")
    with pytest.raises(ValueError, match="alone has no image processor"):
        evaluate(tmp_path / "alone", str(EMOJI), "group", rows=ROWS)
    figures = [
        evaluate(place, str(EMOJI), "group", rows=ROWS, image_size=32)["transfer"]["figures"]
        for place in (ours, tmp_path / "alone")
    ]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_a_revision_of_a_repository(ours, tmp_path, monkeypatch):
    repository = "tester/encoder"
    with online(tmp_path / "hub", monkeypatch) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo(repository)
        api.create_branch(repository, branch="first")
        api.upload_folder(repo_id=repository, folder_path=ours, revision="first")
        figures = evaluate(repository, str(EMOJI), "group", rows=ROWS, revision="first")["transfer"]["figures"]
        assert figures == evaluate(ours, str(EMOJI), "group", rows=ROWS)["transfer"]["figures"]
        with pytest.raises(ValueError, match="does not have this revision"):
            evaluate(repository, str(EMOJI), "group", revision="second")
        with pytest.raises(ValueError, match="The Hub has no repository tester/secret, or you have no access"):
            evaluate("tester/secret", str(EMOJI), "group")


def test_texts(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "face", "flag", "hand"])}
    backend = Tokenizer(models.WordLevel(words, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    transformers.BertModel(CONFIGS["bert"]()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no tokenizer"):
        evaluate(tmp_path, str(EMOJI), "group", "text", rows=ROWS)
    tokenizer.save_pretrained(tmp_path)
    figures = evaluate(tmp_path, str(EMOJI), "group", "text", rows=ROWS)["transfer"]["figures"]
    assert "TF-IDF" in figures and all(math.isfinite(value["mean"]) for value in figures["trained"].values())
    write_modules(tmp_path, 32, 16, "cls")  # as a folder of sentence-transformers says
    results = evaluate(tmp_path, str(EMOJI), "group", "text", rows=ROWS)
    assert results["objective"]["pooling"] == "cls"
    first_tokens = results["transfer"]["figures"]
    assert first_tokens["trained"]["knn_top1"] != figures["trained"]["knn_top1"]
    assert first_tokens["random"]["knn_top1"] != figures["random"]["knn_top1"]
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "max"}')
    with pytest.raises(ValueError, match="pools by max, but only the mean over the tokens and the first token"):
        evaluate(tmp_path, str(EMOJI), "group", "text", rows=ROWS)


@pytest.mark.parametrize(
    ("content", "pooling"),
    [
        ('{"pooling_mode": "cls", "embedding_dimension": 8}', "cls"),  # sentence-transformers 6
        ('{"pooling_mode": "mean"}', "mean"),
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}', "cls"),
        ('{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}', "mean"),
        ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}', None),
        ("[]", None),
        ("{", None),
    ],
)
def test_poolings_of_sentence_transformers(content, pooling, tmp_path):
    assert saved_pooling(tmp_path) == "mean"
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(content)
    if pooling:
        assert saved_pooling(tmp_path) == pooling
    else:
        with pytest.raises(ValueError, match=r"1_Pooling/config.json (is damaged|pools by)"):
            saved_pooling(tmp_path)


def test_the_image_encoder_of_an_image_text_model(tmp_path):
    from transformers import FlavaConfig

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    config = FlavaConfig(
        image_config={**small, "image_size": 32, "patch_size": 8}, text_config={**small, "vocab_size": 50},
        multimodal_config=small, hidden_size=32, projection_dim=32,
    )  # fmt: skip
    model = hf_pretext.FlavaForPreTraining.from_encoder(config, mask_token_id=4, codebook_size=8)
    model.codebook.fit([torch.rand(4, 3, 32, 32)], progress=False)
    model.save_pretrained(tmp_path)
    default_processor(32).save_pretrained(tmp_path)
    assert evaluate(tmp_path, str(EMOJI), "group", rows=ROWS)["encoder"]["class"] == "FlavaImageModel"


def of_films(folder, seconds=0.5, fps=None, audio=None, **changes):
    """Saves a model of sounds and frames as a run does. Returns it and the inputs of the run."""
    small = {"embedding_size": 16, "hidden_sizes": [16, 16], "depths": [1, 1], "layer_type": "basic"}
    model = hf_pretext.AudioVisualForPreTraining.from_encoders(
        audio=audio or ResNetConfig(num_channels=1, **small), video=ResNetConfig(num_channels=3, **small)
    )
    sounds = Audio(Wav2Vec2FeatureExtractor(), seconds, settings=AudioArguments(**changes))
    frames = Video(default_video_processor(16), 3, fps, seconds=seconds)
    sounds.fit(model.encoders["audio"])
    frames.fit(model.encoders["video"])
    inputs = Inputs(sounds, frames)
    model.save_pretrained(folder)
    inputs.processor.save_pretrained(folder)
    return model, inputs


WAVE = Wav2Vec2Config(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(16, 16),
    conv_stride=(10, 8), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True,
)  # fmt: skip


OPTIONS = [{"num_mel_bins": 24}, {"seconds": 1.0, "fps": 5.0, "num_mel_bins": 16}, {"audio": WAVE}]


@pytest.mark.parametrize("options", OPTIONS)
def test_clips_of_a_saved_encoder_are_those_of_training(options, tmp_path):
    model, inputs = of_films(tmp_path, **options)
    for kind, encoder in model.encoders.items():
        ours, place = inputs.by_name[kind], tmp_path / kind
        saved = type(ours).from_saved(str(place), encoder, "encoder")
        assert saved.part == ours.part and saved.encoder_input == ours.encoder_input
        assert json.loads(saved.processor.to_json_string()) == json.loads(ours.processor.to_json_string())
        assert open_encoder(str(place), "encoder")[1] == kind
    assert open_encoder(str(tmp_path), "run")[1:] == ("audio", "audio_visual")


@pytest.mark.slow
def test_each_encoder_of_sounds_and_films_is_measured_as_in_its_run(tmp_path):
    model, inputs = of_films(tmp_path, seconds=1.0, fps=5.0, num_mel_bins=16)
    labelled = LabelledSet(str(FILMS), inputs, "json.game", limit=ROWS)
    for kind, encoder in model.eval().encoders.items():
        results = evaluate(tmp_path / kind, str(FILMS), "json.game", rows=ROWS)["transfer"]
        (expected,) = chosen_together([{"": encoder_transfer(encoder, labelled, kind, FILM_METHODS)}])
        assert results["kind"] == kind
        for method in FILM_METHODS:
            found = results["figures"]["trained"][f"{method}_top1"]["mean"]
            assert found == expected[method]["test"]["top1"], (kind, method)


def test_a_processor_of_clips_that_is_used_for_images_says_no_more_of_clips(tmp_path):
    of_films(tmp_path)
    assert json.loads((tmp_path / "video" / "preprocessor_config.json").read_text())["pretext"] == {
        "kind": "video", "seconds": 0.5, "num_frames": 3
    }  # fmt: skip
    encoder = AutoModel.from_pretrained(tmp_path, subfolder="video")
    images = Image.from_saved(str(tmp_path / "video"), encoder, "encoder")
    encoder.save_pretrained(tmp_path / "images")
    images.processor.save_pretrained(tmp_path / "images")
    assert evaluate(tmp_path / "images", str(EMOJI), "group", rows=ROWS)["transfer"]["kind"] == "image"


@pytest.mark.parametrize(
    "entry, reason",
    [
        ({"kind": "video", "num_frames": "x"}, "num_frames"),
        ({"kind": "video", "seconds": -1}, "seconds must be above 0, but is -1"),
        ({"length": 2}, "has no setting length"),
        ([1], "must be a mapping"),
    ],
)
def test_a_wrong_entry_of_clips_is_refused_with_its_file(entry, reason, tmp_path):
    of_films(tmp_path)
    path = tmp_path / "video" / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pretext": entry}))
    with pytest.raises(ValueError, match=f"preprocessor_config.json has a wrong entry pretext: .*{reason}"):
        evaluate(tmp_path / "video", str(FILMS), "json.game", rows=ROWS)


def test_what_is_no_encoder_of_one_kind(tmp_path):
    with pytest.raises(ValueError, match="is not a valid repository name"):
        evaluate(tmp_path / "nothing", str(EMOJI), "group")
    with pytest.raises(ValueError, match="is not a folder, not in the cache, and the Hub can't be reached"):
        evaluate("nobody/nothing", str(EMOJI), "group")
    with pytest.raises(ValueError, match="it has no config.json"):
        evaluate(tmp_path, str(EMOJI), "group")
    config = transformers.CLIPConfig(
        text_config={"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 1, "intermediate_size": 32,
                     "vocab_size": 50},
        vision_config={"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 1, "intermediate_size": 32,
                       "image_size": 32, "patch_size": 8},
    )  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a clip: only encoders of one kind of data"):
        evaluate(tmp_path, str(EMOJI), "group")


def test_an_encoder_that_is_not_finite_is_not_measured(ours):
    encoder = AutoModel.from_pretrained(ours)
    next(encoder.parameters()).data.view(-1)[0] = float("nan")
    encoder.save_pretrained(ours)
    with pytest.raises(ValueError, match="ours has weights that are NaN or infinite: embedder"):
        evaluate(ours, str(EMOJI), "group", rows=ROWS)


def edited(**changes):
    def edit(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


def a_pipe(name):
    def edit(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return edit


def a_text(name, content):
    return lambda folder: (folder / name).write_text(content)


def an_index(folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    a_text("model.safetensors.index.json", '{"weight_map": {"a": "../model.safetensors"}}')(folder)


CODE = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
HOSTILE = {
    "pipe": (a_pipe("config.json"), r"config\.json is a pipe"),
    "pipe of weights": (a_pipe("model.safetensors"), r"model\.safetensors is a pipe"),
    "deep": (a_text("config.json", '{"a":' + "[" * 10**5 + "]" * 10**5 + "}"), r"config\.json is nested"),
    "wide": (edited(hidden_size=10**12), r"config\.json has hidden_size 1e\+12"),
    "layers": (edited(num_hidden_layers=10**9), r"config\.json has num_hidden_layers 1000000000"),
    "more than its weights": (edited(hidden_size=40_000, num_hidden_layers=40), "but its weights have"),
    "other sizes": (edited(hidden_size=16), "contains no encoder that can be loaded"),
    "no patch": (edited(patch_size=0), "contains no encoder that can be loaded. ZeroDivisionError"),
    "types": (edited(hidden_size="x"), "contains no encoder that can be loaded"),
    "type of model": (edited(model_type=["vit"]), "contains no encoder that can be loaded"),
    "objective": (edited(model_type="none", pretext={"objective": "../x"}), r"No objective '\.\./x'"),
    "code": (edited(model_type="none", auto_map=CODE), "contains no encoder|only encoders|needs its own Python code"),
    "header": (a_text("model.safetensors", "\xff" * 90), r"model\.safetensors can't be read"),
    "index": (an_index, r"index\.json lists '\.\./model\.safetensors', which is not a file of its folder"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("asks to run code"))
    folder = tmp_path / "model"
    AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(folder)
    edit, said = HOSTILE[case]
    edit(folder)
    signal.alarm(60)
    with pytest.raises(SystemExit, match=said) as ended:
        main(["evaluate", str(folder), "--dataset", str(EMOJI), "--label", "group", "--image_size", "32"])
    signal.alarm(0)
    assert len(ended.value.code.splitlines()) == 1


EVIL = '{"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Processor"}}'


@pytest.mark.parametrize("content", ["[1]", '"x"', EVIL])
def test_a_hostile_processor_is_refused_in_one_line(content, ours, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("asks to run code"))
    (ours / "preprocessor_config.json").write_text(content)
    said = "needs its own Python code" if "Evil" in content else r"preprocessor_config\.json is no JSON object"
    with pytest.raises(ValueError, match=said):
        evaluate(ours, str(EMOJI), "group", rows=ROWS)


def test_an_error_names_the_options_of_the_command_alone(ours):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(ours), "--dataset", str(EMOJI), "--label", "group", "--rows", "1"])
    assert "--eval_" not in ended.value.code and "none" not in ended.value.code


def test_a_model_is_measured_like_its_folder(ours):
    folder = evaluate(ours, "emoji", "group", rows=ROWS)
    model = hf_pretext.load(ours)
    for subject in (model, model.encoder):
        results = hf_pretext.evaluate(subject, "emoji", "group", rows=ROWS, processing_class=default_processor(32))
        assert results["transfer"] == folder["transfer"]
        assert results["objective"]["name"] == ("rotation" if subject is model else "not of hf_pretext")


def test_a_dataset_is_measured_and_inputs_give_their_processor(ours):
    data = datasets.load_dataset("parquet", data_files={"train": str(EMOJI / "train-*.parquet")})
    inputs = Inputs(Image(default_processor(32), Augmentation()))
    results = evaluate(hf_pretext.load(ours), data, "group", rows=ROWS, processing_class=inputs)
    assert results["transfer"]["rows"]["test"] > 0 and results["transfer"]["dataset"] == "DatasetDict"


def test_a_model_without_a_processor_or_with_a_head_is_refused():
    model = hf_pretext.RotationForPreTraining.from_encoder(CONFIGS["resnet"]())
    with pytest.raises(ValueError, match="ResNetModel needs a processor of images: processing_class=Auto"):
        evaluate(model, "emoji", "group")
    with pytest.raises(ValueError, match="ViTForImageClassification is no encoder of one kind of data.*base_model"):
        evaluate(transformers.ViTForImageClassification(CONFIGS["vit"]()), "emoji", "group")
