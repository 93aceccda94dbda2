"""k-nearest-neighbour classification on frozen features. Nothing is trained.

Wu et al. 2018, https://huggingface.co/papers/1805.01978; settings of DINO (Caron et al. 2021,
https://huggingface.co/papers/2104.14294): cosine similarity, votes weighted by exp(similarity / temperature).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

K, TEMPERATURE = 20, 0.07
DIVERGED = "Features contain NaN or infinity: the encoder has diverged. Train with a lower --learning_rate."


@torch.no_grad()
def knn_predict(
    train: Tensor, labels: np.ndarray, queries: Tensor, k: int = K, temperature: float = TEMPERATURE, chunk: int = 4096
) -> np.ndarray:
    """Predicts the label of each query by a weighted vote of its k nearest neighbours.

    train (`(n, d)`), labels (`(n,)`, integers from 0), queries (`(m, d)`). k: at most n neighbours are used. chunk:
    queries at a time. Returns `(m,)`. Raises `ValueError` for k below 1 and for features that are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, but is {k}.")
    if not (torch.isfinite(train).all() and torch.isfinite(queries).all()):
        raise ValueError(DIVERGED)
    bank, targets = F.normalize(train, dim=1), torch.as_tensor(labels, device=train.device)
    votes = []
    for part in F.normalize(queries, dim=1).split(chunk):
        similarity, nearest = (part @ bank.T).topk(min(k, len(bank)), dim=1)
        weights = (similarity / temperature).softmax(dim=1)  # exp up to a factor per query, but can't overflow
        tally = torch.zeros(len(part), int(targets.max()) + 1, device=part.device)
        votes.append(tally.scatter_add_(1, targets[nearest], weights).argmax(1))
    return torch.cat(votes).cpu().numpy()


def neighbours(train: Tensor, queries: Tensor, k: int) -> np.ndarray:
    """Returns the k nearest rows of `train` (`(n, d)`) for each query (`(m, d)`) by cosine, nearest first: `(m, min(k,
    n))`."""
    return (
        (F.normalize(queries, dim=1) @ F.normalize(train, dim=1).T)
        .topk(min(k, len(train)), dim=1)
        .indices.cpu()
        .numpy()
    )
