"""Means of a number for each sample: a score that needs no reference, such as toxicity, length or CLIPScore."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from egtmetrics._validation import check_real_fake
from egtmetrics.metrics.subsampling import ClustersOfBoth, Floats
from egtmetrics.metrics.variance import Moves, PartsOfBoth, ScoreCovariance
from egtmetrics.ops import to_host
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, score


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanResult(MetricResult):
    """What :func:`mean_of_numbers` returns."""

    mean: float = score(
        label="mean",
        help="The mean of the numbers of the generated samples.",
        depends_on_size=False,
        per_sample="number",
    )
    difference: float = score(
        label="difference from real",
        help="That mean less the mean of the real samples.",
        better=0.0,
        depends_on_size=False,
        per_sample="number",
    )
    real_mean: float


def mean_variance(
    result: MeanResult,
    real: Any,
    fake: Any,
    rng: np.random.Generator,
    *,
    parts: PartsOfBoth,
    clusters: ClustersOfBoth = (None, None),
) -> ScoreCovariance:
    """Covariance of the two means from the numbers themselves."""
    return Moves.of(_moves, real, fake, clusters, parts, n_splits=1, drawn=np.zeros((2, 2))).covariance()


def _moves(real: Any, fake: Any) -> tuple[Floats, Floats]:
    x, y = (np.asarray(numbers, dtype=np.float64) for numbers in (real, fake))
    return x * [0.0, -1.0], y * [1.0, 1.0]


@metric("numbers", title="A number for each sample", variance=mean_variance)
def mean_of_numbers(real: Any, fake: Any) -> MeanResult:
    r"""Mean of a number for each sample, and its difference from that of the real samples.

    .. math:: \text{mean} = \frac1m \sum_j y_j, \qquad \text{difference} = \text{mean} - \frac1n \sum_i x_i.

    In the units of the numbers. The numbers take the place of features: toxicity, length, whether an answer refuses (0
    or 1), CLIPScore of image and prompt. Groups, disparities, intervals and tests are those of any metric.

    Parameters
    ----------
    real, fake
        ``(n, 1)`` and ``(m, 1)``: one number for each sample.

    Raises
    ------
    TypeError, ValueError
        Not one finite number for each sample.

    Notes
    -----
    Unbiased at any number of samples. Time and memory O(n + m).

    Examples
    --------
    >>> mean_of_numbers([[0.0], [1.0]], [[1.0], [1.0], [0.0], [1.0]]).scores()
    {'mean': 0.75, 'difference': 0.25}

    By group, with the lengths of answers:

    >>> import numpy as np
    >>> from egtmetrics import GenerativeMetricFrame
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.poisson(40, size=(2, 400, 1)).astype(float)
    >>> fake[200:] += 10
    >>> groups = np.repeat(["f", "m"], 200)
    >>> frame = GenerativeMetricFrame(metrics="numbers", real=real, fake=fake, real_sensitive_features=groups,
    ...                               fake_sensitive_features=groups, random_state=0)
    >>> frame.by_group["numbers_mean"].round().tolist()
    [40.0, 50.0]
    """
    real, fake = check_real_fake(real, fake)
    if real.shape[1] != 1:
        raise ValueError(
            f"real and fake have {real.shape[1]} features, expected one number for each sample; pass one column"
        )
    x, y = (np.asarray(to_host(numbers), dtype=np.float64) for numbers in (real, fake))
    mean, real_mean = float(y.mean()), float(x.mean())
    return MeanResult(
        mean=mean, difference=mean - real_mean, real_mean=real_mean, backend="numpy", n_real=len(x), n_fake=len(y)
    )
