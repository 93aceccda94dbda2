"""--torch_compile compiles the encoders: few graphs, few recompilations, the losses of eager mode."""

import copy
import json
from pathlib import Path

import pytest
import test_flava
import test_masked_lm
import test_matching
import test_multiway
import torch
import towers
from accelerate.utils import TorchDynamoPlugin
from conftest import CONFIGS, IMAGE, VIT
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoModel, TrainingArguments, ViTConfig, set_seed

import hf_pretext
from hf_pretext import MaskedLMForPreTraining, MatchingForPreTraining, RotationForPreTraining
from hf_pretext.data.sources import open_source
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modules import compiled
from hf_pretext.modules.compiled import compile_encoders
from hf_pretext.trainer import PretextTrainer

LENGTHS = (12, 9, 7, 11, 5, 8)
GRAPHS, RECOMPILATIONS = 2, 2  # at most, of an encoder


def small_vit() -> ViTConfig:
    return ViTConfig(**{**VIT, "num_hidden_layers": 1}, patch_size=8)


@pytest.fixture
def graphs(monkeypatch):
    """Number of graphs of each encoder that is compiled in a test, in the order of compilation."""
    counters, compile_function = [], torch.compile

    def counting(function, backend, **options):
        counters.append(CompileCounterWithBackend(backend))
        return compile_function(function, backend=counters[-1], **options)

    torch._dynamo.reset()
    monkeypatch.setattr(compiled.torch, "compile", counting)
    yield lambda: [counter.frame_count for counter in counters]
    torch._dynamo.reset()


def trained(folder: Path, emoji, **options) -> PretextTrainer:
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=8, max_steps=3, logging_steps=1, save_steps=3,
        learning_rate=1e-2, use_cpu=True, disable_tqdm=True, **options,
    )  # fmt: skip
    set_seed(0)
    model = RotationForPreTraining.from_encoder(small_vit(), rotations_per_image=2, head_dim=8)
    trainer = PretextTrainer(model, args, open_source(emoji(count=40)), Image(default_processor(IMAGE)))
    trainer.train()
    return trainer


def test_a_compiled_run_compiles_the_encoder_only_and_equals_an_eager_one(tmp_path, emoji, graphs):
    eager = trained(tmp_path / "eager", emoji)
    assert graphs() == []
    trainer = trained(tmp_path / "compiled", emoji, torch_compile=True, torch_compile_backend="aot_eager")
    assert graphs() == [1]
    assert trainer.model_wrapped is trainer.model and type(trainer.model) is RotationForPreTraining
    histories = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (trainer, eager)]
    assert histories[0] == pytest.approx(histories[1], abs=1e-5)
    folder = tmp_path / "compiled" / "checkpoint-3"
    loaded, state = hf_pretext.load(folder).state_dict(), trainer.model.state_dict()
    assert loaded.keys() == eager.model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["ViTModel"]


def test_a_copy_of_a_compiled_model_computes_with_its_weights():
    model = RotationForPreTraining.from_encoder(small_vit()).eval()
    compile_encoders(model, TorchDynamoPlugin(backend="eager"))
    second, pixels = copy.deepcopy(model), torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        expected = model.encoder(pixels).last_hidden_state
        for parameter in second.encoder.parameters():
            parameter.zero_()
        assert not second.encoder(pixels).last_hidden_state.any()
        assert torch.equal(model.encoder(pixels).last_hidden_state, expected) and expected.any()


def test_frozen_encoders_stay_eager(graphs):
    model = towers.pair_of("vit", frozen="image")
    compile_encoders(model, TorchDynamoPlugin(backend="eager"))
    assert len(graphs()) == 1 and "forward" in vars(model.encoders["text"])
    assert "forward" not in vars(model.encoders["image"])


def test_without_a_backend_nothing_is_compiled(graphs):
    model = RotationForPreTraining.from_encoder(small_vit())
    compile_encoders(model, TorchDynamoPlugin(backend="no"))
    assert graphs() == [] and "forward" not in vars(model.encoder)


# all objectives, over texts of six lengths


def with_length(batch: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """The batch with texts of another length: its tokens are repeated, and cut."""
    texts = ("input_ids", "attention_mask", "word_starts")
    return {k: torch.cat([v, v], 1)[:, :length] if k in texts else v for k, v in batch.items()}


def masked_lm(architecture: str, **settings):
    texts = test_masked_lm.texts((12, 7, 12, 4))
    texts["word_starts"] = texts["input_ids"] % 2 == 1
    native = test_masked_lm.native(architecture)
    return MaskedLMForPreTraining.from_encoder(native, **test_masked_lm.SETTINGS, **settings), texts


def matching():
    encoders = small_vit(), CONFIGS["bert"]()
    return MatchingForPreTraining.from_encoders(*encoders, 24, **test_matching.SMALL), test_matching.pairs()


def contrastive(name: str, **settings):
    return towers.pair_of(name, **settings), towers.batch_of()


MODELS = {
    "contrastive": lambda: contrastive("vit"),
    "contrastive, patch dropout": lambda: contrastive("vit", patch_dropout=0.5),
    "contrastive, in pieces": lambda: contrastive("vit", embed_batch_size=2),
    "contrastive, sigmoid": lambda: contrastive("siglip", loss="sigmoid"),
    "masked_lm": lambda: masked_lm("bert"),
    "masked_lm, spans": lambda: masked_lm("modernbert", unit="span"),
    "matching": matching,
    "multiway": lambda: (test_multiway.fitted(), test_flava.pairs()),
    "flava": lambda: (test_flava.fitted(), test_flava.pairs()),
}


def steps(model, batch, graphs) -> tuple[list[torch.Tensor], list[torch.Tensor], list[list[int]]]:
    """Losses of a training step for each length and of one in `eval()`, gradients of the last step, and the numbers of
    graphs after each step."""
    set_seed(3)
    losses, counts = [], []
    for length in LENGTHS:
        texts = with_length(batch, length)
        model.zero_grad()
        output = model.train()(**texts)
        output.loss.backward()
        losses.append(output.loss.detach())
        counts.append(graphs())
    with torch.no_grad():
        losses.append(model.eval()(**texts).loss)
    return losses, [p.grad for p in model.parameters() if p.grad is not None], counts


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_losses_equal_eager_ones_with_few_graphs_and_recompilations(name, graphs):
    set_seed(0)
    model, batch = MODELS[name]()
    model.freeze_unused(batch)  # as a run does: a compiled encoder gives unused parameters gradients of 0
    twin = copy.deepcopy(model)
    losses, gradients, _ = steps(model, batch, graphs)
    compile_encoders(twin, TorchDynamoPlugin(backend="aot_eager"))
    *found, counts = steps(twin, batch, graphs)
    torch.testing.assert_close(found[0], losses, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], gradients, atol=1e-5, rtol=1e-4)
    assert len(counts[0]) == len(model.trained_encoders()) and all(1 <= count <= GRAPHS for count in counts[0])
    assert all(last <= first * (1 + RECOMPILATIONS) for first, last in zip(counts[0], counts[-1], strict=True))


@pytest.mark.slow
def test_a_complete_model_compiles_for_texts_of_several_lengths():
    torch._dynamo.reset()
    model, batch = masked_lm("bert", unit="span")
    compiled_model = torch.compile(model.train(), backend="eager")
    for length in LENGTHS[:3]:
        losses = []
        for either in (model, compiled_model):
            set_seed(3)
            losses.append(either(**with_length(batch, length)).loss)
        torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
