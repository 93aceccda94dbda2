"""Measures memory and time of large contrastive batches: our loss in tiles, open_clip's loss, and `embed_batch_size`.

    python benchmarks/contrastive_memory.py                    # several minutes and up to 20 GB of memory on 2 cores
    python benchmarks/contrastive_memory.py --rows 8192 --batches 256 1024

The first part measures one forward and backward pass of the loss alone, for embeddings `(B, 512)` in float32. The
second part measures one pass of a full model (a ViT and a BERT) with `embed_batch_size` 256. Each measurement is a
separate process. Memory is the peak of the process minus the peak before the pass: on a GPU the memory that PyTorch
allocated, on a CPU the resident memory, including fragmentation by the C library (set MALLOC_MMAP_THRESHOLD_=100000 to
avoid it).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, PIECE, SIDE, WORDS = 512, 256, 32, 1000
LOSSES = ("plain", "tiles")
CUDA = torch.cuda.is_available()
torch.set_default_device("cuda" if CUDA else "cpu")


def peak_mb() -> float:
    """Returns the peak memory of this process so far, in MiB."""
    if CUDA:
        return torch.cuda.max_memory_allocated() / 2**20
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024


def timed(function: Callable[[], Tensor]) -> dict:
    """Measures one forward and backward pass: MiB, seconds and the loss.

    On a GPU it measures the second of two passes, because the first loads the libraries.
    """
    for _ in range(1 + CUDA):
        before, begun = peak_mb(), time.perf_counter()
        value = function()
        value.backward()
        if CUDA:
            torch.cuda.synchronize()
        result = {"mb": peak_mb() - before, "seconds": time.perf_counter() - begun, "loss": value.item()}
        if CUDA:
            del value
            torch.cuda.reset_peak_memory_stats()
    return result


def loss(kind: str, rows: int) -> dict:
    """Measures one pass of a loss over `rows` pairs."""
    random = torch.Generator("cuda" if CUDA else "cpu").manual_seed(0)
    images, texts = (F.normalize(torch.randn(rows, WIDTH, generator=random), dim=1).requires_grad_() for _ in range(2))
    scale = torch.tensor(14.3, requires_grad=True)
    if kind == "plain":
        from open_clip.loss import ClipLoss

        compare = ClipLoss()
    else:
        from hf_pretext.modules.losses import softmax_loss

        def compare(images, texts, scale):
            labels = torch.arange(len(images))
            return softmax_loss(images, texts, scale, labels, labels)

    return {**timed(lambda: compare(images, texts, scale)), "gradient": images.grad.norm().item()}


def pieces(batch: int) -> dict:
    """Measures one pass of a model that embeds a batch in pieces."""
    from transformers import BertConfig, ViTConfig

    from hf_pretext import ContrastiveForPreTraining

    sizes = dict(hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768)
    vision, text = ViTConfig(**sizes, image_size=SIDE, patch_size=8), BertConfig(**sizes, vocab_size=WORDS)
    model = ContrastiveForPreTraining.from_encoders(vision, text, WIDTH, embed_batch_size=PIECE).train()
    model(pixel_values=torch.randn(4, 3, SIDE, SIDE), input_ids=torch.randint(WORDS, (4, 8))).loss.backward()
    pixels, ids = torch.randn(batch, 3, SIDE, SIDE), torch.randint(WORDS, (batch, 8))
    return timed(lambda: model(pixel_values=pixels, input_ids=ids).loss)


def apart(what: str, kind: str, size: int) -> dict:
    """Runs one measurement in a new process. Returns its results, or the error if the process fails."""
    done = subprocess.run([sys.executable, __file__, "--one", what, kind, str(size)], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"ended by signal {-done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[4096, 8192, 16_384, 32_768])
    parser.add_argument("--batches", type=int, nargs="*", default=[256, 1024, 4096, 8192])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, kind, size = options.one
        print(json.dumps(loss(kind, int(size)) if what == "loss" else pieces(int(size))))
        return
    for rows in options.rows:
        results = {}
        for kind in LOSSES:
            results[kind] = apart("loss", kind, rows)
            print(f"loss of {rows:6,} pairs, {kind}: {line(results[kind])}", flush=True)
        if all(one.get("mb", 0) > 0 for one in results.values()):
            memory, seconds = (results["tiles"][what] / results["plain"][what] for what in ("mb", "seconds"))
            print(f"  tiles / plain: memory {memory:.3f}, time {seconds:.2f}", flush=True)
    for batch in options.batches:
        print(f"model, batch of {batch:5,} in pieces of {PIECE}: {line(apart('pieces', '', batch))}", flush=True)


def line(result: dict) -> str:
    """Returns a measurement in words."""
    if "error" in result:
        return result["error"]
    more = "".join(f", {name} {result[name]:.6f}" for name in ("loss", "gradient") if name in result)
    return f"{result['mb']:8.0f} MB, {result['seconds']:6.1f} s{more}"


if __name__ == "__main__":
    main()
