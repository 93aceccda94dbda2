"""Linear probe: L2-regularised logistic regression on frozen, standardised features.

Kornblith et al. 2019, https://huggingface.co/papers/1805.08974: the strength is chosen on the validation split.
"""

from collections.abc import Iterable, Iterator

import numpy as np

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C: small is strong


def probe_path(
    train: np.ndarray,
    labels: np.ndarray,
    others: Iterable[np.ndarray],
    strengths: Iterable[float] = STRENGTHS,
    standardised: bool = True,
) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Fits at each strength, strongest first, each starting from the last.

    train (`(n, d)`), labels (`(n,)`), others: feature arrays `(m, d)` to predict, which may be sparse where they are
    not to be standardised. Yields `(C, [predicted labels of each])`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if standardised:
        scaler = StandardScaler().fit(train)
        train, others = scaler.transform(train), [scaler.transform(x) for x in others]
    model = LogisticRegression(max_iter=300, tol=1e-3, warm_start=True)
    for strength in sorted(strengths):
        model.set_params(C=strength).fit(train, labels)
        yield strength, [model.predict(x) for x in others]
