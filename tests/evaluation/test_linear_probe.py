import warnings

import numpy as np
from blobs import blobs
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hf_pretext.evaluation.linear_probe import probe_path


def test_linear_probe_equals_scikit_learn():
    (train, labels), (queries, truth) = blobs(200, noise=1.5), blobs(400, noise=1.5, seed=1)
    scaler = StandardScaler().fit(train.numpy())
    for strength, (predicted,) in probe_path(train.numpy(), labels, [queries.numpy()]):
        peer = LogisticRegression(C=strength, max_iter=2000).fit(scaler.transform(train.numpy()), labels)
        agreement = (predicted == peer.predict(scaler.transform(queries.numpy()))).mean()
        assert agreement > 0.98
    assert (predicted == truth).mean() > 0.5


def test_few_examples_of_many_classes_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(probe_path(np.random.default_rng(0).normal(size=(9, 4)), np.arange(9) % 6, []))
