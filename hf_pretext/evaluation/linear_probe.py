"""Linear probe: L2-regularised logistic regression on frozen, standardised features.

Kornblith et al. 2019, https://huggingface.co/papers/1805.08974: the regularisation strength is chosen on validation.
"""

import warnings
from collections.abc import Iterable, Iterator

import numpy as np

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
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if standardised:
        scaler = StandardScaler().fit(train)
        train, others = scaler.transform(train), [scaler.transform(x) for x in others]
    model = LogisticRegression(max_iter=300, tol=tolerance, warm_start=True)
    for strength in sorted(strengths):
        with warnings.catch_warnings():  # with 1 % of the labels, a class may have one example
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than")
            model.set_params(C=strength).fit(train, labels)
        yield strength, [model.predict(x) for x in others]
