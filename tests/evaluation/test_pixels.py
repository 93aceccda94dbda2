"""Raw pixels of images and of the middle frames of videos."""

import io

import av
import datasets
import numpy as np
import torch

from hf_pretext.evaluation.baselines import baseline_transfer
from hf_pretext.evaluation.frame_pixels import frame_transfer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.evaluation.pixels import averaged
from hf_pretext.evaluation.transfer import METHODS
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.video import Video, default_video_processor


def test_large_images_are_compared_small():
    assert averaged(torch.rand(2, 3, 100, 80), 64).shape == (2, 3 * 64 * 64)
    small = torch.rand(2, 3, 16, 16)
    assert torch.equal(averaged(small, 64), small.flatten(1))
    checks = torch.zeros(1, 3, 32, 32)
    checks[..., ::2] = 1.0  # columns of pairs: each mean is a half
    assert torch.equal(averaged(checks, 16), torch.full((1, 3 * 16 * 16), 0.5))


def test_of_videos_the_middle_frames_are_measured():
    """Two kinds of films differ only in their middle; a frame of another time would give the accuracy of chance."""
    data = {}
    for split, count in {"train": 8, "validation": 4, "test": 6}.items():
        rows = [{"video": {"bytes": flash(i % 2, i), "path": None}, "kind": "ab"[i % 2]} for i in range(count)]
        data[split] = datasets.Dataset.from_list(rows).cast_column("video", datasets.Video())
    videos = Video(default_video_processor(16), 5)
    labelled = LabelledSet(datasets.DatasetDict(data), Inputs(videos), "kind", batch_size=4)
    metrics = frame_transfer(labelled, METHODS)
    assert baseline_transfer(labelled, "video", METHODS) == {"frame pixels": metrics}
    assert {method: result["test"]["top1"] for method, result in metrics.items()} == dict.fromkeys(METHODS, 1.0)
    middle = next(labelled.examples("test", "video"))["pixel_values_videos"][:, 2]
    assert torch.equal(middle, labelled.pixels["test"][:4])  # before `finish`: uint8


def flash(kind: int, number: int) -> bytes:
    """A film of noise, of 5 frames; in the middle one, the left or the right half is white."""
    frames = np.random.default_rng(number).integers(0, 100, (5, 16, 16, 3)).astype(np.uint8)
    frames[2, :, 8 * kind : 8 * kind + 8] = 255
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 16, 16, "rgb24"
        for pixels in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()
