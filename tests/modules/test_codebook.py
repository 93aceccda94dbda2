"""Visual tokens: k-means that leaves no code unused, encoders that describe patches, DALL-E's codebook, checkpoints."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import CONFIGS, IMAGE
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import nn
from transformers import (
    AutoModel,
    BertModel,
    Dinov2WithRegistersConfig,
    FlavaConfig,
    FlavaForPreTraining,
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
    FlavaImageProcessor,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from hf_pretext.encoders import build_encoder
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.modalities.image import default_processor
from hf_pretext.modeling import PretextModel
from hf_pretext.modules import codebook as quantize
from hf_pretext.modules import kmeans
from hf_pretext.modules.codebook import PatchCodebook, ReadyCodebook, normalisation_of
from hf_pretext.modules.codebook_sources import codebook_config, codebook_from, open_codebook
from hf_pretext.modules.patches import patchify

PATCHES = {"vit": 8, "clip_vision": 8, "swin": 8, "resnet": 8, "timm_resnet18": 32}  # of encoders' last grids


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are tiny here: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def pixels_of(rows, side: int = IMAGE) -> torch.Tensor:
    processing = ImageModality(default_processor(side))
    pixels = torch.stack([processing(row, None)["pixel_values"] for row in rows])
    return processing.finish({"pixel_values": pixels})["pixel_values"]


@pytest.fixture
def pictures(emoji):
    """64 of the embedded set: 1024 patches of 8 x 8 pixels."""
    return pixels_of(emoji())


def fitted(pictures: torch.Tensor, size: int = 32, **settings) -> PatchCodebook:
    codebook = PatchCodebook(size, 8)
    codebook.fit(pictures.split(10), progress=False, **settings)
    return codebook


def ready(patch_size: int = 8, **settings) -> ReadyCodebook:
    """With weights at random, but of a size that pictures make a difference to."""
    inner = FlavaImageCodebook(FlavaImageCodebookConfig(hidden_size=8, num_blocks_per_group=1, vocab_size=64))
    for parameter in inner.parameters():
        parameter.data.normal_(std=0.3) if parameter.ndim > 1 else parameter.data.zero_()
    return ReadyCodebook(inner, patch_size, **settings)


def unlike(codes: torch.Tensor) -> int:
    return len(codes.unique())


# codes


def test_codes_are_of_the_nearest_centres_and_row_by_row(pictures):
    codebook = fitted(pictures)
    patches = patchify(pictures, 8).double()
    expected = torch.cdist(patches, codebook.centres.double()).argmin(2)
    codes = codebook(pictures)
    assert codes.dtype == torch.int64 and codes.shape == (64, 16) and unlike(codes) == 32
    assert torch.equal(codes, expected)


@pytest.mark.parametrize("tile", [1, 200, 32 * 700])  # a patch, some, not a whole number of tiles
def test_codes_do_not_depend_on_how_many_scores_are_held(pictures, tile, monkeypatch):
    codebook = fitted(pictures)
    expected, largest = codebook(pictures), []
    product = torch.addmm
    monkeypatch.setattr(kmeans, "TILE", tile)
    monkeypatch.setattr(torch, "addmm", lambda *given: largest.append(product(*given).numel()) or product(*given))
    assert torch.equal(codebook(pictures), expected)
    assert max(largest) <= max(tile, 32)


def test_codes_are_those_of_float32_under_autocast(pictures):
    for codebook in (fitted(pictures, size=200), PatchCodebook(200, 8, encoder_of("vit")), ready()):
        if not codebook.fitted:
            codebook.fit([pictures], progress=False)
        expected = codebook(pictures)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(codebook(pictures), expected)
            inside = type(codebook).forward.__wrapped__  # without what keeps it exact
            assert not torch.equal(inside(codebook, pictures), expected) or codebook.kind == "features"


def test_pictures_that_do_not_fit(pictures):
    with pytest.raises(ValueError, match="Pictures of 32x32 pixels can't be cut into patches of 5x5"):
        PatchCodebook(4, 5).fit([pictures])
    with pytest.raises(ValueError, match="Pictures of 32x32 pixels can't be cut into patches of 5x5"):
        ready(5)(pictures)


@pytest.mark.parametrize("size, patch_size", [(1, 8), (8, 0)])
def test_sizes_that_make_no_sense(size, patch_size):
    with pytest.raises(ValueError, match=f"not {size} and {patch_size}"):
        PatchCodebook(size, patch_size)


def test_a_codebook_that_was_not_fitted_is_refused(pictures):
    codebook = PatchCodebook(8, 8)
    assert not codebook.fitted
    for use in (lambda: codebook(pictures), lambda: codebook.perplexity):
        with pytest.raises(ValueError, match="8 codes has no centres yet: fit it first, or load it"):
            use()
    codebook.load_state_dict(fitted(pictures, 8).state_dict())
    assert codebook.fitted and codebook(pictures).shape == (64, 16)


# fitting


def test_the_same_batches_and_seed_give_the_same_centres(pictures):
    torch.set_num_threads(2)
    with threadpool_limits(2):
        first, again, other = fitted(pictures), fitted(pictures), fitted(pictures, seed=1)
    assert torch.equal(first.centres, again.centres) and torch.equal(first.counts, again.counts)
    assert not torch.equal(first.centres, other.centres)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_centres_and_codes_are_the_same_on_a_gpu(pictures):
    expected, codebook = fitted(pictures), PatchCodebook(32, 8).cuda()
    codebook.fit(pictures.split(10), progress=False)
    assert codebook.centres.is_cuda and torch.equal(codebook.centres.cpu(), expected.centres)
    assert torch.equal(codebook(pictures.cuda()).cpu(), expected(pictures))


def test_fitting_leaves_the_global_generators_alone(pictures):
    ours, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    fitted(pictures)
    assert torch.equal(torch.get_rng_state(), ours) and (np.random.get_state()[1] == numpys).all()


def test_what_fitting_tells(pictures):
    codebook = PatchCodebook(32, 8)
    told = codebook.fit(pictures.split(10), progress=False)
    patches, codes = patchify(pictures, 8).flatten(0, 1), codebook(pictures).flatten()
    counts = np.bincount(codes, minlength=32)
    assert told["patches"] == 1024 and told["dead"] == 0
    assert codebook.counts.tolist() == counts.tolist()
    shares = [count / 1024 for count in counts.tolist()]
    assert told["perplexity"] == pytest.approx(math.prod(share**-share for share in shares)) == codebook.perplexity
    assert 1 < told["perplexity"] < 32
    assert told["error"] == pytest.approx(float((patches - codebook.centres[codes]).square().mean()), rel=1e-4)


def test_centres_tell_patches_apart_as_well_as_k_means(pictures):
    from sklearn.cluster import KMeans

    patches = patchify(pictures, 8).flatten(0, 1).numpy()
    codebook = PatchCodebook(32, 8)
    best = KMeans(32, n_init=3, random_state=0).fit(patches).inertia_ / patches.size
    drawn = torch.cdist(torch.from_numpy(patches), torch.from_numpy(patches[:32])).amin(1).square().sum() / patches.size
    error = codebook.fit([pictures], progress=False)["error"]
    assert error < 1.1 * best
    assert error < 0.8 * drawn


def test_first_centres_lie_apart():
    crowd = torch.full((17, 5), 3.0) + 0.01 * torch.randn(17, 5)
    points = torch.cat([crowd, 10 * torch.eye(5), -10 * torch.eye(5)[:2]])[torch.randperm(24)]
    centres = kmeans.first_centres(points, torch.ones(24), 8, seed=0)
    assert (torch.cdist(centres, crowd).amin(1) < 1).sum() == 1
    assert all(any(torch.equal(centre, point) for point in points) for centre in centres)


def test_mini_batches_bring_centres_nearer(pictures, monkeypatch):
    monkeypatch.setattr(kmeans, "BATCH", 100)
    points, weights = kmeans.distinct(patchify(pictures, 8).flatten(0, 1))
    first = points[torch.randperm(len(points))[:32]]
    with quantize.bar(len(points), "", False) as shown:
        moved = kmeans.mini_batches(points, weights, first, shown)
    before, after = (float((kmeans.nearest(points, c)[1] * weights).sum()) for c in (first, moved))
    assert after < 0.9 * before


def test_no_more_patches_are_seen_than_asked_for(pictures):
    asked = []

    def batches():
        for part in pictures.split(10):
            asked.append(len(part))
            yield part

    codebook = PatchCodebook(8, 8)
    assert codebook.fit(batches(), patches=200, progress=False)["patches"] == 200
    assert asked == [10, 10] and codebook.counts.sum() == 200
    assert torch.equal(codebook.centres, fitted(pictures[:13], 8, patches=200).centres)


def test_fewer_patches_than_codes_are_refused(pictures):
    with pytest.raises(ValueError, match=r"65 codes needs .* among the 64 .* are 6\d\. Take fewer codes"):
        fitted(pictures[:4], 65)
    one = pictures[:1, :, :8, :8].repeat(100, 1, 4, 4)  # 1600 times the same patch
    with pytest.raises(ValueError, match="2 codes needs .* among the 1600 .* are 1"):
        fitted(one, 2)
    with pytest.raises(ValueError, match="among the 0 that"):
        PatchCodebook(2, 8).fit([], progress=False)


def test_as_many_codes_as_patches_take_one_each():
    pictures = torch.randn(4, 3, 32, 32).repeat(3, 1, 1, 1)
    codebook = PatchCodebook(64, 8)
    told = codebook.fit([pictures], progress=False)
    assert codebook.counts.tolist() == [3.0] * 64
    assert told["perplexity"] == pytest.approx(64) and told["error"] == 0


def test_progress_is_shown_and_goes_away(pictures, capsys):
    PatchCodebook(8, 8).fit([pictures])
    shown = capsys.readouterr().err
    assert "fitting the codebook:" in shown and "patches/s" in shown
    assert not shown.split("\r")[-2].strip()  # the bar was wiped out
    PatchCodebook(8, 8).fit([pictures], progress=False)
    assert not capsys.readouterr().err


def test_codes_that_nobody_uses_get_other_patches(pictures, monkeypatch):
    usual = PatchCodebook(64, 8).fit([pictures], progress=False)
    monkeypatch.setattr(kmeans, "first_centres", lambda points, weights, size, seed: points[:1].repeat(size, 1))
    alive, dead = PatchCodebook(64, 8), PatchCodebook(64, 8)
    told = alive.fit([pictures], progress=False)
    monkeypatch.setattr(kmeans, "reseed", lambda *given: None)
    assert dead.fit([pictures], progress=False)["dead"] > 40
    assert told["dead"] == 0 and told["error"] < 1.2 * usual["error"]
    assert alive.counts.min() >= 1 and unlike(alive(pictures)) == 64


def test_no_code_is_lost_to_what_is_a_centre_already(monkeypatch):
    """Where nearly all patches are the same white, it would be drawn again and again."""
    monkeypatch.setattr(kmeans, "first_centres", lambda points, weights, size, seed: points[:1].repeat(size, 1))
    pictures = torch.cat([torch.ones(20_000, 3, 8, 8), torch.randn(3, 3, 8, 8)])
    codebook = PatchCodebook(4, 8)
    assert codebook.fit([pictures], progress=False)["dead"] == 0
    assert codebook.counts.sort().values.tolist() == [1, 1, 1, 20_000]


def test_codes_of_odd_patches_are_given_to_the_many(pictures, monkeypatch):
    """Of first centres on noise, which no other patch is like, each would keep a single patch."""
    data = [torch.cat([20 * torch.randn(2, 3, 32, 32), pictures])]

    def brightest(points, weights, size, seed):
        return points[points.square().sum(1).argsort(descending=True)[:size]]

    monkeypatch.setattr(kmeans, "first_centres", brightest)
    given, kept = PatchCodebook(64, 8), PatchCodebook(64, 8)
    given.fit(data, progress=False)
    monkeypatch.setattr(kmeans, "RARE", 0.0)
    kept.fit(data, progress=False)
    assert (kept.counts == 1).sum() >= 32
    assert (given.counts == 1).sum() < 16 and given.perplexity > 1.2 * kept.perplexity


def test_a_white_background_takes_one_code(pictures):
    """Where 9 of 10 patches are the same white, as in many sets of drawings."""
    white = torch.ones(576, 3, 32, 32)
    codebook = PatchCodebook(64, 8)
    told = codebook.fit(torch.cat([white, pictures]).split(64), progress=False)
    assert told["patches"] == 10_240 and told["dead"] == 0
    assert len(codebook.centres.unique(dim=0)) == 64
    assert unlike(codebook(white)) == 1 and unlike(codebook(pictures)) == 64
    alone = PatchCodebook(63, 8).fit([pictures], progress=False)["error"]
    assert told["error"] * 10 < 1.2 * alone  # white has none, and takes no code from the rest


# encoders that describe patches


def encoder_of(kind: str):
    return build_encoder(CONFIGS[kind]())


@pytest.mark.parametrize("kind, patch_size", PATCHES.items())
def test_patches_are_described_by_an_encoders_last_states(kind, patch_size, pictures):
    torch.manual_seed(0)
    encoder = encoder_of(kind)
    codebook = PatchCodebook(6, patch_size, encoder)
    patches = (IMAGE // patch_size) ** 2
    pictures = pictures[:16]
    described = codebook.describe(pictures)
    with torch.no_grad():
        hidden = encoder.eval()(pictures).last_hidden_state
    assert described.shape == (16, patches, codebook.centres.shape[1])
    if hidden.ndim == 4:
        expected = torch.stack([hidden[:, :, i, j] for i in range(hidden.shape[2]) for j in range(hidden.shape[3])], 1)
    else:
        expected = hidden[:, hidden.shape[1] - patches :]
    assert torch.equal(described, expected)
    told = codebook.fit(pictures.split(10), progress=False)
    codes = codebook(pictures)
    assert told["dead"] == 0 and unlike(codes) == 6
    assert torch.equal(codes, torch.cdist(described.double(), codebook.centres.double()).argmin(2))


def test_tokens_that_are_no_patches_are_left_out(pictures):
    config = CONFIGS["dinov2"]().to_dict() | {"num_register_tokens": 4}
    encoder = AutoModel.from_config(Dinov2WithRegistersConfig(**config))
    described = PatchCodebook(6, 8, encoder).describe(pictures)
    with torch.no_grad():
        assert torch.equal(described, encoder.eval()(pictures).last_hidden_state[:, 5:])


@pytest.mark.parametrize("kind, patch_size, gives", [("vit", 4, "17 tokens"), ("vit", 16, "17"), ("resnet", 16, "8x8")])
def test_another_grid_is_refused(kind, patch_size, gives, pictures):
    if kind == "resnet":
        gives = "x".join(map(str, encoder_of(kind)(pictures).last_hidden_state.shape[2:])) + " cells"
    cells = IMAGE // patch_size
    with pytest.raises(ValueError, match=f"gives {gives}.* where a codebook has {cells}x{cells} patches"):
        PatchCodebook(6, patch_size, encoder_of(kind)).describe(pictures)


def test_an_encoder_of_something_else_is_refused():
    with pytest.raises(ValueError, match="needs an encoder of the kind image"):
        PatchCodebook(6, 8, encoder_of("bert"))


def test_the_encoder_stays_as_it_is(pictures):
    for codebook in (PatchCodebook(6, 8, ViTModel(ViTConfig(**dropping()))), ready()):
        nn.ModuleDict({"pretext_head": codebook}).train()
        assert not any(module.training for module in codebook.modules())
        assert not any(parameter.requires_grad for parameter in codebook.parameters())
        codebook.fit([pictures], progress=False)
        pictures.requires_grad_()
        codes = codebook(pictures)
        assert torch.equal(codebook(pictures), codes) and unlike(codes) > 1
        if isinstance(codebook, PatchCodebook):
            assert not codebook.describe(pictures).requires_grad
        pictures = pictures.detach()


def dropping() -> dict:
    return CONFIGS["vit"]().to_dict() | {"hidden_dropout_prob": 0.5}


# a ready codebook


def by_hand(codebook: ReadyCodebook, image: Image.Image, side: int) -> torch.Tensor:
    size = {"height": side, "width": side}
    processor = FlavaImageProcessor(codebook_size=size, codebook_crop_size=size, codebook_resample=3)
    pixels = processor(image, return_codebook_pixels=True, return_tensors="pt")["codebook_pixel_values"]
    return codebook.codebook.get_codebook_indices(pixels).flatten(1)


@pytest.mark.parametrize("patch_size", [8, 16])  # pictures of the codebook's own size, and of twice that
def test_ready_codes_are_those_of_flavas_own_pixels(patch_size, emoji):
    rows = emoji(count=8)
    side = 4 * patch_size
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    codebook = ready(patch_size, mean=mean, std=std)
    raw = (pixels_of(rows, side) + 1) / 2
    pictures = (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    codes = codebook(pictures)
    assert codebook.fitted and codebook.size == 64 and codebook.fit([pictures]) == {}
    assert codes.shape == (8, 16) and codes.dtype == torch.int64 and unlike(codes) > 5
    images = [Image.fromarray((255 * picture).round().byte().permute(1, 2, 0).numpy()) for picture in raw]
    expected = torch.cat([by_hand(codebook, image, 32) for image in images])
    same = (codes == expected).float().mean()
    assert same == 1 if patch_size == 8 else same > 0.95  # FLAVA's resizing rounds


def test_a_ready_codebooks_cells_are_within_their_bounds(pictures):
    cells = ready(4)(pictures), ready(4).cells(pictures)
    assert cells[0].shape == (64, 64) and cells[1].shape == (64, 3, 64, 64)
    assert cells[1].min() == pytest.approx(0.1) and cells[1].max() == pytest.approx(0.9)


# saving


@dataclass
class CodesTask:
    codebook: dict | None = None


class CodesForPreTraining(PretextModel):
    objective, task_class, inputs = "codes", CodesTask, ("image",)

    def __init__(self, full_model, task, parts=None):
        super().__init__(full_model, task, parts)
        self.pretext_head = nn.ModuleDict({"codebook": codebook_from(self.task.codebook), "head": nn.Linear(32, 8)})
        self.post_init()


def codebooks() -> dict:
    """One of each kind, by name, that are fitted to a batch of pictures."""
    made = {"pixels": lambda: PatchCodebook(16, 8), "ready": lambda: ready(mean=(0.1, 0.2, 0.3), std=(0.3, 0.4, 0.5))}
    return made | {k: (lambda k=k: PatchCodebook(6, PATCHES[k], encoder_of(k))) for k in PATCHES}


@pytest.mark.parametrize("name", codebooks())
def test_a_model_keeps_its_codebook_bit_for_bit(name, pictures, tmp_path):
    codebook = codebooks()[name]()
    codebook.fit([pictures], progress=False)
    told = codebook_config(codebook)
    model = CodesForPreTraining.from_encoder(CONFIGS["vit"](), codebook=json.loads(json.dumps(told)))
    model.pretext_head["codebook"].load_state_dict(codebook.state_dict())
    model.save_pretrained(tmp_path)
    again = CodesForPreTraining.from_pretrained(tmp_path).pretext_head["codebook"]
    assert again is not codebook and type(again) is type(codebook) and again.kind == codebook.kind
    for key, value in codebook.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert len(codebook.state_dict()) == len(again.state_dict())
    assert codebook_config(again) == told
    assert again.fitted and torch.equal(again(pictures), codebook(pictures))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not any(module.training for module in again.modules())


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="no codebook of the kind 'words': there are 'pixels', 'features' and 'ready'"):
        codebook_from({"kind": "words"})


# opening


def save_codebook(folder) -> dict[str, torch.Tensor]:
    inner = ready().codebook
    inner.save_pretrained(folder)
    return inner.state_dict()


def save_flava(folder) -> dict[str, torch.Tensor]:
    inner = ready().codebook
    small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    picture = dict(**small, image_size=16, patch_size=8, vocab_size=64)
    parts = dict(image_config=picture, text_config=dict(**small, vocab_size=20), multimodal_config=small)
    config = FlavaConfig(**parts, image_codebook_config=inner.config.to_dict(), hidden_size=8, projection_dim=8)
    FlavaForPreTraining(config, inner).save_pretrained(folder)
    return inner.state_dict()


@pytest.mark.parametrize("save", [save_codebook, save_flava])
def test_a_flava_codebook_is_opened_ready(save, tmp_path, pictures):
    expected = save(tmp_path)
    codebook = open_codebook(str(tmp_path), 512, 4)
    assert codebook.kind == "ready" and codebook.size == 64 and codebook.patch_size == 4
    assert codebook.mean.tolist() == codebook.std.tolist() == [0.5] * 3
    found = codebook.codebook.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items()) and len(found) == len(expected)


def test_pixels_and_encoders_are_opened(tmp_path):
    assert codebook_config(open_codebook(None, 32, 4)) == {"kind": "pixels", "size": 32, "patch_size": 4}
    encoder = encoder_of("vit")
    encoder.config.pretext = {"objective": "rotation"}
    encoder.save_pretrained(tmp_path)
    codebook = open_codebook(str(tmp_path), 32, 8)
    assert (codebook.kind, codebook.size, codebook.patch_size) == ("features", 32, 8)
    assert torch.equal(codebook.encoder.layernorm.weight, encoder.layernorm.weight)
    assert torch.equal(
        codebook.encoder.embeddings.position_embeddings.data, encoder.embeddings.position_embeddings.data
    )
    told = json.dumps(codebook_config(codebook))
    assert "rotation" not in told and str(tmp_path) not in told


def test_what_can_not_be_opened(tmp_path):
    with pytest.raises(ValueError, match="--codebook /nowhere is neither a folder"):
        open_codebook("/nowhere", 8, 8)
    BertModel(CONFIGS["bert"]()).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="needs an encoder of the kind image, but BertModel"):
        open_codebook(str(tmp_path / "bert"), 8, 8, option="--tokens")
    CONFIGS["vit"]().save_pretrained(tmp_path / "shape")
    with pytest.raises(ValueError, match="shape has no weights that can be loaded"):
        open_codebook(str(tmp_path / "shape"), 8, 8)


def test_missing_weights_are_an_error_and_poolers_are_not(tmp_path):
    encoder = encoder_of("vit")
    state = encoder.state_dict()
    poolerless = {name: value for name, value in state.items() if "pooler" not in name}
    encoder.save_pretrained(tmp_path / "a", state_dict=poolerless)
    assert len(poolerless) < len(state) and open_codebook(str(tmp_path / "a"), 8, 8).kind == "features"
    encoder.save_pretrained(tmp_path / "b", state_dict={k: v for k, v in state.items() if k != "layernorm.weight"})
    with pytest.raises(ValueError, match="lacks weights of ViTModel, which would stay random: layernorm.weight"):
        open_codebook(str(tmp_path / "b"), 8, 8)
    save_flava(tmp_path / "whole")
    FlavaForPreTraining.from_pretrained(tmp_path / "whole").flava.save_pretrained(tmp_path / "c")
    with pytest.raises(ValueError, match="lacks weights of FlavaForPreTraining.*image_codebook"):
        open_codebook(str(tmp_path / "c"), 8, 8)


def test_an_encoder_sees_pictures_normalised_as_its_own_processor_has_them(tmp_path):
    encoder = AutoModel.from_config(CONFIGS["vit"]())
    encoder.save_pretrained(tmp_path)
    own = {"image_mean": [0.2, 0.4, 0.6], "image_std": [0.3, 0.2, 0.1]}
    ViTImageProcessor(**own).save_pretrained(tmp_path)
    codebook = open_codebook(str(tmp_path), 8, encoder.config.patch_size)
    codebook.set_normalisation(*normalisation_of(ViTImageProcessor(do_normalize=False)))  # images in [0, 1]
    pictures = torch.rand(2, 3, IMAGE, IMAGE)
    mean, std = (torch.tensor(own[f"image_{name}"])[:, None, None] for name in ("mean", "std"))
    wanted = encoder.eval()((pictures - mean) / std).last_hidden_state[:, 1:]
    torch.testing.assert_close(codebook.describe(pictures), wanted, atol=1e-4, rtol=1e-4)
