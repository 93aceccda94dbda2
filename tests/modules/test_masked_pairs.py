"""Masking patches and words of pairs: the codebook that comes with it, and what is hidden."""

from test_flava import SETTINGS, encoder, kinds, pairs

from hf_pretext import FlavaForPreTraining
from hf_pretext.modules.codebook import PatchCodebook


def test_prepare_fits_the_codebook_to_pictures_alone():
    model = FlavaForPreTraining.from_encoder(encoder(), **SETTINGS)
    batches = [kinds(pairs())["texts"], kinds(pairs())["pictures"]]
    model.prepare(iter(batches))
    assert isinstance(model.codebook, PatchCodebook) and model.codebook.fitted
