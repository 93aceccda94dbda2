"""What every objective owes its users; the test of an objective calls `check_contract`."""

import json

import torch
from transformers import AutoModel, PreTrainedModel

import hf_pretext
from hf_pretext.modeling import PretextModel, PretextOutput


def check_contract(
    model_class: type[PretextModel], encoder: PreTrainedModel, batch: dict[str, torch.Tensor], folder, **settings
) -> None:
    """The promises that don't depend on the objective: losses, determinism in eval(), gradients, native checkpoints."""
    model = model_class.from_encoder(encoder, **settings)
    assert model.whole is encoder
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
    own = {id(p) for p in model.encoder.parameters()}
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if id(p) not in own)

    model.eval()
    state = torch.get_rng_state()
    first, second = model(**batch), model(**batch)
    assert torch.equal(first.loss, second.loss), "the corruption in eval() must come from a fixed generator"
    assert torch.equal(torch.get_rng_state(), state), "eval() must leave the global generator alone"

    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [type(model.whole).__name__]
    assert config["pretext"]["objective"] == model_class.objective
    native, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(native) in (type(model.encoder), type(model.whole))
    poolers = {name for name in info["missing_keys"] if "pooler" in name}  # which classes with a head go without
    assert not info["missing_keys"] - poolers and (not poolers or model.encoder is not model.whole)
    again = hf_pretext.load(folder).eval()
    assert type(again) is model_class and again.task == model.task
    torch.testing.assert_close(again(**batch).loss, first.loss)
