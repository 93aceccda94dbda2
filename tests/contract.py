"""What every objective owes its users; the test of an objective calls `check_contract`."""

import json

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

import hf_pretext
from hf_pretext.modeling import PretextModel, PretextOutput


def check_contract(
    model_class: type[PretextModel], encoder: PreTrainedModel, batch: dict[str, torch.Tensor], folder, **settings
) -> None:
    """The promises that don't depend on the objective: losses, determinism in eval(), gradients, native checkpoints."""
    model = model_class.from_encoder(encoder, **settings)
    assert model.full_model is encoder
    before = {name: value.clone() for name, value in batch.items()}

    output = model.train()(**batch)
    assert isinstance(output, PretextOutput)
    torch.testing.assert_close(output.loss, sum(output.losses.values()))
    assert output.loss.ndim == 0 and output.loss.requires_grad
    assert all(value.ndim == 0 and not value.requires_grad for value in output.logs.values())
    assert output.features.ndim == 2
    assert all(torch.equal(before[name], batch[name]) for name in batch), "the caller's batch was changed"
    output.loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    of_encoder = {id(p) for p in model.encoder.parameters()}
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if id(p) not in of_encoder)

    model.eval()
    state = torch.get_rng_state()
    first, second = model(**batch), model(**batch)
    assert torch.equal(first.loss, second.loss), "the corruption in eval() must come from a fixed generator"
    assert torch.equal(torch.get_rng_state(), state), "eval() must leave the global generator alone"

    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [type(model.full_model).__name__]
    assert config["pretext"] == model.pretext and model.pretext["objective"] == model_class.objective
    assert (folder / "pretext.safetensors").exists() == bool(model.kept_outside())
    auto_class = model_class.auto_class_of(model.task)
    _, info = auto_class.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    if type(model.full_model.config) in MODEL_MAPPING:
        native, info = AutoModel.from_pretrained(folder, output_loading_info=True)
        assert type(native) in (type(model.encoder), type(model.full_model))
        if native.__class__ is not model.encoder.__class__ or model.encoder is model.full_model:
            assert not info["missing_keys"] and not info["unexpected_keys"]
        assert all("pooler" in name for name in info["missing_keys"])  # which classes with a head go without
    else:  # a class that AutoModel does not know: its encoder is saved alone
        native_model = auto_class.from_pretrained(folder)
        native_model.encoder.save_pretrained(folder / "alone")
        native, info = AutoModel.from_pretrained(folder / "alone", output_loading_info=True)
        assert type(native) is type(model.encoder)
        assert not info["missing_keys"] and not info["unexpected_keys"]

    state = torch.get_rng_state()
    loaded = hf_pretext.load(folder)
    assert torch.equal(torch.get_rng_state(), state), "loading must leave the global generator alone"
    assert type(loaded) is model_class and loaded.task == model.task and not loaded.training
    saved, weights = model.state_dict(), loaded.state_dict()
    assert saved.keys() == weights.keys() and all(torch.equal(weights[name], value) for name, value in saved.items())
    assert torch.equal(loaded(**batch).loss, loaded(**batch).loss)
    torch.testing.assert_close(loaded(**batch).loss, first.loss)


@torch.no_grad()
def check_bfloat16(model: PretextModel, batch: dict[str, torch.Tensor]) -> None:
    """Autocast to bfloat16 changes no label, and logits and loss by its rounding. The loss stays in float32."""
    exact = model.eval()(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        lower = model(**batch)
    assert lower.loss.dtype == torch.float32 and torch.equal(lower.labels, exact.labels)
    assert 0 < (lower.logits - exact.logits).std() < 0.03 * exact.logits.std()
    torch.testing.assert_close(lower.loss, exact.loss, rtol=2e-3, atol=0)
