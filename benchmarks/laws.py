"""Laws of real and generated samples, for the studies of intervals and tests."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from egtmetrics.encoders.texts import TextEncoder

Array = NDArray[np.float64]
Generator = np.random.Generator
Law = Callable[[Generator, int, int], tuple[Array, Array]]
"""Draws n real and m generated samples of one group, all of one law: the generator is perfect."""


def independent(draw: Callable[[Generator, int], Array]) -> Law:
    return lambda rng, n, m: (draw(rng, n), draw(rng, m))


def normal(scale: float = 1.0, d: int = 8) -> Law:
    return independent(lambda rng, n: scale * rng.normal(size=(n, d)))


def student(d: int = 8) -> Law:
    """Student's t with three degrees of freedom, in every feature."""
    return independent(lambda rng, n: rng.standard_t(3, size=(n, d)))


def embedded(dimension: int, d: int = 64) -> Law:
    """A normal law of few dimensions, turned into more of them, with noise of 2 %."""
    axes = np.linalg.qr(np.random.default_rng(dimension).normal(size=(d, dimension)))[0].T
    return independent(lambda rng, n: rng.normal(size=(n, dimension)) @ axes + 0.02 * rng.normal(size=(n, d)))


def manifold(dimension: int = 5, d: int = 64) -> Law:
    """A curved manifold without noise: every feature is the sine of a random projection of few normal ones."""
    fixed = np.random.default_rng(dimension)
    directions = fixed.normal(size=(dimension, d)) / math.sqrt(dimension)
    phases = fixed.uniform(0.0, math.tau, size=d)
    return independent(lambda rng, n: np.sin(2.0 * rng.normal(size=(n, dimension)) @ directions + phases))


def clusters(d: int = 8) -> Law:
    """Ten clusters whose shares are as 1 to 10."""
    centres = 4.0 * np.random.default_rng(5).normal(size=(10, d))
    shares = np.arange(1, 11) / 55
    return independent(lambda rng, n: centres[rng.choice(10, size=n, p=shares)] + rng.normal(size=(n, d)))


def counts(d: int = 6) -> Law:
    """Poisson numbers with a mean of 0.5: of 300 samples, more than half equal another one."""
    return independent(lambda rng, n: rng.poisson(0.5, size=(n, d)).astype(float))


def population(items: Array) -> Law:
    """A finite population, of which no item is drawn twice."""

    def draw(rng: Generator, n: int, m: int) -> tuple[Array, Array]:
        rows = rng.permutation(len(items))[: n + m]
        return items[rows[:n]], items[rows[n:]]

    return draw


def digits(*kept: int) -> Law:
    """Scikit-learn's handwritten digits, as pixels; all 1797, or those of some digits."""
    images, labels = load_digits(return_X_y=True)
    return population(images[np.isin(labels, kept)] if kept else images)


def texts(rng: Generator, n: int, m: int) -> tuple[Array, Array]:
    """Sentences of the reference manual that Python carries, as embeddings of the default text encoder."""
    return population(_embeddings())(rng, n, m)


@functools.cache
def _embeddings() -> Array:
    paragraphs = "\n\n".join(topics.topics.values()).split("\n\n")
    prose = (" ".join(paragraph.split()) for paragraph in paragraphs if not paragraph.startswith((" ", "\n")))
    sentences = {sentence for text in prose for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text)}
    encoder = TextEncoder(cache=Path("build/embeddings"))
    return encoder(sorted(one for one in sentences if 40 <= len(one) <= 300 and one[-1] == ".")).astype(float)


@functools.cache
def spread(law: Law) -> float:
    """The standard deviation of all numbers of 200 samples; always of the same ones."""
    return float(law(np.random.default_rng(0), 200, 1)[0].std())


def off_support(fake: Array, share: float, rng: Generator, distance: float) -> Array:
    """Move each sample with a probability of ``share``, in a random direction, by ``distance`` in each feature."""
    moved = rng.random(len(fake)) < share
    directions = rng.normal(size=(moved.sum(), fake.shape[1]))
    directions *= math.sqrt(fake.shape[1]) / np.linalg.norm(directions, axis=1, keepdims=True)
    damaged = fake.copy()
    damaged[moved] += distance * directions
    return damaged
