"""SoundNet: the divergence from several teachers by hand, its cache, and checkpoints without the teachers."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS, IMAGE
from contract import check_bfloat16, check_contract
from media import RATE, film, video
from safetensors.torch import load_file
from toy_clips import resnet
from transformers import (
    ASTFeatureExtractor,
    AutoModel,
    AutoModelForImageClassification,
    CLIPImageProcessor,
    ResNetForImageClassification,
    TrainingArguments,
    ViTForImageClassification,
    Wav2Vec2Config,
)

import hf_pretext
from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities import Inputs, _clips
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.image import UNCHANGED, Augmentation, default_processor
from hf_pretext.modalities.video import Video
from hf_pretext.modules import teachers as teachers_module
from hf_pretext.objectives import soundnet
from hf_pretext.objectives.soundnet import SoundnetForPreTraining
from hf_pretext.stream.settings import StreamSettings
from hf_pretext.trainer import PretextTrainer, check_fixed

WAV2VEC2 = dict(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=(32, 32),
    conv_stride=(10, 8), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True, mask_time_prob=0.0,
    layerdrop=0.0,
)  # fmt: skip
FRAMES, ROWS = 3, 20
SCRIPT = Path(__file__).parent / "toy_soundnet.py"
MEAN, STD = [0.5, 0.4, 0.3], [0.5, 0.6, 0.7]
NORMALISED = dict(image_mean=MEAN, image_std=STD)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Three image classifiers: a ResNet of 5 classes, a ViT of 3 with an image size of its own, timm's of 7."""
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    made = {"resnet": (ResNetForImageClassification, 5, 24), "vit": (ViTForImageClassification, 3, IMAGE)}
    for name, (build, classes, size) in made.items():
        config = CONFIGS[name]()
        config.num_labels = classes
        model = build(config)
        head = model.classifier[-1] if name == "resnet" else model.classifier
        torch.nn.init.normal_(head.weight, std=1.0 if name == "resnet" else 0.3)  # so that posteriors differ
        model.save_pretrained(folder / name)
        CLIPImageProcessor(
            size={"shortest_edge": size}, crop_size=size, image_mean=[0.2, 0.3, 0.4], image_std=[0.3, 0.2, 0.1]
        ).save_pretrained(folder / name)
    config = CONFIGS["timm_resnet18"]()
    config.num_labels = 7
    AutoModelForImageClassification.from_config(config).save_pretrained(folder / "timm")
    return folder


def made(teachers, *names: str, encoder=None, **settings) -> SoundnetForPreTraining:
    paths = [str(teachers / name) for name in names or ("resnet", "vit")]
    settings = {**NORMALISED, **settings}
    return SoundnetForPreTraining.from_encoder(encoder or resnet(1), teachers=paths, **settings)


def clips(rows: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(rows, FRAMES, 3, IMAGE, IMAGE, generator=random)
    pixels = pixels * torch.rand(rows, 1, 3, 1, 1, generator=random)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    sounds = torch.randn(rows, 1, 16, 16, generator=random)
    return {"pixel_values": sounds, "video_pixel_values": (pixels - mean) / std}


def posteriors_by_hand(folder, frames: torch.Tensor, size: int) -> np.ndarray:
    """Frame by frame, with the teacher's values of size and normalisation: `(B, classes)`."""
    teacher = AutoModelForImageClassification.from_pretrained(folder)
    pixels = frames * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    found = []
    for clip in pixels:
        of_frames = []
        for frame in clip:
            image = frame[None]
            if size != IMAGE:
                image = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
            image = (image[0] - torch.tensor([0.2, 0.3, 0.4])[:, None, None]) / torch.tensor([0.3, 0.2, 0.1])[
                :, None, None
            ]
            with torch.no_grad():
                scores = teacher(image[None]).logits[0].double().numpy()
            of_frames.append(np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum())
        found.append(np.mean(of_frames, 0))
    return np.stack(found)


def test_contract(teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(teachers)
    settings = dict(teachers=["resnet", "vit"], **NORMALISED)
    check_contract(SoundnetForPreTraining, build_encoder(resnet(1)), clips(), tmp_path, **settings)


def test_contract_of_a_waveform_encoder(teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(teachers)
    batch = {"input_values": torch.randn(3, 4000), "pixel_values_videos": clips(3)["video_pixel_values"]}
    batch["attention_mask"] = torch.ones(3, 4000, dtype=torch.long)
    encoder = build_encoder(Wav2Vec2Config(**WAV2VEC2))
    check_contract(SoundnetForPreTraining, encoder, batch, tmp_path, teachers=["timm"], **NORMALISED)


def test_the_loss_is_the_sum_of_divergences_from_the_teachers(teachers):
    model, batch = made(teachers).eval(), clips()
    output = model(**batch)
    hidden = model.encoder(batch["pixel_values"]).last_hidden_state.mean((2, 3)).detach()
    torch.testing.assert_close(output.features, hidden)
    for number, (name, size) in enumerate((("resnet", 24), ("vit", IMAGE)), 1):
        target = posteriors_by_hand(teachers / name, batch["video_pixel_values"], size)
        assert target.max(1).std() > 0.01, "posteriors that are all alike would show nothing"
        head = model.pretext_head[f"teacher_{number}"]
        scores = (hidden @ head.weight.T + head.bias).detach().double().numpy()
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        expected = (target * (np.log(target) - logs)).sum(1).mean()
        assert expected > 0 and output.losses[f"teacher_{number}"].item() == pytest.approx(expected, rel=1e-4)
        agreement = (target.argmax(1) == scores.argmax(1)).mean()
        assert output.logs[f"teacher_{number}_agreement"] == pytest.approx(agreement)
    torch.testing.assert_close(output.loss, sum(output.losses.values()))
    assert output.logits.shape == (6, 5) and output.labels.shape == (6,)


def test_a_sound_encoder_learns_from_the_teacher(teachers):
    """Sounds whose loudness is what the frames show: the divergence goes down, on other clips as well."""
    torch.manual_seed(0)
    model, batch, unseen = made(teachers, "resnet"), clips(48), clips(24, seed=5)
    for some in (batch, unseen):
        shown = some["video_pixel_values"].mean((1, 3, 4))
        some["pixel_values"] = some["pixel_values"] * 0.1 + 3 * shown.mean(1)[:, None, None, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = [model.eval()(**unseen).loss.item()]
    for _ in range(30):
        optimizer.zero_grad()
        model.train()(**batch).loss.backward()
        optimizer.step()
    losses.append(model.eval()(**unseen).loss.item())
    assert losses[1] < 0.6 * losses[0], losses


# cache


class Clips:
    """Processing: the row {"text": "7"} is row 7 of the clips."""

    processor, fills, frames = default_processor(IMAGE), {}, True

    def __init__(self, bad=()):
        self.clips, self.bad = clips(ROWS), bad

    def facts(self):
        return {}

    def __call__(self, row, random):
        if int(row["text"]) in self.bad:
            raise BadSample("broken on purpose")
        example = {name: value[int(row["text"])] for name, value in self.clips.items()}
        return example if self.frames else {"pixel_values": example["pixel_values"]}

    def only(self, kinds):
        assert kinds == ("audio",)
        other = copy.copy(self)
        other.frames = False
        return other

    def finish(self, batch):
        return batch

    def evaluation(self):
        return self

    def keep_processor_of(self, kind):
        self.kept = kind


class Films(Clips):
    """Row 7 is a film of three clips, of which one is drawn. In training its frames are flipped, or their colours
    change, at random."""

    augmented = True

    def __init__(self, bad=()):
        super().__init__(bad)
        self.places = [clips(ROWS, seed) for seed in (1, 2, 3)]

    def __call__(self, row, random):
        place = self.places[int(3 * random.random())]
        example = {name: value[int(row["text"])] for name, value in place.items()}
        if not self.frames:
            return {"pixel_values": example["pixel_values"]}
        if self.augmented:
            frames = example["video_pixel_values"] * torch.tensor(random.random(3), dtype=torch.float32)[:, None, None]
            example["video_pixel_values"] = frames.flip(-1) if random.random() < 0.5 else frames
        return example

    def evaluation(self):
        other = copy.copy(self)
        other.augmented = False
        return other


def trained(folder, model, resume=None, bad=(), processing_class=Clips, window=1024, **options):
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=8, save_steps=1, logging_steps=1, seed=1,
        use_cpu=True, disable_tqdm=True, report_to="none", learning_rate=1e-2, **{"max_steps": 6, **options},
    )  # fmt: skip
    data = open_source([{"text": str(i)} for i in range(ROWS)], needed=("text",))
    stream = StreamSettings(max_bad_fraction=1.0, window=window, parts=1)
    trainer = PretextTrainer(model, args, data, processing_class(bad), stream=stream)
    trainer.train(resume and str(folder / resume))
    return trainer


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture
def classified(monkeypatch):
    """Counts the clips that a teacher classifies."""
    counts, call = [], teachers_module.Teacher.__call__

    def counted(self, pixels):
        counts.append(len(pixels))
        return call(self, pixels)

    monkeypatch.setattr(teachers_module.Teacher, "__call__", counted)
    return counts


def test_cached_posteriors_give_the_same_losses_as_computed_ones_at_the_cost_of_one_pass(
    teachers, classified, tmp_path
):
    torch.manual_seed(0)
    cached = made(teachers, "resnet")
    each = made(teachers, "resnet", cache_posteriors=False)
    each.load_state_dict(cached.state_dict())
    first = trained(tmp_path / "cached", cached)
    assert sum(classified) == ROWS and cached.cached.shape == (ROWS, 5)
    torch.testing.assert_close(cached.cached.sum(1), torch.ones(ROWS))
    classified.clear()
    second = trained(tmp_path / "each", each)
    assert sum(classified) == 6 * 8 and each.cached is None
    assert losses(first) == pytest.approx(losses(second), rel=1e-5)
    assert first.inputs.kept == "audio"


def test_a_cached_posterior_is_that_of_the_row(teachers, tmp_path):
    model = made(teachers)
    trained(tmp_path, model, bad=(3, 11))
    expected = torch.cat(model.posteriors(clips(ROWS)), 1)
    good = torch.tensor([i for i in range(ROWS) if i not in (3, 11)])
    torch.testing.assert_close(model.cached[good], expected[good])
    assert not model.cached[[3, 11]].any()
    model.eval()
    batch, some = clips(ROWS), {name: value[good] for name, value in clips(ROWS).items()}
    torch.testing.assert_close(
        model(keys=torch.arange(ROWS), **batch).loss, model(keys=good, **some).loss
    )  # rows without posteriors do not count


def test_too_many_posteriors_are_computed_in_each_step(teachers, classified, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(soundnet, "CACHED_BYTES", 4 * ROWS * 5 - 1)
    warnings = []
    monkeypatch.setattr(soundnet.log, "warning", warnings.append)
    trained(tmp_path, made(teachers, "resnet"))
    assert sum(classified) == 6 * 8
    assert len(warnings) == 1 and warnings[0].startswith("The posteriors of 20 rows would take 0.0 GiB, more than")


def test_a_resumed_run_computes_posteriors_again_and_ends_with_the_same_weights(teachers, classified, tmp_path):
    torch.manual_seed(0)
    whole = trained(tmp_path, made(teachers), processing_class=Films)
    classified.clear()
    torch.manual_seed(5)
    resumed = trained(tmp_path, made(teachers), resume="checkpoint-4", processing_class=Films)
    assert sum(classified) == 2 * ROWS  # two teachers
    assert torch.equal(whole.model.cached, resumed.model.cached)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_cached_posteriors_are_those_of_a_drawn_clip_without_random_changes(teachers, tmp_path):
    model = made(teachers)
    trained(tmp_path, model, processing_class=Films, max_steps=1)
    of_places = torch.stack([torch.cat(model.posteriors(place), 1) for place in Films().places])
    apart = (model.cached - of_places).abs().amax(2)  # (3, ROWS)
    assert (apart.amin(0) < 1e-5).all() and (apart.sort(0).values[1] > 1e-3).all()
    assert apart.argmin(0).unique().tolist() == [0, 1, 2]


def test_posteriors_of_a_resumed_run_are_of_the_same_clips_with_another_window(teachers, tmp_path):
    whole = trained(tmp_path, made(teachers), processing_class=Films)
    resumed = trained(tmp_path, made(teachers), resume="checkpoint-4", processing_class=Films, window=2)
    torch.testing.assert_close(resumed.model.cached, whole.model.cached)
    other = trained(tmp_path / "other", made(teachers), processing_class=Films, data_seed=9)
    assert (other.model.cached - whole.model.cached).abs().max() > 1e-2


@pytest.fixture
def decoded_frames(monkeypatch):
    """Numbers of frames of all clips that this process decodes."""
    counts, decode = [], _clips.to_clip

    def counted(value, **options):
        counts.append(options["frames"])
        return decode(value, **options)

    monkeypatch.setattr(_clips, "to_clip", counted)
    return counts


def trained_on_films(folder, teacher, resume=None, seconds=1.0, workers=0, **settings):
    """Trains on 12 films of 1 s, of which the last has no sound. Returns the model, and the columns of each step."""
    torch.manual_seed(0)
    model, columns = SoundnetForPreTraining.from_encoder(resnet(1), teachers=[teacher], **settings), []
    sounds = Audio(ASTFeatureExtractor(num_mel_bins=16, max_length=16, sampling_rate=RATE), seconds)
    sounds.fit(model.encoder)
    frames = Video(default_processor(IMAGE), FRAMES, seconds=seconds, augmentation=Augmentation(**UNCHANGED))
    frames.fit(build_encoder(resnet(3)))
    films = [film(size=(48, 48 + 2 * i), seconds=1.0) for i in range(11)] + [video(frames=10)]
    data = open_source([{"video": {"bytes": content, "path": None}} for content in films], needed=("video",))
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, save_steps=1, logging_steps=1, seed=1, use_cpu=True,
        disable_tqdm=True, report_to="none", learning_rate=1e-2, max_steps=5, dataloader_num_workers=workers,
    )  # fmt: skip
    model.register_forward_pre_hook(lambda _, args, batch: columns.append(set(batch)), with_kwargs=True)
    stream = StreamSettings(max_bad_fraction=1.0)
    trainer = PretextTrainer(model, args, data, Inputs(sounds, frames), stream=stream)
    trainer.train(resume and str(folder / resume))
    return model, columns


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_decode_no_frames_when_all_posteriors_are_known(teachers, decoded_frames, tmp_path, workers):
    teacher = str(teachers / "resnet")
    model, columns = trained_on_films(tmp_path, teacher, seconds=0.5, workers=workers)
    assert columns == [{"keys", "pixel_values"}] * 5
    assert (model.cached.sum(1) > 0).tolist() == [True] * 11 + [False]
    if workers == 0:
        before, in_steps = decoded_frames.count(FRAMES), decoded_frames.count(0)
        assert decoded_frames == [FRAMES] * before + [0] * in_steps  # no frames once the steps have begun
        assert 12 <= before <= 12 + 4 and in_steps >= 5 * 4
    resumed, columns = trained_on_films(tmp_path, teacher, resume="checkpoint-3", seconds=0.5, workers=workers)
    assert columns == [{"keys", "pixel_values"}] * 2
    for name, value in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_steps_without_a_cache_decode_frames(teachers, decoded_frames, tmp_path):
    teacher = str(teachers / "resnet")
    _, columns = trained_on_films(tmp_path, teacher, cache_posteriors=False)
    assert columns == [{"pixel_values", "video_pixel_values"}] * 5
    assert set(decoded_frames) == {FRAMES}


def test_rows_without_posteriors_are_reported(teachers, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(soundnet.log, "warning", warnings.append)
    trained(tmp_path, made(teachers), bad=(3, 11), max_steps=1)
    assert warnings == [
        "2 of 20 rows have no posteriors, because their clips could not be used: they do not count in the loss."
    ]


def test_keys_are_only_needed_for_a_cache(teachers, tmp_path):
    trainer = trained(tmp_path, made(teachers, cache_posteriors=False), max_steps=1)
    assert not trainer.model.needs_keys and trainer.model.rows == 0
    assert "keys" not in next(iter(trainer.get_train_dataloader()))
    trainer = trained(tmp_path / "cached", made(teachers), max_steps=1)
    assert trainer.model.needs_keys and "keys" in next(iter(trainer.get_train_dataloader()))


def test_teachers_leave_the_device_when_the_cache_is_full(teachers, tmp_path, monkeypatch):
    moves, move = [], ResNetForImageClassification.to

    def noted(self, device):
        moves.append(str(device))
        return move(self, device)

    teachers_module.loaded.cache_clear()
    monkeypatch.setattr(ResNetForImageClassification, "to", noted)
    model = made(teachers, "resnet")
    trained(tmp_path, model)
    assert len(moves) == 4 and moves[-1] == "cpu", moves  # 3 batches of the cache, then away, and no step
    model.eval()(**clips())  # a labelled evaluation
    assert len(moves) == 6 and moves[-1] == "cpu", moves


# ranks, as real processes


def run(folder, teacher, ranks: int, expect: int = 0, **options) -> str:
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d",
              "--rdzv_endpoint", "localhost:0"]  # fmt: skip
    given = dict(
        output_dir=folder, teacher=teacher, max_steps=2, per_device_train_batch_size=8 // ranks, use_cpu=True, seed=3,
        disable_tqdm=True, report_to="none", save_strategy="no", learning_rate=1e-2, **options,
    )  # fmt: skip
    arguments = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, *(launch if ranks > 1 else []), str(SCRIPT), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_two_ranks_compute_the_posteriors_that_one_process_computes_each_for_its_rows(teachers, tmp_path):
    found = {}
    for ranks in (1, 2):
        run(tmp_path / str(ranks), teachers / "resnet", ranks)
        files = sorted((tmp_path / str(ranks)).glob("found-rank*.safetensors"))
        found[ranks] = [load_file(file) for file in files]
    (one,), (first, second) = found[1], found[2]
    good = [i for i in range(40) if i not in (7, 22)]
    assert one["read"].tolist() == good == sorted([*first["read"].tolist(), *second["read"].tolist()])
    assert abs(len(first["read"]) - len(second["read"])) <= 2
    assert one["cached"][good].std(0).max() > 0.05 and not one["cached"][[7, 22]].any()
    torch.testing.assert_close(first["cached"], one["cached"])
    assert torch.equal(first["cached"], second["cached"]) and torch.equal(first["head"], second["head"])


@pytest.mark.slow
def test_a_failure_of_one_rank_ends_both(teachers, tmp_path):
    output = run(tmp_path, teachers / "resnet", 2, expect=1, fails=1)
    for rank in range(2):
        assert f"[rank{rank}]: ValueError: failed on purpose" in output


# checkpoints


def test_a_checkpoint_has_no_weights_of_a_teacher_and_is_loaded_without_it(teachers, tmp_path):
    shutil.copytree(teachers / "resnet", tmp_path / "teacher")
    model = SoundnetForPreTraining.from_encoder(resnet(1), teachers=[str(tmp_path / "teacher")], **NORMALISED)
    before = model.eval()(**clips()).loss
    model.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "config.json", "model.safetensors", "pretext.safetensors"
    }  # fmt: skip
    assert set(load_file(tmp_path / "saved" / "pretext.safetensors")) == {
        "pretext_head.teacher_1.weight", "pretext_head.teacher_1.bias"
    }  # fmt: skip
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(model.encoder.state_dict())
    pretext = json.loads((tmp_path / "saved" / "config.json").read_text())["pretext"]
    assert pretext["parts"]["teachers"][0]["classes"] == 5 and len(pretext["teachers"]) == 1
    assert str(tmp_path) not in json.dumps(pretext), "no name of a private folder"
    teachers_module.loaded.cache_clear()
    shutil.rmtree(tmp_path / "teacher")
    loaded, encoder = hf_pretext.load(tmp_path / "saved"), AutoModel.from_pretrained(tmp_path / "saved")
    sounds = clips()["pixel_values"]
    features = encoder(sounds).last_hidden_state
    torch.testing.assert_close(features, model.encoder(sounds).last_hidden_state)
    torch.testing.assert_close(loaded.encoder(sounds).last_hidden_state, features)
    assert type(encoder).__name__ == "ResNetModel" and list(loaded.encoders) == ["audio"]
    with pytest.raises(ValueError, match="--teachers .*teacher has no weights that can be loaded"):
        loaded(**clips())
    shutil.copytree(teachers / "resnet", tmp_path / "teacher")
    torch.testing.assert_close(loaded(**clips()).loss, before)


def test_a_teacher_with_other_weights_is_refused(teachers, tmp_path):
    """Also one in the same place: what was learned from is part of what a model is."""
    shutil.copytree(teachers / "resnet", tmp_path / "teacher")
    model = SoundnetForPreTraining.from_encoder(resnet(1), teachers=[str(tmp_path / "teacher")], **NORMALISED)
    trained(tmp_path / "run", model)
    model.save_pretrained(tmp_path / "saved")
    teacher = ResNetForImageClassification.from_pretrained(tmp_path / "teacher")
    teacher.classifier[-1].bias.data += 1
    teacher.save_pretrained(tmp_path / "teacher")
    teachers_module.loaded.cache_clear()
    with pytest.raises(ValueError, match="has other weights than the teacher of this model"):
        hf_pretext.load(tmp_path / "saved")(**clips())
    again = SoundnetForPreTraining.from_encoder(resnet(1), teachers=[str(tmp_path / "teacher")], **NORMALISED)
    with pytest.raises(ValueError, match="was trained with parts=.*Resume with the same value"):
        trained(tmp_path / "run", again, resume="checkpoint-4")


def test_bfloat16(teachers):
    check_bfloat16(made(teachers, "resnet"), clips())


def test_what_can_not_work_is_refused(teachers, tmp_path):
    build = SoundnetForPreTraining.from_encoder
    with pytest.raises(ValueError, match="needs a teacher: give image classifiers with --teachers"):
        build(resnet(1))
    resnet_folder = str(teachers / "resnet")
    with pytest.raises(ValueError, match=r"--teachers has .*resnet.* twice.*Give each teacher once"):
        build(resnet(1), teachers=[resnet_folder, str(teachers / "vit" / ".." / "resnet")])
    for place in ("one", "other"):
        shutil.copytree(teachers / "vit", tmp_path / place / "vit")
    with pytest.raises(ValueError, match="two folders that a checkpoint would both call .../vit"):
        build(resnet(1), teachers=[str(tmp_path / "one" / "vit"), str(tmp_path / "other" / "vit")])
    config = CONFIGS["resnet"]()
    config.num_labels = 1
    ResNetForImageClassification(config).save_pretrained(tmp_path / "one")
    with pytest.raises(ValueError, match="has 1 class. Give an image classifier with at least 2 classes"):
        build(resnet(1), teachers=[str(tmp_path / "one")])
    build_encoder(CONFIGS["bert"]()).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="is a bert model, which AutoModelForImageClassification does not load"):
        build(resnet(1), teachers=[str(tmp_path / "bert")])
    build_encoder(CONFIGS["resnet"]()).save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match="lacks weights of ResNetForImageClassification.*classifier"):
        build(resnet(1), teachers=[str(tmp_path / "headless")])
    with pytest.raises(ValueError, match=r"--teachers nowhere.* can't be loaded"):
        build(resnet(1), teachers=["nowhere/at-all"])
    with pytest.raises(ValueError, match="The audio encoder must accept audio inputs, but BertModel"):
        build(CONFIGS["bert"](), teachers=[resnet_folder])
    with pytest.raises(ValueError, match="has no frames for the teachers"):
        made(teachers)(pixel_values=clips()["pixel_values"])
    with pytest.raises(ValueError, match="--video_encoder: soundnet trains no video encoder"):
        SoundnetForPreTraining.with_encoders(resnet(1), {"video": resnet(3)})
    assert SoundnetForPreTraining.with_encoders(resnet(1), {"audio": config}) is config


def test_changes_of_the_frames_that_teachers_classify_are_refused():
    frames = {**UNCHANGED, "crop_scale": 0.5}
    with pytest.raises(ValueError, match="--crop_scale 0.5: teachers classify the frames as they are"):
        check_fixed(SoundnetForPreTraining, frames)
