import numpy as np
import pytest
import torch
from blobs import blobs
from sklearn.neighbors import KNeighborsClassifier

from hf_pretext.evaluation.knn import knn_predict, neighbours


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learn(k):
    (train, labels), (queries, _) = blobs(200, noise=1.0), blobs(100, noise=1.0, seed=1)
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    peer.fit(train.numpy(), labels)
    assert (knn_predict(train, labels, queries, k) == peer.predict(queries.numpy())).all()


def test_knn_is_the_same_in_chunks_and_on_few_rows():
    (train, labels), (queries, _) = blobs(50, noise=1.0), blobs(33, noise=1.0, seed=1)
    assert (knn_predict(train, labels, queries, chunk=7) == knn_predict(train, labels, queries)).all()
    assert len(knn_predict(train[:3], labels[:3], queries, k=20)) == 33


def test_knn_refuses_nonsense():
    train, labels = blobs(10)
    with pytest.raises(ValueError, match="k must be at least 1"):
        knn_predict(train, labels, train, k=0)
    with pytest.raises(ValueError, match="NaN"):
        knn_predict(train * float("nan"), labels, train)


def test_neighbours_are_nearest_first():
    train = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    assert neighbours(train, torch.tensor([[2.0, 0.5]]), 3).tolist() == [[0, 2, 1]]
