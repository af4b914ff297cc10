"""What the estimators share that first estimate the ratio p/q of the densities at the points of both sets."""

from __future__ import annotations

import math

import numpy as np

from egtmetrics.divergences.generators import FGenerator, Values

_SEPARATE_AUC = 0.999


def mean_over_both(generator: FGenerator, real_ratios: Values, fake_ratios: Values) -> float:
    r"""Average a divergence over the points of both sets, given the ratio r = p/q at each; in nats.

    .. math::

        D_f(P \| Q) = \int \frac{p + q}{2} \cdot \frac{2 g(r)}{1 + r} \approx
            \frac1n \sum_i \frac{g(r(x_i))}{1 + r(x_i)} + \frac1m \sum_j \frac{g(r(y_j))}{1 + r(y_j)},

    where g(t) = f(t) - f'(1) (t - 1) gives the same divergence as f and is not negative. At a kink, f'(1) is the mean
    of the slopes on both sides. Unlike the mean of f(r) over the fake points alone, this sees real mass where there is
    no fake mass, depends less on the largest ratios, and gives the divergence of the partner when the sets are swapped.
    Ratios may be 0 or inf.
    """
    one = np.ones(1)  # the partner's left derivative is minus the right one of f
    slope = 0.5 * float(generator.derivative(one)[0] - generator.partner().derivative(one)[0])

    def mean(ratios: Values) -> float:
        finite = np.isfinite(ratios)
        t = np.where(finite, ratios, 1.0)
        terms = (generator.f(t) - slope * (t - 1.0)) / (1.0 + t)
        return float(np.where(finite, terms, generator.slope_at_infinity - slope).mean())

    return mean(real_ratios) + mean(fake_ratios)


def clipped_ratios(real_log_ratios: Values, fake_log_ratios: Values) -> tuple[Values, Values]:
    """Ratios between n + m, above which so few rows say nothing, and its inverse."""
    largest = math.log(len(real_log_ratios) + len(fake_log_ratios))
    return np.exp(np.clip(real_log_ratios, -largest, largest)), np.exp(np.clip(fake_log_ratios, -largest, largest))


def separation_notes(real_log_ratios: Values, fake_log_ratios: Values) -> list[str]:
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([1, 0], [len(real_log_ratios), len(fake_log_ratios)])
    auc = float(roc_auc_score(labels, np.concatenate([real_log_ratios, fake_log_ratios])))
    if auc <= _SEPARATE_AUC:
        return []
    return [
        f"the estimated ratio separates real from fake (AUC {auc:.4f}): the supports may be disjoint, and the estimate "
        "then shows how the ratio is extrapolated, not the divergence"
    ]
