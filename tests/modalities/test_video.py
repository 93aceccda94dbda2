"""Videos: clips through a video processor, under the argument name of the encoder."""

import pytest
import torch
from conftest import CONFIGS, VIT
from media import video
from transformers import AutoVideoProcessor, VideoMAEConfig, VJEPA2Config

from hf_pretext.data.clips import to_clip
from hf_pretext.data.decoding import BadSample
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities import Context, Inputs
from hf_pretext.modalities._clips import ClipArguments
from hf_pretext.modalities.image import Augmentation
from hf_pretext.modalities.video import Video, VideoArguments, default_video_processor

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
