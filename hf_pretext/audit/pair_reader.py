"""Reader of pairs: how many bits of which two belong together two small networks get, on pairs they were not fitted to.

features (n, d) or token ids (n, L) of each side -> small network of each side -> cosines (n, n) -> bits of InfoNCE

Numbers are read by a network of one hidden layer, texts as a bag of tokens. The same inputs give the same bits, bit for
bit.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules.losses import softmax_loss
from .information import Information, chance_of, pair_bits, pair_information
from .readers import (
    BATCH,
    DECAY,
    DROPOUT,
    HIDDEN,
    RATE,
    UNSEEN,
    Splits,
    check_finite,
    constant,
    one_thread,
    standardised,
)

EPOCHS = 10
WIDTH = 128  # of the space in which both sides are compared
SPREAD = 0.05  # standard deviation of initial vectors of tokens
LOG_SCALE = 2.0  # initial; of the cosines


def pair_reader(left: Splits, right: Splits, groups: Splits, seed: int = 0) -> Information:
    """Reads which two of `left` and `right` belong together: row i of the one and row i of the other.

    left, right: of train, validation and test, features `(n, d)` (float), or token ids `(n, L)` (integers, -1 where
    there is no token). groups: integers `(n,)`; pairs of one group are duplicates, see `pair_information`. The epoch,
    at the temperature of training, and then the temperature are chosen on validation. Bits are 0 where none is better
    than chance there, and for a side that is the same in all rows of train or test. seed: of the initial weights, the
    order of rows and dropout. Raises `ValueError` for features that are not finite."""
    check_finite(left)
    check_finite(right)
    best, chosen = -math.inf, None
    same = torch.from_numpy(groups["validation"][:, None] == groups["validation"][None])
    with one_thread(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone: the generators of a GPU are not forked
        for validation, test in _epochs(left, right, groups["train"]):
            bits = float(pair_bits(validation, same).mean())
            if bits > best:
                best, chosen = bits, (validation.numpy(), test.numpy())
    reading = pair_information(*chosen, groups) if chosen else None
    return _chance(groups["test"]) if reading is None or reading.warning else reading  # the same scores for all pairs


def _epochs(left: Splits, right: Splits, groups: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Trains two networks. Yields the scores `(n, n)` of validation and test after each epoch; nothing if a side is the
    same in all rows."""
    if any(not side["train"].size or constant(side["train"]) for side in (left, right)):
        return
    (first, given), (second, wanted) = _side(left), _side(right)
    log_scale, labels = nn.Parameter(torch.tensor(LOG_SCALE)), torch.from_numpy(groups)
    networks = nn.ModuleList([first, second])
    optimizer = torch.optim.AdamW([*networks.parameters(), log_scale], RATE, weight_decay=DECAY)
    for _ in range(EPOCHS):
        networks.train()
        for rows in torch.randperm(len(labels)).split(BATCH):
            embeddings = [F.normalize(net(x["train"][rows])) for net, x in ((first, given), (second, wanted))]
            loss = softmax_loss(*embeddings, log_scale.exp(), labels[rows], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        networks.eval()
        with torch.no_grad():
            validation, test = (F.normalize(first(given[s])) @ F.normalize(second(wanted[s])).T for s in UNSEEN)
            yield log_scale.exp() * validation, log_scale.exp() * test


def _side(values: Splits) -> tuple[nn.Module, dict[str, Tensor]]:
    """Returns a network for one side of pairs, and what it takes of each split."""
    if np.issubdtype(values["train"].dtype, np.integer):
        known = np.unique(values["train"])
        known = known[known >= 0]
        bag = nn.EmbeddingBag(len(known) + 1, WIDTH, mode="mean", padding_idx=0)
        nn.init.normal_(bag.weight, std=SPREAD)
        return bag, {split: _numbered(tokens, known) for split, tokens in values.items()}
    inputs = {split: torch.from_numpy(x) for split, x in standardised(values).items()}
    width = inputs["train"].shape[1]
    net = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, WIDTH))
    return net, inputs


def _numbered(tokens: np.ndarray, known: np.ndarray) -> Tensor:
    """Returns the places of tokens `(n, L)` among the known ones, from 1; 0 for all others."""
    places = np.searchsorted(known, tokens).clip(max=len(known) - 1)
    return torch.from_numpy(np.where(known[places] == tokens, places + 1, 0))


def _chance(groups: np.ndarray) -> Information:
    """Returns what is read by chance."""
    each = chance_of(torch.from_numpy(groups[:, None] == groups[None]))
    return Information(0.0, float(-each.mean()), float((2**each).mean()), np.zeros(len(groups)))
