"""Linear probe: L2-regularised logistic regression on frozen, standardised features.

Kornblith et al. 2019, https://huggingface.co/papers/1805.08974: the regularisation strength is chosen on validation.
"""

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: the inverse of the regularisation strength


def probe_path(
    train: np.ndarray,
    labels: np.ndarray,
    others: Iterable[np.ndarray],
    strengths: Iterable[float] = STRENGTHS,
    standardised: bool = True,
    tolerance: float = 1e-3,
) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Fits a probe at each strength, strongest first. Each fit starts from the solution of the fit before.

    train (`(n, d)`), labels (`(n,)`). others: feature arrays `(m, d)` to predict. standardised: scales each feature to
    mean 0 and variance 1 on train; without it, arrays may be sparse. tolerance: a fit ends at this gradient of the mean
    loss; features of small values need a smaller one. Yields `(C, [predicted labels of each array])`.
    """
    from sklearn.preprocessing import StandardScaler

    if standardised:
        scaler = StandardScaler().fit(train)
        train, others = scaler.transform(train), [scaler.transform(x) for x in others]
    for strength, model in fitted_probes(train, labels, strengths, tolerance):
        yield strength, [model.predict(x) for x in others]


def fitted_probes(
    train: np.ndarray, labels: np.ndarray, strengths: Iterable[float] = STRENGTHS, tolerance: float = 1e-3
) -> Iterator[tuple[float, "LogisticRegression"]]:
    """Fits a probe at each strength, as `probe_path`, to features that are scaled already.

    Yields `(C, model)`. The model is one object, which the next step fits again: use it before."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=300, tol=tolerance, warm_start=True)
    for strength in sorted(strengths):
        with warnings.catch_warnings():  # with 1 % of the labels, a class may have one example
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than")
            model.set_params(C=strength).fit(train, labels)
        yield strength, model
