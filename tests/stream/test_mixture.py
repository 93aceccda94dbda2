"""Several sources as one: weights, keys, and what is too small for its share."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from streamed import batches, numbered, numbers

from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Augmentation, default_processor
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.stream.mixture import Mixture


def test_a_mixture_is_deterministic_and_starts_anywhere():
    data = Mixture([numbered(rows=60), numbered(0, 30, first=100)], [0.7, 0.3])
    assert len(data) == 90 and data.name.count(" + ") == 1
    unbroken, loader = batches(60, data)
    rest, _ = batches(30, data, start=240)
    assert numbers(rest) == numbers(unbroken)[240:]
    assert np.mean([n >= 100 for n in numbers(unbroken)]) == pytest.approx(0.3, abs=0.04)
    helped, _ = batches(60, data, num_workers=2)
    assert numbers(helped) == numbers(unbroken)
    parts = [batches(60, data, batch_size=4, rank=rank, ranks=2)[0] for rank in range(2)]
    together = [torch.stack([a["number"], b["number"]]).T.flatten() for a, b in zip(*parts, strict=True)]
    assert torch.cat(together).tolist() == numbers(unbroken)
    drawn = loader.reader.order.drawn(480)
    assert drawn == [sum(n < 100 for n in numbers(unbroken)), sum(n >= 100 for n in numbers(unbroken))]


def test_files_of_one_name_in_two_sources_are_not_mistaken_for_each_other(tmp_path):
    """Decoded images are kept by their keys."""
    for name, grey in (("dark", 10), ("light", 200)):
        images = [Image.new("RGB", (16, 16), (grey, grey, grey)) for _ in range(40)]
        data = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))
        (tmp_path / name).mkdir()
        data.to_parquet(tmp_path / name / "train-00000-of-00001.parquet")
    mixture = Mixture([open_source(str(tmp_path / name)) for name in ("dark", "light")], [1, 1])
    process = ImageModality(default_processor(16), Augmentation(color_jitter=0.0))
    outcome, loader = batches(8, mixture, process, batch_size=20)
    greys = torch.cat([batch["pixel_values"] for batch in outcome]).float().mean((1, 2, 3)).round().tolist()
    assert greys == [(10, 200)[loader.reader.order.choose(g)[0]] for g in range(160)]
    assert process._kept and min(greys) == 10 and max(greys) == 200


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0.5, -1], [0, 1]])
def test_weights_that_do_not_fit(weights):
    with pytest.raises(ValueError, match="--mixture_weights.*a positive number for each of the 2"):
        Mixture([numbered(), numbered()], weights)


def test_sources_too_small_for_their_share_are_reported_at_once():
    small, large = numbered(0, 1), numbered(0, 101)
    with pytest.raises(ValueError, match="--mixture_weights 1 100000 has a weight.*at least a thousandth"):
        Mixture([small, large], [1, 100_000])
    with pytest.raises(ValueError, match="Dataset has 1 of 5,001 rows, less than a thousandth. Leave it out"):
        Mixture([small, open_source(datasets.Dataset.from_dict({"image": [1] * 5000}), columns={"image": "image"})])
