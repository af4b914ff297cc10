"""A codebook that two sets share, and their histograms on it.

A histogram counts the points that lie nearest to each of K centres, which k-means finds on both sets together. The
distinct rows are clustered, in an order that depends on the set of rows alone: swapping real and fake, or shuffling
either, changes nothing, and equal rows get the same code.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._extras import extra
from egtmetrics._faiss import find_gpu, on_gpu
from egtmetrics._order import canonical_order
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.divergences.generators import Values
from egtmetrics.ops import Features, device_of

KMeansLibrary: TypeAlias = Literal["sklearn", "faiss"]
Counts: TypeAlias = NDArray[np.int64]

_MAX_ROUNDS = 300


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Codebook:
    """Centres of k-means on two sets together, and the centre that each row lies nearest to."""

    centers: Values
    """``(K, d)``"""
    real_codes: NDArray[np.int64]
    """``(n,)``, from 0 to K - 1."""
    fake_codes: NDArray[np.int64]
    backend: str
    """``"cuda"`` if k-means searched on a GPU, else ``"numpy"``."""

    @property
    def real_counts(self) -> Counts:
        """Histogram ``(K,)`` of the real set."""
        return np.bincount(self.real_codes, minlength=len(self.centers))

    @property
    def fake_counts(self) -> Counts:
        """Histogram ``(K,)`` of the fake set."""
        return np.bincount(self.fake_codes, minlength=len(self.centers))


def quantize(
    real: Any,
    fake: Any,
    *,
    n_clusters: int,
    kmeans: KMeansLibrary = "sklearn",
    random_state: RandomState = None,
) -> Codebook:
    """Cluster both sets together by k-means.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder.
    n_clusters
        K, at most the number of distinct rows.
    kmeans
        ``"sklearn"``, or ``"faiss"``, which must be installed and is many times faster for a thousand clusters. They
        find different codebooks, so the choice never depends on what is installed. scikit-learn runs on one thread
        here, since its sums depend on the number of threads. faiss searches on a GPU if the features lie on a CUDA
        device and its build for GPUs is installed (``egtmetrics[gpu]``). No GPU has run this yet; the calls are those
        that are tested on the host.
    random_state
        Seeds k-means. One integer gives one codebook for a pair of sets, whatever the order of the sets and the rows.

    Raises
    ------
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, more clusters than distinct rows, an unknown option.
    ImportError
        faiss is asked for and not installed.

    Notes
    -----
    Lloyd's algorithm from one start, k-means++ (faiss: random), with at most 300 rounds. Time O((n + m) K d) a round,
    memory a sorted copy of the features on the host.

    Examples
    --------
    >>> codebook = quantize([[0.0], [0.1], [5.0]], [[5.1], [0.2]], n_clusters=2, random_state=0)
    >>> sorted(codebook.centers.round(6).ravel().tolist())
    [0.1, 5.05]
    >>> bool(codebook.real_codes[2] == codebook.fake_codes[0] != codebook.real_codes[0])
    True
    """
    union = distinct_union(real, fake)
    n_clusters = check_clusters(n_clusters, union)
    return cluster(union, union.rows, n_clusters, kmeans, check_random_state(random_state))


class DistinctRows(NamedTuple):
    """The distinct rows of two sets, in canonical order, on the host."""

    rows: Features
    """``(U, d)``"""
    weights: Values
    """How often each row occurs in both sets together."""
    real_ids: NDArray[np.int64]
    """Which of the rows each real row is, ``(n,)``."""
    fake_ids: NDArray[np.int64]
    device: str | None
    """Where both sets were."""

    @property
    def smaller_size(self) -> int:
        """The smaller of n and m."""
        return min(len(self.real_ids), len(self.fake_ids))


class Histograms(NamedTuple):
    """Counts of both sets, ``(S, K)``: on one codebook for each of S clusterings."""

    real_counts: Counts
    fake_counts: Counts
    kmeans: KMeansLibrary
    backend: str

    def pmfs(self, smoothing: float) -> zip[tuple[Values, Values]]:
        return zip(pmf(self.real_counts, smoothing), pmf(self.fake_counts, smoothing), strict=True)

    def facts(self) -> dict[str, Any]:
        """The fields that all results from histograms have."""
        n_clusterings, n_clusters = self.real_counts.shape
        return {
            "n_clusters": n_clusters,
            "n_clusterings": n_clusterings,
            "kmeans": self.kmeans,
            "backend": self.backend,
            "n_real": int(self.real_counts[0].sum()),
            "n_fake": int(self.fake_counts[0].sum()),
        }


def distinct_union(real: Any, fake: Any) -> DistinctRows:
    """Check both sets, and merge them."""
    device = device_of(real, fake)
    real, fake = check_real_fake(real, fake)
    union = np.concatenate([real, fake])
    order = canonical_order(union)
    union = union[order]
    starts = np.concatenate([[True], (union[1:] != union[:-1]).any(axis=1)])
    ids = np.empty(len(union), dtype=np.int64)
    ids[order] = np.cumsum(starts) - 1
    weights = np.bincount(ids).astype(np.float64)
    return DistinctRows(union[starts], weights, ids[: len(real)], ids[len(real) :], device)


def check_clusters(n_clusters: Any, union: DistinctRows, *, default: int | None = None) -> int:
    if n_clusters is None and default is not None:
        return min(max(2, default), len(union.rows))
    checked = check_positive_int(n_clusters, "n_clusters")
    if checked > len(union.rows):
        raise TooFewSamplesError(
            f"n_clusters={checked}, but real and fake have {len(union.rows)} distinct rows together; pass at most as "
            "many",
            needed=-(-checked // 2),
        )
    return checked


def cluster(
    union: DistinctRows, points: Features, n_clusters: int, kmeans: KMeansLibrary, rng: np.random.Generator
) -> Codebook:
    """Cluster ``points``, one for each row of ``union``."""
    if kmeans not in get_args(KMeansLibrary):
        raise ValueError(f"kmeans={kmeans!r} is unknown; choose one of {', '.join(map(repr, get_args(KMeansLibrary)))}")
    seed = int(rng.integers(2**31))
    # Both libraries square, faiss always and scikit-learn for float32 in a type that ends at 1e38. A power of two
    # changes no digit, so the codes do not depend on the unit.
    exponent = int(np.frexp(np.abs(points).max())[1])
    scaled = np.ldexp(points, -exponent)
    if kmeans == "sklearn":
        codes, centers = _run_sklearn(scaled, union.weights, n_clusters, seed)
        backend = "numpy"
    else:
        codes, centers, backend = _run_faiss(scaled, union.weights, n_clusters, seed, union.device)
    centers = np.ldexp(centers, exponent)
    return Codebook(
        centers=centers, real_codes=codes[union.real_ids], fake_codes=codes[union.fake_ids], backend=backend
    )


@functools.cache
def _threads() -> ThreadpoolController:
    """Return what limits the thread pools that are loaded at the first call, those of scikit-learn among them."""
    return ThreadpoolController()


def _run_sklearn(points: Features, weights: Values, n_clusters: int, seed: int) -> tuple[NDArray[np.int64], Values]:
    from sklearn.cluster import KMeans  # takes seconds, which those who do not cluster need not wait
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(n_clusters, n_init=1, max_iter=_MAX_ROUNDS, random_state=seed)
    with warnings.catch_warnings(), _threads().limit(limits=1, user_api="openmp"):
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # points may coincide after a projection, and leave clusters empty
        model.fit(points, sample_weight=weights)
    return model.labels_.astype(np.int64), model.cluster_centers_.astype(np.float64)


def _run_faiss(
    points: Features, weights: Values, n_clusters: int, seed: int, device: str | None
) -> tuple[NDArray[np.int64], Values, str]:
    with extra("approximate", "kmeans='faiss' needs faiss", otherwise="pass kmeans='sklearn'"):
        import faiss
    origin = points.mean(axis=0, dtype=np.float64)  # float32 has few digits left far from zero
    points = np.ascontiguousarray(points - origin, dtype=np.float32)
    model = faiss.Kmeans(
        points.shape[1],
        n_clusters,
        niter=_MAX_ROUNDS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    gpu = find_gpu(device, largest_k=1)
    model.index = on_gpu(model.index, gpu)
    model.train(points, weights=weights.astype(np.float32))
    _, codes = model.index.search(points, 1)
    centers = model.centroids + origin
    return codes[:, 0].astype(np.int64), centers, "numpy" if gpu is None else "cuda"


def histograms_of(
    union: DistinctRows,
    points: Features,
    n_clusters: int,
    n_clusterings: int,
    kmeans: KMeansLibrary,
    rng: np.random.Generator,
) -> Histograms:
    n_clusterings = check_positive_int(n_clusterings, "n_clusterings")
    codebooks = [cluster(union, points, n_clusters, kmeans, rng) for _ in range(n_clusterings)]
    return Histograms(
        np.stack([codebook.real_counts for codebook in codebooks]),
        np.stack([codebook.fake_counts for codebook in codebooks]),
        kmeans,
        codebooks[0].backend,
    )


def pmf(counts: Counts, smoothing: float) -> Values:
    smoothed = counts + smoothing
    return np.asarray(smoothed / smoothed.sum(axis=-1, keepdims=True))
