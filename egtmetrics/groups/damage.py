"""Known damage to real samples, by which a score is read: "as if 12 % of the samples were off the data".

A damage of your own is a function ``(samples, dose, rng) -> features``; see :class:`Damage`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._validation import check_features, check_number, keep_checked
from egtmetrics.ops import Features, to_host
from egtmetrics.registry import callable_name
from egtmetrics.results import Score

Floats: TypeAlias = NDArray[np.float64]

N_ORIGINALS = 20
"""How many samples :func:`copies` copies."""
NEIGHBORHOOD = 0.1
"""The share of the samples in each neighbourhood that :func:`missing_mass` leaves out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damage:
    """Something that is done to real samples at several doses.

    Parameters
    ----------
    function
        ``(samples, dose, rng) -> features``: the features ``(n', d)`` of the damaged samples, which may be fewer. It is
        called with doses above 0 only, for every dose with a generator in the same state, so that larger doses can do
        the same and more.
    doses
        0 and at least two more, increasing. Scores between them are interpolated, so let them be near to each other
        where the scores change.
    label
        What a dose is, for readers: ``"share of the samples off the data"``.
    share
        Whether a dose is a share; it is printed in percent then, and at most 1.
    samples
        What the function gets the rows of: a sequence or an array with one entry per real row of the frame, such as
        images or texts; the function then encodes what it damaged, with the encoder of the frame's features. None for
        the features themselves.

    Raises
    ------
    ValueError
        If the doses are not numbers that increase from 0, or beyond 1 for shares.

    Examples
    --------
    Words dropped from texts, with an encoder that counts letters:

    >>> def encode(texts):
    ...     return np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=float)
    >>> def drop_words(texts, dose, rng):
    ...     return encode([" ".join(w for w in text.split() if rng.random() > dose) for text in texts])
    >>> texts = ["a cab", "back at a bar", "abba"]
    >>> dropped = Damage(function=drop_words, doses=(0, 0.25, 0.5, 1), share=True, samples=texts,
    ...                  label="share of words dropped")
    >>> dropped.apply(encode(texts), np.array([0, 2]), 1.0, np.random.default_rng(0)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]

    Blurred images; any encoder will do, here the pixels themselves:

    >>> from scipy.ndimage import gaussian_filter
    >>> def blur(images, dose, rng):
    ...     return np.stack([gaussian_filter(image, dose) for image in images]).reshape(len(images), -1)
    >>> blurred = Damage(function=blur, doses=(0, 0.5, 1, 2), samples=np.eye(8)[None], label="blur, in pixels")
    >>> float(blurred.apply(np.eye(8).reshape(1, -1), np.array([0]), 1.0, np.random.default_rng(0)).max()) < 0.6
    True
    """

    function: Callable[[Any, float, np.random.Generator], Any]
    doses: Sequence[float]
    label: str = "dose"
    share: bool = False
    samples: Any = None

    def __post_init__(self) -> None:
        doses = tuple(float(dose) for dose in self.doses)
        most = 1.0 if self.share else math.inf
        if len(doses) < 3 or doses[0] != 0.0 or not np.all(np.diff(doses) > 0) or not doses[-1] <= most:
            beyond = " to at most 1" if self.share else ""
            raise ValueError(
                f"doses={self.doses!r} does not increase from 0{beyond} in three steps or more; pass such numbers, for "
                "example (0, 0.1, 0.2, 0.4)"
            )
        check_number(doses[-1], "doses[-1]")
        object.__setattr__(self, "doses", doses)

    def describe(self, read_by: str | None = None) -> Score:
        """Return what a dose is, for tables and figures; ``read_by`` names the score that it was read by."""
        return Score(
            label=self.label if read_by is None else f"{read_by}: {self.label}",
            help=f"The dose at which damaged real samples of the group have the score of the model: {self.label}.",
            better="lower",
            bounds=(0.0, 1.0 if self.share else math.inf),
            percent=self.share,
            depends_on_size=False,
        )

    def apply(self, features: Features, rows: NDArray[np.int64], dose: float, rng: np.random.Generator) -> Features:
        """Return the features of damaged samples: of some rows of the real ones, whose features are ``features``."""
        if dose == 0.0:
            return features
        name = f"what the damage {callable_name(self.function)!r} returned for dose {dose:g}"
        given: Any = to_host(features)
        if isinstance(self.samples, np.ndarray):
            given = self.samples[rows]
        elif self.samples is not None:
            given = [self.samples[int(row)] for row in rows]
        found = check_features(self.function(given, dose, rng), name)
        if found.shape[1] != features.shape[1] or len(found) > len(features):
            raise ValueError(
                f"{name} has shape {found.shape}, expected at most {len(features)} rows of {features.shape[1]} "
                "features; return features of the frame's encoder, one row per sample or fewer"
            )
        side: Any = features  # of the type, and on the device, that it was
        return keep_checked(
            side.new_tensor(found) if hasattr(side, "new_tensor") else found.astype(side.dtype, copy=False)
        )


def off_support(features: Any, share: float, rng: np.random.Generator) -> Floats:
    """Replace a share of the samples by ones off the data, drawn around them.

    With c the mean of the samples and r their mean distance from it, a replaced sample is ``c + 6 r u``, u uniform on
    the unit sphere. In any dimension it is at least 4 r from all samples within 2 r of c, which are at most 4 r from
    each other: beyond what a ball around one of them that ends at another can reach. Of Gaussian samples 89 % lie so
    near in one dimension, 96 % in two, 99 % in four.

    Parameters
    ----------
    features
        ``(n, d)``.
    share
        In [0, 1]. ``share * n`` samples are replaced, rounded up or down at random such that the mean is right.
    rng
        Draws them. In the same state it replaces the same samples and more for a larger share.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> damaged = off_support(x, 0.2, np.random.default_rng(1))
    >>> int((damaged != x).any(axis=1).sum()), float(np.linalg.norm(damaged - x.mean(axis=0), axis=1).max()) > 12
    (20, True)
    """
    ranks, n_chosen = _ranks(len(features), share, rng)
    center = features.mean(axis=0, dtype=np.float64)
    radius = np.linalg.norm(features - center, axis=1).mean()
    directions = rng.standard_normal(features.shape)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(np.where(ranks[:, None] < n_chosen, center + 6.0 * radius * directions, features))


def missing_mass(features: Any, share: float, rng: np.random.Generator) -> Any:
    """Leave out a share of the samples: whole neighbourhoods, which a generator never generates.

    A sample is drawn at random, and the tenth of the samples nearest to it are left out; then the same with those that
    are left, until the share is reached. The samples that remain keep their order.

    Parameters
    ----------
    features
        ``(n, d)``.
    share
        In [0, 1). ``round(share * n)`` samples are left out.
    rng
        Draws the neighbourhoods. In the same state it leaves out the same samples and more for a larger share.

    Examples
    --------
    >>> x = np.arange(20.0)[:, None]
    >>> missing_mass(x, 0.2, np.random.default_rng(0)).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 12.0, 13.0, 14.0, 15.0, 18.0, 19.0]
    """
    n = len(features)
    whole = max(1, round(NEIGHBORHOOD * n))
    left, n_left = np.arange(n), n - round(share * n)
    while len(left) > n_left:
        center = features[left[rng.integers(len(left))]]
        distances = np.linalg.norm(features[left] - center, axis=1)
        nearest = np.argsort(distances, kind="stable")[: min(whole, len(left) - n_left)]
        left = np.delete(left, nearest)
    return features[left]


def copies(features: Any, share: float, rng: np.random.Generator) -> Any:
    """Replace a share of the samples by copies of twenty of them: a generator that repeats itself.

    The number of originals is fixed, so that a share means the same for any number of samples. With one original for
    each copy, half of the samples would hold half of the pairs only. The originals are among the first to be replaced:
    those that are left are not among the copied ones.

    Parameters
    ----------
    features
        ``(n, d)``.
    share
        In [0, 1]. ``share * n`` samples are replaced, rounded up or down at random such that the mean is right.
    rng
        Draws the originals, and which of them a sample becomes. In the same state it replaces the same samples and more
        for a larger share.

    Examples
    --------
    >>> x = np.arange(100.0)[:, None]
    >>> len(np.unique(copies(x, 0.5, np.random.default_rng(0))))  # half of them, and the originals that were drawn
    66
    """
    ranks, n_chosen = _ranks(len(features), share, rng)
    originals = np.argsort(ranks)[:N_ORIGINALS]
    copied = rng.choice(originals, len(features))
    return features[np.where(ranks < n_chosen, copied, np.arange(len(features)))]


def noise(features: Any, size: float, rng: np.random.Generator, *, spread: float | None = None) -> Floats:
    """Add Gaussian noise, the same in all directions: ``x + size * spread * z``, z standard normal.

    Parameters
    ----------
    features
        ``(n, d)``.
    size
        At least 0.
    rng
        Draws z, the same for every size.
    spread
        The unit of the size: a standard deviation of the features. None takes that of the samples, ``s`` with s^2 their
        variance averaged over the features. Under the name ``"noise"``, a frame takes the same unit for all groups: s^2
        averaged over them. So the same noise has the same size in every group, although their spreads differ.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(10_000, 3)) * [1.0, 2.0, 2.0]
    >>> added = noise(x, 0.5, np.random.default_rng(1)) - x
    >>> round(float(added.std()), 1)  # 0.5 times the root of (1 + 4 + 4) / 3
    0.9
    """
    unit = math.sqrt(mean_variance(features)) if spread is None else spread
    noisy: Floats = features + size * unit * rng.standard_normal(features.shape)
    return noisy


def mean_variance(features: Any) -> float:
    """Return the variance of the samples, averaged over the features."""
    return float(features.var(axis=0, dtype=np.float64).mean())


def _ranks(n: int, share: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], int]:
    """Return a random order of n rows, as ranks, and how many of them are chosen: the share, right in the mean."""
    return rng.permutation(n), math.floor(share * n + rng.random())


_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
_DOSES_OF_MASS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
_DOSES_OF_NOISE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0)  # near to 0, since a group may be narrow

Damages: TypeAlias = str | Damage | Sequence[str | Damage] | Mapping[str, Damage]
"""``"noise"``, ``"noise,copies"``, a :class:`Damage`, several of them, or a mapping of names to them."""


def known_damages(spread: float) -> dict[str, Damage]:
    """Return the damages that have names; ``spread`` is the unit of noise."""
    return {
        "off_support": Damage(
            function=off_support, doses=_SHARES, label="share of the samples off the data", share=True
        ),
        "missing_mass": Damage(
            function=missing_mass, doses=_DOSES_OF_MASS, label="share of the data never generated", share=True
        ),
        "copies": Damage(function=copies, doses=_SHARES, label="share of the samples that are copies", share=True),
        "noise": Damage(
            function=functools.partial(noise, spread=spread),
            doses=_DOSES_OF_NOISE,
            label="noise, in standard deviations of the data",
        ),
    }


def name_damages(damages: Damages | None, spread: float) -> dict[str, Damage]:
    """Return damages by name: text is looked up, a :class:`Damage` has the name of its function; None is all known."""
    known = known_damages(spread)
    if damages is None:
        return known
    if isinstance(damages, Mapping):
        named = dict(damages)
    else:
        chosen: Sequence[Any] = [damages]
        if isinstance(damages, str):
            chosen = [name.strip() for name in damages.split(",")]
        elif isinstance(damages, Sequence):
            chosen = damages
        named = {}
        for damage in chosen:
            if isinstance(damage, str):
                if damage not in known:
                    raise ValueError(f"damage {damage!r} is unknown; choose from {listed(known)}, or pass a Damage")
                named[damage] = known[damage]
            else:
                named[callable_name(getattr(damage, "function", damage))] = damage
    if not named:
        raise ValueError(f"damages is empty; pass some of {listed(known)}, or a Damage of your own")
    for name, damage in named.items():
        if not isinstance(damage, Damage):
            raise TypeError(
                f"damages[{name!r}] is {type(damage).__name__}, expected a Damage; pass Damage(function=..., doses=...)"
            )
    return named
