"""Image-text matching: negatives are drawn by scores, and right and wrong pairs have the same total weight."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import CONFIGS, IMAGE, TEXT, VIT
from contract import check_contract
from transformers import AutoModel

from hf_pretext import MatchingForPreTraining
from hf_pretext.encoders import build_encoder
from hf_pretext.modules.dual_encoder import dual_encoder
from hf_pretext.modules.wrong_pairs import wrong_ones
from hf_pretext.objectives.matching import Fusion

SMALL = dict(fusion_width=24, fusion_layers=1, fusion_heads=2)


def model_of(vision: str = "vit", **settings) -> MatchingForPreTraining:
    return MatchingForPreTraining.from_encoders(CONFIGS[vision](), CONFIGS["bert"](), 24, **{**SMALL, **settings})


def pairs(count: int = 6, length: int = 7, seed: int = 1) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.randn(count, 3, IMAGE, IMAGE, generator=random),
        "input_ids": torch.randint(3, 50, (count, length), generator=random),
        "attention_mask": torch.ones(count, length, dtype=torch.long),
    }


@pytest.mark.parametrize("vision", ["vit", "convnext", "timm_resnet18"])
def test_contract(tmp_path, vision):
    encoder = dual_encoder(build_encoder(CONFIGS[vision]()), build_encoder(CONFIGS["bert"]()), 24)
    check_contract(MatchingForPreTraining, encoder, pairs(), tmp_path, **SMALL)


def test_takes_a_clip_model_as_it_is(tmp_path):
    ends = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = transformers.CLIPConfig(
        vision_config={**VIT, "patch_size": 8}, text_config={**TEXT, **ends, "max_position_embeddings": 16}
    )
    model = MatchingForPreTraining.from_encoder(config, **SMALL)
    model.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is transformers.CLIPModel
    assert model(**pairs()).logits.shape == (18,)


def test_wrong_pairs_are_those_of_other_labels(monkeypatch):
    from hf_pretext.objectives import matching

    seen = []
    monkeypatch.setattr(
        matching, "wrong_ones", lambda scores, same, *_: seen.append(same) or wrong_ones(scores, same, True)
    )
    labels = torch.tensor([7, 7, 8, 9, 9, 9])
    output = model_of()(**pairs(), labels=labels)
    assert torch.equal(seen[0], labels[:, None] == labels) and torch.equal(seen[1], seen[0])
    assert output.labels.tolist() == [1] * 6 + [0] * 12


def test_logits_are_those_of_the_pairs_that_were_drawn(monkeypatch):
    from hf_pretext.objectives import matching

    drawn = iter([torch.tensor([1, 2, 3, 4, 5, 0]), torch.tensor([3, 4, 5, 0, 1, 2])])
    monkeypatch.setattr(matching, "wrong_ones", lambda *_: next(drawn))
    model, batch = model_of().eval(), pairs()
    batch["attention_mask"][3, 4:] = 0
    logits = model(**batch).logits

    def match(images, captions):
        texts = {name: batch[name][captions] for name in ("input_ids", "attention_mask")}
        return model.match(batch["pixel_values"][images], **texts)

    every = list(range(6))
    torch.testing.assert_close(logits[:6], match(every, every))
    torch.testing.assert_close(logits[6:12], match(every, [1, 2, 3, 4, 5, 0]))
    torch.testing.assert_close(logits[12:], match([3, 4, 5, 0, 1, 2], every))


def test_padding_changes_nothing():
    fusion = Fusion(8, 12, 16, 2, 2)
    patches, words, mask = torch.randn(3, 4, 8), torch.randn(3, 5, 12), torch.ones(3, 5)
    longer = F.pad(words, (0, 0, 0, 3), value=7.0), F.pad(mask, (0, 3))
    cosine = torch.randn(3)
    torch.testing.assert_close(fusion(patches, *longer, cosine), fusion(patches, words, mask, cosine))


def test_the_first_token_is_made_of_the_cosine():
    model, batch = model_of(contrastive_weight=1.0).eval(), pairs()
    score = model.match(**batch)
    tokens, texts = model.encode_texts(**{k: batch[k] for k in batch if k != "pixel_values"})
    model.encode_texts = lambda *_: (tokens, -texts)  # the same tokens, other embeddings
    assert (model.match(**batch) != score).all()
    model.encode_texts = lambda *_: (tokens, texts)
    torch.testing.assert_close(model.match(**batch), score)


@pytest.mark.slow
def test_learns_one_batch_by_each_of_its_losses():
    for weight in (0.0, 1.0):
        model, batch = model_of(contrastive_weight=weight, negatives="shuffled").eval(), pairs()  # no dropout
        optimizer, found = torch.optim.AdamW(model.parameters(), 2e-3), []
        for _ in range(80):
            output = model(**batch)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            found.append({name: value.item() for name, value in output.losses.items()})
        assert set(found[0]) == ({"matching", "contrastive"} if weight else {"matching"})
        for name in found[0]:
            assert found[-1][name] < 0.5 * found[0][name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(fusion_width=25), "fusion_width must be a multiple of fusion_heads"),
        (dict(fusion_layers=0), "at least 1"),
        (dict(contrastive_weight=-1.0), "contrastive_weight must be at least 0, but is -1.0"),
        (dict(negatives="none"), "negatives"),
    ],
)
def test_settings_that_can_not_be(settings, message):
    with pytest.raises(ValueError, match=message):
        model_of(**settings)


def test_batches_that_can_not_be():
    model, batch = model_of(), pairs()
    with pytest.raises(ValueError, match="6 images came with 5 captions"):
        model(batch["pixel_values"], batch["input_ids"][:5])
    with pytest.raises(ValueError, match="at least 2 pairs per global batch, but got 1"):
        model.train()(**pairs(1))
    with pytest.raises(ValueError, match="6 pairs came with 2 labels"):
        model(**batch, labels=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="ViTModel does not embed images and texts"):
        MatchingForPreTraining.from_encoder(build_encoder(CONFIGS["vit"]()))
