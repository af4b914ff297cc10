"""Does a generator copy its training set, of which group most, and which samples?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from egtmetrics._errors import listed
from egtmetrics._validation import check_positive_int, check_real_fake
from egtmetrics.groups.inference import holm
from egtmetrics.metrics.authenticity import nearest_training
from egtmetrics.ops import BackendName, select_backend
from egtmetrics.samples import GroupedSamples


def copying_test(
    training: Any,
    fake: Any,
    held_out: Any,
    *,
    fake_sensitive_features: Any,
    held_out_sensitive_features: Any,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> pd.DataFrame:
    r"""Test in every group whether generated samples lie nearer to the training set than held-out real ones do.

    With d(z) the distance of z to the nearest training sample of any group, a generated sample y and a held-out one x
    of the same group, both drawn at random,

    .. math:: p = P(d(y) < d(x)) + \tfrac12 P(d(y) = d(x)),

    estimated over all pairs, is 1/2 if the generator has the law of the data and has not seen the training set. The
    test is that of Mann and Whitney, one-sided.

    Parameters
    ----------
    training, fake, held_out
        Features ``(n, d)``, ``(m, d)`` and ``(h, d)`` of one encoder. No held-out sample may have been trained on.
    fake_sensitive_features, held_out_sensitive_features
        Labels, as for :class:`~egtmetrics.GenerativeMetricFrame`. A group that one side lacks has no row.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Returns
    -------
    DataFrame
        A row for each group: ``n_fake``, ``n_held_out``, ``nearer`` (the estimate of p), ``p_value``, and
        ``adjusted_p_value`` over the groups (Holm).

    Raises
    ------
    TypeError, ValueError
        Features or labels that do not fit, or no group that both sides have.

    Notes
    -----
    The p-values are those of equal laws of the distances, given the training set. A small one has two readings: the
    generator copies, or it makes too few of the samples that lie far from all others (a collapsed one does). Look at
    the nearest pairs. A generator that copies a few samples and is otherwise poor is not found.

    Time O((m + h) n d). Held-out samples that lack a group's rare modes are no fair comparison.

    References
    ----------
    Meehan, Chaudhuri, Dasgupta: A Non-Parametric Test to Detect Data-Copying in Generative Models, AISTATS 2020; here
    by group in place of their cells.

    Examples
    --------
    A fifth of what is generated for f is copied from the training set:

    >>> rng = np.random.default_rng(0)
    >>> training, fake, held_out = rng.normal(size=(3, 400, 8))
    >>> groups = np.repeat(["f", "m"], 200)
    >>> fake[:40] = training[:40]
    >>> found = copying_test(training, fake, held_out, fake_sensitive_features=groups,
    ...                      held_out_sensitive_features=groups)
    >>> found["nearer"].round(2).to_dict(), (found["adjusted_p_value"] < 0.05).to_dict()
    ({'f': 0.62, 'm': 0.51}, {'f': True, 'm': False})
    """
    from scipy.stats import mannwhitneyu  # takes long to import

    samples = GroupedSamples(
        real=held_out,
        fake=fake,
        real_sensitive_features=held_out_sensitive_features,
        fake_sensitive_features=fake_sensitive_features,
    )
    kernels = select_backend(backend, n_threads=n_threads, features=(training, samples.real, samples.fake))
    distances = []
    for points, name in ((samples.fake, "fake"), (samples.real, "held_out")):
        known, points = check_real_fake(training, points, device=kernels.device, names=("training", name))
        distances.append(kernels.kth_neighbor(points, known, n_neighbors=1))
    ids = samples.groups.fake_ids, samples.groups.real_ids
    rows = {}
    for a, label in enumerate(samples.groups.index.tolist()):
        own, other = (distance[side == a] for distance, side in zip(distances, ids, strict=True))
        if len(own) and len(other):
            test = mannwhitneyu(own, other, alternative="less")
            nearer = 1.0 - float(test.statistic) / (len(own) * len(other))
            rows[label] = [len(own), len(other), nearer, float(test.pvalue)]
    if not rows:
        found = listed(repr(samples.groups.name(label)) for label in samples.groups.index.tolist())
        raise ValueError(f"no group of {found} has both fake and held_out samples; check the spelling of the labels")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["n_fake", "n_held_out", "nearer", "p_value"])
    table.index = samples.groups.index[[label in rows for label in samples.groups.index.tolist()]]
    table["adjusted_p_value"] = holm(table["p_value"].to_numpy())
    return table.astype({"n_fake": np.int64, "n_held_out": np.int64})


def suspected_copies(
    training: Any,
    samples: GroupedSamples,
    *,
    n_samples: int = 4,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> pd.DataFrame:
    r"""Find the generated samples of each group that are most likely copies, each with its nearest training sample.

    With :math:`x^*(y)` the training sample nearest to y, of any group, and r(x) the distance of x to the nearest other
    training sample, a generated sample is the more suspicious the smaller

    .. math:: \text{ratio}(y) = |y - x^*(y)| \; / \; r(x^*(y)).

    At 1 or below it counts as a near-copy in :func:`~egtmetrics.metrics.authenticity`.

    Parameters
    ----------
    training
        Features ``(n, d)`` of the training set of the generator, at least two rows.
    samples
        The generated samples, of the same encoder, with their groups; the real ones are not used.
    n_samples
        How many of each group.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`.

    Returns
    -------
    DataFrame
        One row for each sample, the most suspicious of each group first: ``group``, ``row`` of ``samples.fake``,
        ``training_row``, ``distance``, ``training_distance`` (r) and ``ratio``. Of equal ratios the smaller distance
        comes first, then the lower row.

    Raises
    ------
    TypeError, ValueError
        Features that do not fit, or a training set of one row.

    Notes
    -----
    A sample that equals a training sample has the ratio 0, also where that one occurs twice. Some samples of a perfect
    generator have ratios below 1: :func:`copying_test` says whether there are more than chance makes, and people have
    to look at the pairs. Time O((m + n) n d).

    Examples
    --------
    >>> samples = GroupedSamples(
    ...     real=[[0.0], [9.0], [1.0]], fake=[[0.1], [5.0], [2.5], [9.5]],
    ...     real_sensitive_features=["f", "m", "m"], fake_sensitive_features=["f", "m", "f", "m"])
    >>> found = suspected_copies([[0.0], [1.0], [5.0]], samples, n_samples=1)
    >>> found[["group", "row", "training_row", "distance", "ratio"]].to_numpy().tolist()
    [['f', 0, 0, 0.1, 0.1], ['m', 1, 2, 0.0, 0.0]]
    """
    n_samples = check_positive_int(n_samples, "n_samples")
    nearest, _ = nearest_training(
        training, samples.fake, names=("training", "fake"), backend=backend, n_threads=n_threads
    )
    distances, radii = np.sqrt(nearest.sq_distances), np.sqrt(nearest.sq_radii)
    ratios = np.divide(distances, radii, out=np.where(distances > 0.0, np.inf, 0.0), where=radii > 0.0)
    parts = []
    for a, label in enumerate(samples.groups.index.tolist()):
        rows = np.flatnonzero(samples.groups.fake_ids == a)
        rows = rows[np.lexsort((distances[rows], ratios[rows]))][:n_samples]
        part = pd.DataFrame({"row": rows, "training_row": nearest.rows[rows], "distance": distances[rows]})
        part["training_distance"], part["ratio"] = radii[rows], ratios[rows]
        part.insert(0, "group", pd.Series([label] * len(rows), dtype=object))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
