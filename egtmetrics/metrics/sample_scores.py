"""What single samples do to the scores: in whose support they lie, how real and how rare they are, and more."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from egtmetrics._validation import check_n_neighbors, check_real_fake
from egtmetrics.metrics._pairs import sq_distance_blocks, sq_distances
from egtmetrics.metrics.frechet import row_influences
from egtmetrics.metrics.subsampling import Floats
from egtmetrics.ops import BackendName, select_backend, to_host

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleScores:
    """What :func:`sample_scores` returns: a row for each sample, in the order of the samples."""

    real: pd.DataFrame
    """Columns ``in_fake_support``, ``is_covered``, ``fid_influence``."""
    fake: pd.DataFrame
    """Columns ``in_real_support``, ``n_real_balls``, ``realism``, ``rarity``, ``fid_influence``."""
    n_neighbors: int
    backend: str

    def scores(self) -> dict[str, float]:
        """Return the scores that the columns add up to, the same as those of ``precision_recall_density_coverage``."""
        return {
            "precision": float(self.fake["in_real_support"].mean()),
            "recall": float(self.real["in_fake_support"].mean()),
            "density": int(self.fake["n_real_balls"].sum()) / (self.n_neighbors * len(self.fake)),
            "coverage": float(self.real["is_covered"].mean()),
        }


def sample_scores(
    real: Any, fake: Any, *, n_neighbors: int = 5, backend: BackendName = "auto", n_threads: int | None = None
) -> SampleScores:
    r"""Say of every sample what it contributes to precision, recall, density, coverage and FID.

    With r_i the distance of x_i to its k-th nearest other real sample and s_j that of y_j among the generated ones:

    - ``in_real_support`` of y_j: :math:`\exists i: |x_i - y_j| < r_i`; its mean is the precision;
    - ``n_real_balls`` of y_j: :math:`\#\{i: |x_i - y_j| < r_i\}`; its mean is k times the density;
    - ``in_fake_support`` of x_i: :math:`\exists j: |x_i - y_j| < s_j`; its mean is the recall;
    - ``is_covered`` of x_i: :math:`\exists j: |x_i - y_j| < r_i`; its mean is the coverage;
    - ``realism`` of y_j: :math:`\max_i r_i / |x_i - y_j|` over the real samples whose :math:`r_i` is at most the
      median; infinite for a copy;
    - ``rarity`` of y_j: :math:`\min_i r_i` over the balls that hold it, in units of the features: large where real
      samples are sparse. NaN outside of the support;
    - ``fid_influence`` of any sample: by how much the Fréchet distance falls, to first order, if the sample is left
      out. Negative where the sample makes the sets more alike. They sum to 0 over a set.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_neighbors
        k, less than n and m.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, or too few rows for ``n_neighbors``.

    Notes
    -----
    A sample on the sphere of a ball is outside (``<``), decided on float64 sums of squared differences. These are facts
    about single samples, not tests: of a perfect generator, too, some samples lie outside of the support, and some
    influences on the FID are positive, since they sum to 0.

    Time O((n + m)^2 d + d^3); realism and rarity take a float64 matrix product. Memory O((n + m) d + d^2).

    References
    ----------
    Support: Naeem et al. 2020 (see :func:`~egtmetrics.metrics.precision_recall_density_coverage`). Realism:
    Kynkäänniemi, Karras, Laine, Lehtinen, Aila, NeurIPS 2019, equation 3. Rarity: Han, Choi, Choi, Kim, Ha, Choi:
    Rarity Score, ICLR 2023, equation 3. Influence: the derivative of the distance with respect to the law of a set.

    Examples
    --------
    The second sample lies apart; the third is in a sparse region of the real ones.

    >>> real = [[0.0], [1.0], [2.0], [3.0], [20.0], [25.0]]
    >>> fake = [[0.5], [9.0], [21.0]]
    >>> found = sample_scores(real, fake, n_neighbors=1)
    >>> found.fake[["in_real_support", "n_real_balls", "realism", "rarity"]].round(2).to_numpy().tolist()
    [[True, 2, 2.0, 1.0], [False, 0, 0.17, nan], [True, 2, 0.06, 5.0]]
    >>> found.scores()
    {'precision': 0.6666666666666666, 'recall': 1.0, 'density': 1.3333333333333333, 'coverage': 0.6666666666666666}
    """
    import pandas as pd

    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    k = check_n_neighbors(n_neighbors, len(real), "real")
    check_n_neighbors(k, len(fake), "fake")
    sq_radii = kernels.kth_neighbor(real, n_neighbors=k)
    fake_sq_radii = kernels.kth_neighbor(fake, n_neighbors=k)
    counts = kernels.ball_counts(real, fake, x_sq_radii=sq_radii, y_sq_radii=fake_sq_radii, closed=False)
    x, y = (np.asarray(to_host(points), dtype=np.float64) for points in (real, fake))
    realism, rarity = _realism_and_rarity(x, y, sq_radii)
    of_real, of_fake = row_influences(x, y)
    return SampleScores(
        real=pd.DataFrame(
            {
                "in_fake_support": counts.x_in_y_balls > 0,
                "is_covered": counts.x_ball_sizes > 0,
                "fid_influence": of_real,
            }
        ),
        fake=pd.DataFrame(
            {
                "in_real_support": counts.y_in_x_balls > 0,
                "n_real_balls": counts.y_in_x_balls,
                "realism": realism,
                "rarity": np.where(counts.y_in_x_balls > 0, rarity, math.nan),
                "fid_influence": of_fake,
            }
        ),
        n_neighbors=k,
        backend=kernels.name,
    )


def _realism_and_rarity(x: Floats, y: Floats, sq_radii: Floats) -> tuple[Floats, Floats]:
    """Return the largest ratio of a radius to the distance, of small balls, and the radius of the smallest ball."""
    radii = np.sqrt(sq_radii)
    small = np.flatnonzero(radii <= np.median(radii))
    realism, rarity = np.empty(len(y)), np.full(len(y), math.inf)
    for rows, distances, errors in sq_distance_blocks(y, x):
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 where a real sample has k copies
            ratios = radii[small] / np.sqrt(distances[:, small])
        best = small[np.argmax(np.where(np.isnan(ratios), math.inf, ratios), axis=1)]
        nearest = np.sqrt(sq_distances(y, rows, x, best))
        realism[rows] = np.divide(radii[best], nearest, out=np.full(len(rows), math.inf), where=nearest > 0.0)
        in_block, balls = np.nonzero(distances <= sq_radii + errors)
        inside = sq_distances(y, rows[in_block], x, balls) < sq_radii[balls]
        np.minimum.at(rarity, rows[in_block[inside]], radii[balls[inside]])
    return realism, rarity
