"""Causal language modelling: two processes with half of the sequences each are one with all of them."""

import torch
from safetensors.torch import load_file
from test_captioning_ranks import started

SCRIPT = """
import gc
import os
import sys
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from test_causal_lm import native
from torch.nn.parallel import DistributedDataParallel
from hf_pretext import CausalLMForPreTraining

ranks = int(sys.argv[2])
if ranks > 1:
    dist.init_process_group("gloo")
rank = dist.get_rank() if ranks > 1 else 0
model = CausalLMForPreTraining.from_encoder(native("llama")).double().train()
documents = torch.tensor([[1] * 9 + [2] * 3, [1] * 12, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 0], [1] * 4 + [0] * 8])
batch = {"input_ids": torch.randint(60, (4, 12), generator=torch.Generator().manual_seed(0)), "document_ids": documents}
trained = DistributedDataParallel(model) if ranks > 1 else model
output = trained(**{name: value.chunk(ranks)[rank] for name, value in batch.items()})
output.loss.backward()
loss, tokens = output.loss.detach().clone(), torch.tensor(len(output.labels))
if ranks > 1:
    dist.all_reduce(loss)
values = {name: p.grad.clone() for name, p in model.named_parameters()} | {"loss": loss / ranks, "tokens": tokens}
if rank == ranks - 1:
    save_file(values, sys.argv[1])
if ranks > 1:
    dist.barrier()
    gc.collect()
    dist.destroy_process_group()
    os._exit(0)  # see test_distributed.py
"""


def test_two_processes_equal_one_with_all_sequences(tmp_path):
    """Loss and every gradient, although the sequences of the second process have fewer tokens to predict."""
    found = []
    for ranks in (1, 2):
        done = started(SCRIPT, tmp_path, tmp_path / f"{ranks}.safetensors", ranks, ranks=ranks)
        assert done.returncode == 0, done.stderr
        found.append(load_file(tmp_path / f"{ranks}.safetensors"))
    one, two = found
    assert one.pop("tokens") == 10 + 11 + 5 + 3 and two.pop("tokens") == 5 + 3
    assert one.keys() == two.keys() and len(one) > 10
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
