"""Videos: clips through a video processor, under the argument name of the encoder."""

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import CONFIGS, VIT
from media import video
from transformers import (
    AutoVideoProcessor,
    TimesformerConfig,
    VideoMAEConfig,
    VideoMAEVideoProcessor,
    VivitConfig,
    VJEPA2Config,
    Wav2Vec2FeatureExtractor,
)

from hf_pretext.cards.template import environment
from hf_pretext.data.clips import Clip, to_clip
from hf_pretext.data.decoding import BadSample
from hf_pretext.encoders import build_encoder
from hf_pretext.features import encode
from hf_pretext.modalities import Context, Inputs
from hf_pretext.modalities._clips import ClipArguments
from hf_pretext.modalities.audio import Audio
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.video import Video, VideoArguments, default_video_processor
from hf_pretext.run.inputs import check_same_seconds

ROW = {"video": {"bytes": video(), "path": None}}


def fresh(seconds=3.0, augmentation=None, **options) -> Video:
    """The default length is that of the film: 30 frames, 10 a second."""
    given = VideoArguments(**{"num_frames": 4, "video_size": 32, **options})
    settings = {ClipArguments: ClipArguments(seconds), VideoArguments: given, Augmentation: augmentation}
    return Video.from_options(settings, Context())


def test_a_clip_is_what_the_saved_processor_makes_of_it(tmp_path):
    films = fresh()
    example = films(ROW, None, 0.0)
    assert example["pixel_values_videos"].shape == (4, 3, 32, 32)
    assert example["pixel_values_videos"].dtype == torch.uint8
    batch = films.finish({name: value[None] for name, value in example.items()})
    Inputs(films).processor.save_pretrained(tmp_path)
    theirs = AutoVideoProcessor.from_pretrained(tmp_path)([to_clip(ROW["video"], frames=4).frames], return_tensors="pt")
    torch.testing.assert_close(batch["pixel_values_videos"], theirs["pixel_values"], atol=1e-5, rtol=0)


def test_frames_are_where_they_are_asked_for():
    films = fresh(fps=5, seconds=0.8)  # of a video of 10 per second
    levels = [films(ROW, None, at)["pixel_values_videos"].float().mean((1, 2, 3)) / 8 for at in (0.0, 1.0)]
    assert levels[0].tolist() == pytest.approx([1, 3, 5, 7], abs=0.6)
    assert levels[1].tolist() == pytest.approx([23, 25, 27, 29], abs=0.6)
    assert films.preparation(films.facts())[0] == "Frames: 5 per second, in a clip of 0.8 seconds, resized and cropped."
    assert fresh().preparation(fresh().facts())[0] == "Frames: spread over a clip of 3 seconds, resized and cropped."


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (CONFIGS["videomae"], "pixel_values"),
        (
            lambda: VJEPA2Config(
                hidden_size=16, num_hidden_layers=1, num_attention_heads=2, crop_size=32, frames_per_clip=4,
                pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=1,
            ),
            "pixel_values_videos",
        ),
    ],
)  # fmt: skip
def test_an_encoder_takes_them_by_its_name(config, name):
    encoder, films = build_encoder(config()), fresh()
    films.fit(encoder)
    (noise,) = Inputs(films).noise()
    assert set(noise) == {name} == {films.encoder_input} and noise[name].shape == (2, 4, 3, 32, 32)
    assert encoder(**noise).last_hidden_state.shape[0] == 2
    assert set(films(ROW, None, 0.5)) == {name}


def test_an_encoder_of_something_else_is_refused():
    with pytest.raises(ValueError, match="BertModel takes input_ids. Give a video encoder, which takes"):
        fresh().fit(build_encoder(CONFIGS["bert"]()))
    with pytest.raises(BadSample, match="video is int"):
        fresh()({"video": 3}, None, 0.0)


def test_a_report_draws_the_middle_frame():
    films = fresh()
    example = films(ROW, None, 0.0)
    middle = films.images_of(example)
    assert torch.equal(middle, example["pixel_values_videos"][2]) and middle.dtype == torch.uint8
    finished = films.finish({"pixel_values_videos": example["pixel_values_videos"][None]})
    assert torch.equal(films.images_of(finished)[0], middle)


def test_a_processor_that_is_brought_is_used(tmp_path):
    processor = default_video_processor(48)
    processor.image_mean = [0.1, 0.2, 0.3]
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "videomae"}')
    encoder = build_encoder(VideoMAEConfig(**{**VIT, "image_size": 48}, patch_size=8, num_frames=4))
    films = Video.from_saved(str(tmp_path), encoder, "it")
    assert films.size == (48, 48) and films.frames == 4 and list(films.processor.image_mean) == [0.1, 0.2, 0.3]
    settings = {ClipArguments: ClipArguments(), VideoArguments: VideoArguments(video_size=32), Augmentation: None}
    smaller = Video.from_options(settings, Context(start=str(tmp_path)))
    assert smaller.size == (32, 32) and list(smaller.processor.image_mean) == [0.1, 0.2, 0.3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="it has no video processor"):
        Video.from_saved(str(tmp_path / "empty"), build_encoder(CONFIGS["videomae"]()), "it")
    with pytest.raises(Exception, match="num_frames must be at least 1"):
        VideoArguments(num_frames=0)
    with pytest.raises(Exception, match="fps must be above 0"):
        VideoArguments(fps=0)


def test_a_clip_may_be_the_full_video():
    films, default = fresh(seconds=2.0, full_video=True), 2.0  # the default length of clips has no effect
    for at in (0.0, 1.0):
        levels = films(ROW, None, at)["pixel_values_videos"].float().mean((1, 2, 3)) / 8
        assert levels.tolist() == pytest.approx([3, 11, 18, 26], abs=1.1)  # of 30 frames
    assert films.facts()["seconds"] is None
    assert films.preparation(films.facts())[0] == "Frames: spread over each video, resized and cropped."
    with pytest.raises(ValueError, match="seconds=3.0 is for clips"):
        fresh(seconds=3.0, full_video=True)
    with pytest.raises(ValueError, match="fps=5.0 is for clips"):
        fresh(seconds=default, full_video=True, fps=5)
    sounds = Audio(Wav2Vec2FeatureExtractor(do_normalize=False), default)
    with pytest.raises(ValueError, match="Give --seconds, and no --full_video"):
        check_same_seconds([films, sounds])


PLAIN = dict(color_jitter=0.0, horizontal_flip=0.0)


def moving() -> dict:
    """A film of noise, the same in each frame."""
    frames = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8).repeat(4, 1, 1, 1)
    return {"video": Clip(frames, None, None, 0.0, 1.0)}


@pytest.mark.parametrize("options", [{}, {**PLAIN, "crop_scale": 0.3}, {"crop_scale": 1.0, "horizontal_flip": 1.0}])
def test_all_frames_of_a_clip_change_alike(options):
    films, row = fresh(augmentation=Augmentation(**{"color_jitter": 0.4, "hue": 0.1, **options})), moving()
    example = films(row, np.random.default_rng(0), 0.5)
    assert example["pixel_values_videos"].shape == (4, 3, 32, 32) and example["colors"].shape == (8,)
    finished = films.finish({name: value[None] for name, value in example.items()})["pixel_values_videos"][0]
    for frame in finished[1:]:
        assert torch.equal(frame, finished[0])
    plain = films.evaluation()(row, np.random.default_rng(0), 0.5)
    assert set(plain) == {"pixel_values_videos"}
    assert not torch.equal(plain["pixel_values_videos"], example["pixel_values_videos"])


def test_a_clip_is_changed_as_one_image_of_all_its_frames():
    films, augmentation = fresh(), Augmentation(color_jitter=0.5, grayscale=0.3)
    films.augmentation = augmentation
    pixels, draws = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8), torch.rand(2, 8)
    finished = films.finish({"pixel_values_videos": pixels, "colors": draws})["pixel_values_videos"]
    for i in range(2):
        together = torch.cat(list(pixels[i]), 1)[None].float()  # (1, 3, F * H, W)
        changed = augmentation.change_colors(together, draws[i : i + 1])[0]
        torch.testing.assert_close(finished[i], torch.stack(changed.split(32, 1)) / 127.5 - 1, atol=1e-4, rtol=0)


def test_the_crop_of_a_clip_is_that_of_an_image_with_the_same_draws():
    images, row = Image(default_processor(32), Augmentation(crop_scale=0.3)), moving()
    films = fresh(augmentation=Augmentation(crop_scale=0.3))
    content = PIL.Image.fromarray(row["video"].frames[0].permute(1, 2, 0).numpy())
    of_image = images({"image": content}, np.random.default_rng(3))
    of_film = films(row, np.random.default_rng(3), 0.5)
    assert torch.equal(of_film["colors"], of_image["colors"])
    difference = of_film["pixel_values_videos"][1].int() - of_image["pixel_values"].int()
    assert difference.abs().max() <= 1


IMAGES = {"vit": CONFIGS["vit"], "resnet": CONFIGS["resnet"], "timm": CONFIGS["timm_resnet18"]}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_encoder_takes_frames_one_by_one_and_its_usage_code_gives_the_same(name, tmp_path):
    films, encoder = fresh(), build_encoder(IMAGES[name]()).eval()
    films.fit(encoder)
    assert films.encoder_input == "pixel_values" and films.facts()["frames_encoded"] == "separately"
    assert "one by one" in films.preparation(films.facts())[0]
    example = films(ROW, None, 0.5)
    batch = films.finish({name: value[None] for name, value in example.items()})
    assert batch["pixel_values"].shape == (1, 4, 3, 32, 32)
    encoder.save_pretrained(tmp_path)
    films.processor.save_pretrained(tmp_path)
    code = (
        environment()
        .from_string(films.usage)
        .render(folder=tmp_path, subfolder="", hidden_of=").last_hidden_state", **films.facts())
    )
    clip = to_clip(ROW["video"], 3.0, frames=4, at=0.5).frames
    names = {"clip": clip}
    exec(code.replace("torch.zeros(4, 3, 100, 200, dtype=torch.uint8)", "clip"), names)
    with torch.no_grad():
        ours = encode(encoder, pixel_values=batch["pixel_values"])[-1]
    torch.testing.assert_close(names["features"], ours, atol=1e-4, rtol=1e-4)
    assert Video.from_saved(str(tmp_path), encoder, "it").facts()["frames_encoded"] == "separately"
    options = {ClipArguments: ClipArguments(), VideoArguments: VideoArguments(), Augmentation: Augmentation()}
    started = Video.from_options(options, Context(start=str(tmp_path)))
    started.fit(encoder)
    assert started.size == (32, 32) and type(started.processor) is type(films.processor)


def test_a_processor_becomes_one_of_the_encoders_kind_with_its_normalisation():
    images = default_processor(32)
    images.image_mean, images.image_std = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    films = Video(images, 4)
    films.fit(build_encoder(CONFIGS["videomae"]()))
    assert type(films.processor) is VideoMAEVideoProcessor and films.size == (32, 32)
    assert films.processor.image_mean == pytest.approx([0.1, 0.2, 0.3])
    example = films(ROW, None, 0.5)
    ours = films.finish({name: value[None] for name, value in example.items()})["pixel_values"]
    theirs = films.processor([to_clip(ROW["video"], frames=4).frames], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("config", "options", "fix"),
    [
        (CONFIGS["videomae"], {"num_frames": 8}, "--num_frames 4 --video_size 32"),
        (CONFIGS["videomae"], {"video_size": 64}, "--num_frames 4 --video_size 32"),
        (lambda: VivitConfig(**VIT, num_frames=4, tubelet_size=[2, 8, 8]), {"num_frames": 6}, "--num_frames 4"),
        (CONFIGS["vit"], {"video_size": 64}, "Give --video_size 32, as in its config"),
    ],
)
def test_an_encoder_of_fixed_size_refuses_other_sizes_with_the_fix(config, options, fix):
    films = fresh(**options)
    with pytest.raises(ValueError, match=rf"--num_frames\) of .* do not fit .*{fix}"):
        films.fit(build_encoder(config()))


def test_encoders_that_take_other_numbers_of_frames_are_accepted():
    for config in (TimesformerConfig(**VIT, patch_size=8, num_frames=4), CONFIGS["vit"](), CONFIGS["resnet"]()):
        films = fresh(num_frames=6)
        films.fit(build_encoder(config))
        assert films.noise()["pixel_values"].shape == (2, 6, 3, 32, 32)


def test_frames_that_last_longer_than_the_clip_are_refused():
    with pytest.raises(ValueError, match=r"4 frames .* last 4 seconds, longer than a clip of 3 seconds.*--seconds 4,"):
        fresh(fps=1)


@pytest.mark.parametrize("length", [1, 3, 30])
def test_films_of_other_lengths_give_clips_of_one_length(length):
    """Of one frame, and shorter or longer than the clip."""
    films = fresh(seconds=1.0)
    clip = films({"video": {"bytes": video(frames=length), "path": None}}, None, 0.5)["pixel_values_videos"]
    assert clip.shape == (4, 3, 32, 32)
    if length == 1:
        assert all(torch.equal(frame, clip[0]) for frame in clip)


def test_a_text_named_as_a_film_and_a_film_without_sound_are_bad_samples():
    with pytest.raises(BadSample, match="damaged video|not a"):
        fresh()({"video": {"bytes": b"no film, a text", "path": "text.mp4"}}, None, 0.5)
    with pytest.raises(BadSample, match="video without sound"):
        Audio(Wav2Vec2FeatureExtractor(), 0.5)(ROW, None, 0.5)
