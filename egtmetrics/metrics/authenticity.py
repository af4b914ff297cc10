"""Authenticity: the share of the generated samples that are no near-copies of training samples."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._validation import check_real_fake
from egtmetrics.metrics._pairs import nearest_rows
from egtmetrics.ops import BackendName, select_backend, to_host
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, share


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuthenticityResult(MetricResult):
    """What :func:`authenticity` returns."""

    authenticity: float = share(
        label="authenticity",
        help="The share of the generated samples that are farther from the nearest training sample than that one is "
        "from the others.",
        per_sample="indicator",
    )


class NearestTraining(NamedTuple):
    """Of every generated sample, the nearest training sample."""

    rows: NDArray[np.int64]
    """Of the training set; of several at one distance the first."""
    sq_distances: NDArray[np.float64]
    sq_radii: NDArray[np.float64]
    """Squared distances of these training samples to their nearest other one."""


def nearest_training(
    real: Any,
    fake: Any,
    *,
    names: tuple[str, str] = ("real", "fake"),
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> tuple[NearestTraining, str]:
    """Find the nearest training sample (``real``) of every generated one; return also the backend."""
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device, names=names)
    if len(real) < 2:
        raise TooFewSamplesError(
            f"{names[0]} has 1 row, and each is compared with the nearest other one; add samples", needed=2
        )
    sq_radii = kernels.kth_neighbor(real, n_neighbors=1)
    x, y = (np.asarray(to_host(points), dtype=np.float64) for points in (real, fake))
    rows, sq_distances = nearest_rows(y, x)
    return NearestTraining(rows, sq_distances, np.asarray(sq_radii, dtype=np.float64)[rows]), kernels.name


@metric("authenticity", title="Authenticity")
def authenticity(
    real: Any, fake: Any, *, backend: BackendName = "auto", n_threads: int | None = None
) -> AuthenticityResult:
    r"""Share of the generated samples that are farther from their nearest training sample than that one is from others.

    With :math:`x^*(y)` the training sample nearest to y, and r_i the distance of x_i to its nearest other one:

    .. math::

        \text{authenticity} = \frac1m \sum_j [\, |y_j - x^*(y_j)| > r_{x^*(y_j)} ].

    In [0, 1]; 0 if all generated samples are copies. What other samples of the training set's law score depends on the
    law and its dimension: of normal ones, 2,000 on each side, .34 in one dimension and .81 in 64. So compare a model
    with held-out real samples (``frame.baseline(held_out=...)``). A generator of noise scores 1: read it beside a score
    of fidelity.

    Parameters
    ----------
    real
        Features ``(n, d)`` of the **training set** of the generator, at least two rows.
    fake
        Features ``(m, d)`` of the same encoder.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, or a training set of one row.

    Notes
    -----
    At equal distances a sample is a copy (``<=``), and so is a copy of a training sample that occurs twice. Of training
    samples that are equally near the first counts. All this is decided on float64 sums of squared differences. Whether
    a model copies more than chance: :func:`egtmetrics.groups.copying_test`.

    Time O(n m d + n^2 d), memory O((n + m) d).

    References
    ----------
    Alaa, van Breugel, Saveliev, van der Schaar: How Faithful is your Synthetic Data?, ICML 2022, section 3.3.

    Examples
    --------
    >>> authenticity([[0.0], [1.0], [5.0]], [[0.1], [5.0], [2.5], [9.5]]).authenticity
    0.5
    """
    nearest, kernels = nearest_training(real, fake, backend=backend, n_threads=n_threads)
    return AuthenticityResult(
        authenticity=float(np.mean(nearest.sq_distances > nearest.sq_radii)),
        backend=kernels,
        n_real=len(real),
        n_fake=len(fake),
    )
