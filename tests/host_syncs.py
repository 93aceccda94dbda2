"""Counts what the CPU waits for in a training step: operations that read values from the device.

On a GPU each of them stops the CPU until all queued kernels are done. They are counted on a CPU, by name:

- a value becomes a Python number: `item()`, `bool(x)`, `int(x)`, `float(x)`, `x.equal(y)`; `x.tolist()`, `x.numpy()`;
- the size of a result depends on values: `nonzero`, `masked_select`, `unique`, `bincount`, `repeat_interleave` with a
  tensor of counts, and an index with a bool tensor, in the forward pass, in an assignment and in the backward pass;
- `multinomial`, which reads its probabilities twice to check them;
- a copy between the CPU and the device: `x.cpu()`, `torch.tensor(numbers)`.
"""

from collections import Counter
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = dict.fromkeys(
    ["_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
     "unique_consecutive", "bincount", "repeat_interleave", "lift_fresh"], 1,
) | {"multinomial": 2}  # fmt: skip
INDEXED = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")
READING_METHODS = (Tensor.tolist, Tensor.numpy, Tensor.cpu)  # no operation on a CPU


class _Operations(TorchDispatchMode):
    def __init__(self, seen: Counter):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if name in INDEXED and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            self.seen[f"{name} with a bool tensor"] += 1
        self.seen.update({name: READS[name]} if name in READS else {})
        return operation(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, seen: Counter):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READING_METHODS:
            self.seen[function.__name__] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def host_syncs():
    """A `Counter` of the operations inside the `with` block for which the CPU would wait, by name."""
    seen: Counter[str] = Counter()
    with _Methods(seen), _Operations(seen):
        yield seen
