"""All hypothesis strategies of the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.special import ndtr

from egtmetrics.divergences import FGenerator, alpha_divergence, get_generator, hockey_stick, precision_recall


@st.composite
def tied_points(draw: st.DrawFn, *, dimension: int | None = None) -> NDArray[np.float32]:
    """A set on a small integer grid, full of equal rows and equal distances, with more than 5 d rows."""
    d = draw(st.integers(1, 3)) if dimension is None else dimension
    n = draw(st.integers(5 * d + 1, 40))
    return draw(hnp.arrays(np.float32, (n, d), elements=st.integers(-3, 3).map(float)))


@st.composite
def similarities(draw: st.DrawFn, *, dimension: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A rotation or reflection, a scale from 1e-6 to 1e6 and a shift of up to a million: ``scale * x @ Q + shift``."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    scale = 10.0 ** draw(st.floats(-6.0, 6.0))
    shift = draw(st.floats(0.0, 1e6)) * scale * rng.uniform(-1.0, 1.0, size=dimension)
    return lambda x: scale * (x @ rotation) + shift


@st.composite
def lattice_pairs(
    draw: st.DrawFn, *, min_rows: int, max_rows: int = 16, max_features: int = 3
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(real, fake) of small integers: full of ties and duplicates; squared distances are exact in any summing order."""
    d = draw(st.integers(1, max_features))
    rows, values = st.integers(min_rows, max_rows), st.integers(-3, 3).map(float)
    real, fake = (draw(hnp.arrays(np.float32, (draw(rows), d), elements=values)) for _ in range(2))
    return real, fake


@st.composite
def invalid_features(draw: st.DrawFn, *, n_features: int) -> Any:
    """Anything but a finite ``(n, n_features)`` array of numbers."""
    features = draw(
        hnp.arrays(
            np.float64, (12, n_features), elements=st.floats(-1e3, 1e3).map(lambda x: x if abs(x) > 1e-99 else 0.0)
        )
    )
    fault = draw(st.sampled_from(["value", "axes", "columns", "empty", "text", "ragged"]))
    if fault == "value":
        row, column = draw(st.integers(0, 11)), draw(st.integers(0, n_features - 1))
        features[row, column] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e200]))
        return features
    if fault == "axes":
        return draw(st.sampled_from([features[:, 0], features[None], features[0, 0]]))
    if fault == "columns":
        return np.concatenate([features, features], axis=1)
    if fault == "empty":
        return draw(st.sampled_from([features[:0], features[:, :0]]))
    return features.astype(str) if fault == "text" else [[1.0] * n_features, [1.0] * (n_features + 1)]


class GroupedSamples(NamedTuple):
    """Two sets with the same features, and a group label from 0 to 3 for every row."""

    real: NDArray[np.float64]
    fake: NDArray[np.float64]
    real_groups: NDArray[np.int64]
    fake_groups: NDArray[np.int64]


@st.composite
def grouped_samples(draw: st.DrawFn, *, max_groups: int = 4) -> GroupedSamples:
    """2 to ``max_groups`` groups with 2 to 6 rows each on each side, in any order; sums of the values are exact."""
    n_groups = draw(st.integers(2, max_groups))

    def side() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        sizes = draw(st.lists(st.integers(2, 6), min_size=n_groups, max_size=n_groups))
        groups = draw(st.permutations(np.repeat(np.arange(n_groups), sizes).tolist()))
        eighths = draw(hnp.arrays(np.int64, (len(groups), 2), elements=st.integers(-16, 16)))
        return eighths / 8.0, np.array(groups)

    (real, real_groups), (fake, fake_groups) = side(), side()
    return GroupedSamples(real, fake, real_groups, fake_groups)


@st.composite
def group_labels(draw: st.DrawFn) -> list[str]:
    """Labels from "a" to "d" for 5 to 40 samples, including "a" and "b"."""
    return [*"aab", *draw(st.lists(st.sampled_from("abcd"), min_size=2, max_size=37))]


@st.composite
def score_tables(draw: st.DrawFn) -> pd.DataFrame:
    """Precision, recall and fid of 2 to 6 groups."""
    n_groups = draw(st.integers(2, 6))
    scores = draw(hnp.arrays(np.float64, (n_groups, 3), elements=st.floats(0.0, 1.0)))
    return pd.DataFrame(scores, columns=["precision", "recall", "fid"], index=pd.Index(list("abcdef"[:n_groups])))


def divergence_generators() -> st.SearchStrategy[FGenerator]:
    """Every built-in f, with parameters on both sides of their special values, and the partners of all of them."""
    names = ["kl", "reverse_kl", "js", "jeffreys", "tv", "pearson", "neyman", "hellinger", "le_cam"]
    parameters = st.floats(0.1, 10.0)
    family = st.one_of(
        st.sampled_from(names).map(get_generator),
        st.floats(-3.0, 4.0).map(lambda alpha: alpha_divergence(round(alpha, 3))),  # including 0 and 1
        parameters.map(hockey_stick),
        parameters.map(precision_recall),
    )
    return st.one_of(family, family.map(FGenerator.partner))


@st.composite
def pmfs(draw: st.DrawFn, *, size: int, positive: bool = False) -> NDArray[np.float64]:
    """Probabilities of ``size`` atoms over six orders of magnitude, some of them 0 unless ``positive``."""
    values = 10.0 ** draw(hnp.arrays(np.float64, size, elements=st.floats(-6.0, 0.0)))
    if not positive:
        kept = draw(hnp.arrays(np.bool_, size, elements=st.booleans()).filter(np.any))
        values = np.where(kept, values, 0.0)
    return np.asarray(values / values.sum())


class GroupedPmfs(NamedTuple):
    """The real and the fake law over atoms, and the group of each atom."""

    p: NDArray[np.float64]
    q: NDArray[np.float64]
    groups: NDArray[np.str_]


@st.composite
def grouped_pmfs(
    draw: st.DrawFn, *, matching: bool = False, equal: bool = False, positive: bool = False, max_groups: int = 5
) -> GroupedPmfs:
    """2 to ``max_groups`` groups of 1 to 4 atoms in any order, with zeros in either law unless ``positive``.

    ``matching`` gives both laws the same proportions, ``equal`` also gives every group the same one. Otherwise a group
    may be missing from one law (never from both) unless ``positive``.
    """
    n_groups = draw(st.integers(2, max_groups))
    sizes = draw(st.lists(st.integers(1, 4), min_size=n_groups, max_size=n_groups))
    codes = np.repeat(np.arange(n_groups), sizes)
    real = np.full(n_groups, 1.0 / n_groups) if equal else draw(pmfs(size=n_groups, positive=True))
    fake = real
    if not (matching or equal):
        fake = draw(pmfs(size=n_groups, positive=positive))
    p, q = (
        np.concatenate([pi * draw(pmfs(size=size, positive=positive)) for pi, size in zip(law, sizes, strict=True)])
        for law in (real, fake)
    )
    order = np.array(draw(st.permutations(range(len(codes)))))
    if not (matching or equal) and draw(st.booleans()):
        p, q = q, p
    return GroupedPmfs(p[order], q[order], np.array(list("abcde"))[codes[order]])


class GaussianCase(NamedTuple):
    """Two Gaussian densities on the line or half line, at the nodes of a quadrature, with closed-form results."""

    p: NDArray[np.float64]
    q: NDArray[np.float64]
    weights: NDArray[np.float64]
    kl: float
    power_sum: Callable[[float], float]
    """The integral of p^a q^(1-a), in closed form."""


@st.composite
def gaussian_cases(draw: st.DrawFn, *, truncated: bool) -> GaussianCase:
    """P = N(m, s^2) and Q, with means in [-0.5, 0.5] and deviations in [0.9, 1.1], ``truncated`` to x > 0 or not."""
    means, deviations = st.floats(-0.5, 0.5), st.floats(0.9, 1.1)
    m, s, n, t = draw(means), draw(deviations), draw(means), draw(deviations)
    nodes, gauss = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(0.0 if truncated else -15.0, 15.0, 61)
    half_widths = np.diff(edges)[:, None] / 2.0
    x = (edges[:-1, None] + half_widths * (1.0 + nodes)).ravel()
    weights = (half_widths * gauss).ravel()

    def mass(mean: float, deviation: float) -> float:
        return float(ndtr(mean / deviation)) if truncated else 1.0

    def density(mean: float, deviation: float) -> NDArray[np.float64]:
        exponential = np.exp(-0.5 * ((x - mean) / deviation) ** 2)
        return np.asarray(exponential / (np.sqrt(2.0 * np.pi) * deviation * mass(mean, deviation)))

    # E_P[x - m] and E_P[(x - m)^2]; phi / Phi is the inverse Mills ratio
    mills = np.exp(-0.5 * (m / s) ** 2) / np.sqrt(2.0 * np.pi) / mass(m, s) if truncated else 0.0
    first, second = s * mills, s**2 * (1.0 - m / s * mills)
    shifted = second + 2.0 * (m - n) * first + (m - n) ** 2
    kl = np.log(t * mass(n, t) / (s * mass(m, s))) - second / (2.0 * s**2) + shifted / (2.0 * t**2)

    def power_sum(a: float) -> float:
        # p^a q^(1-a) is exp(-(A x^2 - 2 B x + C) / 2) up to its constant
        A = a / s**2 + (1.0 - a) / t**2
        B = a * m / s**2 + (1.0 - a) * n / t**2
        C = a * m**2 / s**2 + (1.0 - a) * n**2 / t**2
        constant = (s * mass(m, s)) ** -a * (t * mass(n, t)) ** (a - 1.0)
        inside = float(ndtr(B / np.sqrt(A))) if truncated else 1.0
        return float(constant * np.exp(0.5 * (B**2 / A - C)) / np.sqrt(A) * inside)

    return GaussianCase(density(m, s), density(n, t), weights, float(kl), power_sum)


class SiteSamples(NamedTuple):
    """Two sets of points on a few sites, and the number of points on each site."""

    real: NDArray[np.float64]
    fake: NDArray[np.float64]
    real_counts: NDArray[np.int64]
    fake_counts: NDArray[np.int64]

    @property
    def n_sites(self) -> int:
        """The number of sites; each holds at least one point of one of the sets."""
        return len(self.real_counts)


@st.composite
def site_samples(draw: st.DrawFn) -> SiteSamples:
    """Up to 9 points of each set on each of 2 to 6 sites in the plane, in any order."""
    n_sites = draw(st.integers(2, 6))
    counts = st.lists(st.integers(0, 9), min_size=n_sites, max_size=n_sites).filter(any)
    real_counts, fake_counts = np.array(draw(counts)), np.array(draw(counts))
    used = real_counts + fake_counts > 0
    sites = np.stack([np.arange(n_sites), np.arange(n_sites) ** 2], axis=1).astype(np.float64)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    real, fake = (rng.permutation(np.repeat(sites, c, axis=0)) for c in (real_counts, fake_counts))
    return SiteSamples(real, fake, real_counts[used], fake_counts[used])
