"""The paper's Table 4: real images degraded in two ways, with similar global scores but different scores by group.

One half of the real images plays a generator's samples. Example 1 degrades all groups a little. Example 2 degrades the
first group strongly and leaves the others, so that global precision and recall are those of Example 1. Both keep the
proportions of the groups. ``table4_report`` makes text and a figure of the results.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics import ego, mgo
from egtmetrics._atomic import write_whole
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_number
from egtmetrics.paper._stages import N_PROJECTIONS, cached, check_counts, claim, compare, seed_of, table_metrics
from egtmetrics.paper.datasets import ImageData

REAL = "Real"
"""Instead of an example: the other half of the real images as it is."""
EXAMPLES = ("Example 1", "Example 2")

_PROJECTED_DIM = 8
"""Of TopP&R, as in Table 1 here: its bandwidth is the distance to neighbour 5 d', which must be few of a group."""
_STRONGER = 1.5
"""Least ratio of the noise in Example 2 to that in Example 1."""
_SHOWN = 20
"""Samples of each group in the figure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table4Settings:
    """Size of the experiment, and its degradations. An output folder belongs to one."""

    n_splits: int = 20
    """Repetitions, each with its own halves of the images, duplicates and bootstrap draws."""
    n_search_splits: int = 5
    """Further repetitions, on which the degradations are searched."""
    max_samples: int = 1000
    """Most real images, and most degraded ones, of each group."""
    mild_precision: float = 0.7
    """TopP&R precision of Example 1, as a fraction of that of the real images; 79 of perhaps 96 in the paper."""
    mild_share: float = 0.2
    """Share of duplicates in Example 1; the paper's."""
    noises: tuple[float, ...] = (0.0, 0.006, 0.012, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7)
    """Standard deviations of the noise that the search tries in this order, in units of the range of levels; it
    interpolates between them."""
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6)
    """Shares of duplicates that the search tries for Example 2."""
    tolerance: float = 0.01
    """Difference in recall that the search accepts."""
    n_bootstrap: int = 1000
    """Of the confidence band of TopP&R."""

    def __post_init__(self) -> None:
        check_counts(self)
        check_number(self.mild_precision, "mild_precision", above=0.0, below=1.0)
        check_number(self.tolerance, "tolerance", minimum=0.0)
        for share in (self.mild_share, *self.shares):
            check_number(share, "a share of duplicates", minimum=0.0, below=1.0)
        for name in ("noises", "shares"):
            values = getattr(self, name)
            if len(values) < 2 or values[0] != 0.0 or list(values) != sorted(set(values)):
                raise ValueError(f"{name}={values} does not rise from 0; pass two numbers or more, 0 first")


FULL = Table4Settings()
QUICK = Table4Settings(n_splits=5, n_bootstrap=200)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table4:
    """What :func:`reproduce_table4` returns."""

    scores: pd.DataFrame
    """One row per split and per example or "Real", with ``noise`` and ``share`` of the first group, scores such as
    ``topp.precision/all`` and ``ipr.recall/man``, disparities such as ``topp.delta_p``, and ``mgo`` and ``ego``."""
    samples: dict[str, NDArray[np.float32]]
    """Of each example in the first split, random samples of each group: ``(groups, 20, channels, height, width)``."""
    facts: dict[str, Any]
    """What was measured, in which features, and which degradations the search found."""


def reproduce_table4(
    data: ImageData, out: str | Path, *, settings: Table4Settings = FULL, progress: bool = False
) -> Table4:
    r"""Degrade real images in two ways with similar global precision and recall, and compare the groups.

    Of each group, n images are the real ones and n others play the generated ones. An example with noise s and share r
    turns the latter into

    .. math:: x_i' = \text{round}(\text{clip}(x_i + s \epsilon_i)), \quad \epsilon_i \sim N(0, I),

    and then replaces a random share r of them by copies of the others, each flipped horizontally with probability 1/2.
    Example 1 has r = ``mild_share`` in every group, and the s at which the global TopP&R precision falls to
    ``mild_precision`` times that of the real images. Example 2 degrades the first group only. It has the largest r of
    ``shares`` for which some s gives the global precision of Example 1 and a recall within ``tolerance`` of it; if
    there is none, the r with the closest recall. Its s is at least 1.5 times that of Example 1, since many duplicates
    also lower precision and should not replace the noise.

    Parameters
    ----------
    data
        Images of two groups or more, from :func:`load_image_data`.
    out
        Folder, made if missing, that holds ``settings.json``, every finished stage, and ``scores.csv``. An interrupted
        run resumes from it.
    settings
        Size of the experiment.
    progress
        Show a progress bar, which counts evaluations.

    Returns
    -------
    Table4
        Scores, images and facts, for ``egtmetrics.paper.table4_report``.

    Raises
    ------
    ValueError
        ``out`` was begun with other settings or data; a group is too small; no noise lowers precision as asked for.

    Notes
    -----
    The search uses other halves of the same images than the reported scores. Noise is drawn once for each image, so the
    examples differ in its strength only.

    TopP&R uses 10 random Gaussian projections to 8 dimensions; the paper has 32, and more images. Precision and recall
    by 5 nearest neighbours are reported too; Example 2 is not fitted to them.

    Cost: the search encodes about ``n_search_splits * len(noises)`` halves of the images.

    References
    ----------
    The paper, appendix B.1, Figure 4 and Table 4, which degrade samples of a model of faces. It gives neither the
    strengths of the noise nor the share of duplicates in Example 2.

    Examples
    --------
    >>> from egtmetrics.paper.datasets import load_image_data
    >>> from egtmetrics.paper.table4 import QUICK, reproduce_table4
    >>> table = reproduce_table4(load_image_data("digits"), "table4-digits", settings=QUICK)  # doctest: +SKIP
    >>> table.scores.groupby("example")["topp.precision/all"].mean()  # doctest: +SKIP
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(np.ascontiguousarray(data.images).tobytes() + data.groups.tobytes()).hexdigest()[:16]
    claim(folder / "settings.json", {**dataclasses.asdict(settings), **data.facts, "images": digest})
    experiment = _Experiment(data, settings)
    rows: list[dict[str, Any]] = []
    total = settings.n_search_splits * (1 + 2 * len(settings.noises)) + settings.n_splits * 3
    with tqdm(total=total, unit="evaluation", disable=not progress) as bar:

        def stage(name: str, compute: Callable[[], Any]) -> Any:
            bar.set_description(name)
            content = cached(folder / f"{name}.json", compute)
            bar.update()
            return content

        found = experiment.search(stage)
        bar.total = bar.n + settings.n_splits * 3  # the search rarely needs all noises
        degradations = {
            REAL: [(0.0, 0.0)] * experiment.n_groups,
            EXAMPLES[0]: experiment.mild(found["mild_noise"]),
            EXAMPLES[1]: experiment.strong(found["noise"], found["share"]),
        }
        for split in range(settings.n_splits):
            for example, by_group in degradations.items():
                scores = stage(f"split{split}-{example}", functools.partial(experiment.scores, split, by_group))
                noise, share = by_group[0]
                rows.append({"split": split, "example": example, "noise": noise, "share": share, **scores})
    table = Table4(
        scores=pd.DataFrame(rows),
        samples={example: experiment.shown(degradations[example]) for example in EXAMPLES},
        facts={**experiment.facts(), "search": found},
    )
    write_whole(folder / "scores.csv", table.scores.to_csv(index=False))
    return table


class _Experiment:
    def __init__(self, data: ImageData, settings: Table4Settings) -> None:
        self.data, self.settings = data, settings
        self.n_groups = len(data.group_names)
        smallest = int(np.bincount(data.groups, minlength=self.n_groups).min())
        self.n = min(smallest // 2, settings.max_samples)
        """Number of real images, and of degraded ones, of each group."""
        if self.n <= 5 * _PROJECTED_DIM:
            raise ValueError(
                f"data has {smallest} images in its smallest group, but TopP&R in {_PROJECTED_DIM} dimensions needs "
                f"more than {5 * _PROJECTED_DIM} in each half; pass more images"
            )

    def mild(self, noise: float) -> list[tuple[float, float]]:
        """Noise and share of duplicates for each group in Example 1."""
        return [(noise, self.settings.mild_share)] * self.n_groups

    def strong(self, noise: float, share: float) -> list[tuple[float, float]]:
        """The same for Example 2."""
        return [(noise, share), *[(0.0, 0.0)] * (self.n_groups - 1)]

    def search(self, stage: Callable[[str, Callable[[], Any]], Any]) -> dict[str, float]:
        """Find the noise of Example 1, and noise and share of Example 2."""
        settings = self.settings

        def measure(example: str, noise: float, degradations: list[list[tuple[float, float]]]) -> NDArray[np.float64]:
            """Return mean precision and recall over splits, for each degradation."""
            splits = range(settings.n_splits, settings.n_splits + settings.n_search_splits)
            by_split = [
                stage(f"search{split}-{example}-{noise:g}", functools.partial(self._overall, split, degradations))
                for split in splits
            ]
            scores: NDArray[np.float64] = np.mean(by_split, axis=0)
            return scores

        real = measure(REAL, 0.0, [self.strong(0.0, 0.0)])[0]
        wanted = settings.mild_precision * real[0]
        grids: list[NDArray[np.float64]] = []
        degradations: tuple[Callable[[float], list[list[tuple[float, float]]]], ...] = (
            lambda noise: [self.mild(noise)],
            lambda noise: [self.strong(noise, share) for share in settings.shares],
        )
        for example, degrade in zip(EXAMPLES, degradations, strict=True):
            points: list[NDArray[np.float64]] = []
            for noise in settings.noises:
                points.append(measure(example, noise, degrade(noise)))
                if (points[-1][:, 0] < wanted).all():
                    break
            grids.append(np.array(points))
        mild_noise, target = at_precision(grids[0][:, 0], wanted, settings.noises)
        noise, share = choose_degradation(
            grids[1], target, settings.noises, settings.shares, settings.tolerance, least_noise=_STRONGER * mild_noise
        )
        return {"mild_noise": mild_noise, "noise": noise, "share": share}

    def _overall(self, split: int, degradations: Sequence[Sequence[tuple[float, float]]]) -> list[list[float]]:
        """Return TopP&R precision and recall over all groups, for each degradation."""
        real = np.concatenate([self.data.encode(self.data.images[rows]) for rows, _ in self._halves(split)])
        topp = self._metrics(split, real.shape[1])["topp"]
        results = [topp(real, np.concatenate(self._features(split, by_group))) for by_group in degradations]
        return [[result.precision, result.recall] for result in results]

    def scores(self, split: int, by_group: Sequence[tuple[float, float]]) -> dict[str, float]:
        real = np.concatenate([self.data.encode(self.data.images[rows]) for rows, _ in self._halves(split)])
        groups = np.repeat(np.arange(self.n_groups), self.n)
        names = np.array(self.data.group_names)[groups]
        scores = compare(
            self._metrics(split, real.shape[1]),
            real,
            groups,
            np.concatenate(self._features(split, by_group)),
            groups,
            names=self.data.group_names,
            n=self.n,
            overall_sizes=[self.n] * self.n_groups,
            random_state=split,
        )
        return scores | {"mgo": mgo(names, names), "ego": ego(names, names)}

    def shown(self, by_group: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
        chosen = np.random.default_rng(0).permutation(self.n)[:_SHOWN]
        return np.stack([self._degraded(0, group, *by_group[group], only=chosen) for group in range(self.n_groups)])

    def facts(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "name": self.data.name,
            "groups": list(self.data.group_names),
            "settings": dataclasses.asdict(settings),
            "notes": {
                **self.data.facts,
                "samples": f"{self.n} real and {self.n} others, degraded, of each group; {settings.n_splits} splits",
                "TopP&R": f"{N_PROJECTIONS} Gaussian projections to {_PROJECTED_DIM} dimensions (the paper: 32), "
                f"{settings.n_bootstrap} bootstrap replicates",
            },
        }

    def _halves(self, split: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return for each group the rows of the real images, and of those that play the generated ones."""
        rng = np.random.default_rng(seed_of(split, "halves"))
        permuted = [rng.permutation(np.flatnonzero(self.data.groups == group)) for group in range(self.n_groups)]
        return [(rows[: self.n], rows[self.n : 2 * self.n]) for rows in permuted]

    def _features(self, split: int, by_group: Sequence[tuple[float, float]]) -> list[NDArray[np.float64]]:
        return [self.data.encode(self._degraded(split, group, *by_group[group])) for group in range(self.n_groups)]

    def _degraded(
        self, split: int, group: int, noise: float, share: float, only: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Return the other half of a group with noise and duplicates, or its positions ``only``."""
        _, rows = self._halves(split)[group]
        sources, flipped = duplicates(self.n, share, np.random.default_rng(seed_of(split, f"duplicates {group}")))
        if only is not None:
            sources, flipped = sources[only], flipped[only]
        images = self._noisy(rows[sources], noise)
        images[flipped] = images[flipped, ..., ::-1]
        return images

    def _noisy(self, rows: NDArray[np.int64], noise: float) -> NDArray[np.float32]:
        """Return images with noise, clipped and rounded to the files' levels; a row always gets the same noise."""
        images = self.data.images[rows]
        if noise:
            for image, row in zip(images, rows.tolist(), strict=True):
                image += noise * np.random.default_rng(seed_of(row, "noise")).standard_normal(image.shape, np.float32)
            levels = np.float32(self.data.n_levels)
            images = np.round(images.clip(0.0, 1.0) * levels) / levels
        return images

    def _metrics(self, split: int, dim: int) -> dict[str, Callable[..., Any]]:
        metrics = table_metrics(
            dim, _PROJECTED_DIM, n_bootstrap=self.settings.n_bootstrap, random_state=seed_of(split, "bootstrap")
        )
        return {name: metrics[name] for name in ("topp", "ipr")}


def duplicates(n: int, share: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Replace ``round(share * n)`` of n samples by copies of the others; at least one remains.

    Returns the sample that each position holds, ``(n,)``, and whether it is flipped there. Samples that remain are
    neither moved nor flipped. From the same generator, those that remain under a larger share are a subset of those
    under a smaller one.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.paper.table4 import duplicates
    >>> sources, flipped = duplicates(10, 0.8, np.random.default_rng(0))
    >>> len(set(sources.tolist())), int((sources == np.arange(10)).sum())
    (2, 2)
    """
    order, choices, coins = rng.permutation(n), rng.random(n), rng.random(n) < 0.5
    n_kept = max(n - round(share * n), 1)
    kept, replaced = order[:n_kept], order[n_kept:]
    sources, flipped = np.arange(n), np.zeros(n, dtype=np.bool_)
    sources[replaced] = kept[(choices[replaced] * n_kept).astype(np.int64)]
    flipped[replaced] = coins[replaced]
    return sources, flipped


def at_precision(
    scores: NDArray[np.float64], precision: float, noises: Sequence[float]
) -> tuple[float, NDArray[np.float64]]:
    """Find by interpolation the noise at which precision first falls below a value, and the scores there.

    Parameters
    ----------
    scores
        Precision and recall at every noise, or at the first ones, ``(noises, 2)``; linear in between.
    precision
        The value.
    noises
        Rising from 0.

    Raises
    ------
    ValueError
        Precision is below the value already at noise 0, or never.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.paper.table4 import at_precision
    >>> noise, scores = at_precision(np.array([[0.9, 0.8], [0.5, 0.4]]), 0.7, [0.0, 0.2])
    >>> round(noise, 6), scores.round(6).tolist()
    (0.1, [0.7, 0.6])
    """
    above = scores[:, 0] >= precision
    falls = np.flatnonzero(above[:-1] & ~above[1:])
    if not above[0] or not len(falls):
        raise ValueError(
            f"precision is {scores[0, 0]:.3f} without noise and at least {scores[:, 0].min():.3f} with noise up to "
            f"{noises[len(scores) - 1]:g}, so it cannot be brought to {precision:.3f}; pass another mild_precision, or "
            "other noises"
        )
    i = falls[0]
    part = (scores[i, 0] - precision) / (scores[i, 0] - scores[i + 1, 0])
    return float(noises[i] + part * (noises[i + 1] - noises[i])), scores[i] + part * (scores[i + 1] - scores[i])


def choose_degradation(
    grid: NDArray[np.float64],
    target: NDArray[np.float64],
    noises: Sequence[float],
    shares: Sequence[float],
    tolerance: float,
    *,
    least_noise: float,
) -> tuple[float, float]:
    """Find a noise and the largest share of duplicates that give the target's precision and nearly its recall.

    Parameters
    ----------
    grid
        Precision and recall at every noise and share, ``(noises, shares, 2)``; linear between noises.
    target
        Precision and recall to find.
    noises, shares
        Rising from 0.
    tolerance
        Accepted difference in recall; if it is larger for all shares, the share with the smallest is taken.
    least_noise
        Shares that need less noise for the precision are left out.

    Raises
    ------
    ValueError
        Without duplicates, no noise gives the precision, or one below ``least_noise`` does.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.paper.table4 import choose_degradation
    >>> grid = np.array([[[1.0, 0.80], [0.75, 0.50]], [[0.5, 0.80], [0.25, 0.50]]])
    >>> choose_degradation(grid, np.array([0.75, 0.79]), [0.0, 0.5], [0.0, 0.5], 0.01, least_noise=0.1)
    (0.25, 0.0)
    """
    found: list[tuple[float, float, float]] = []
    for share, scores in zip(shares, grid.swapaxes(0, 1), strict=True):
        try:
            noise, at_noise = at_precision(scores, target[0], noises)
        except ValueError:
            if not found:
                raise
            continue  # so many duplicates lower precision too far even without noise
        if noise >= least_noise:
            found.append((noise, share, float(abs(at_noise[1] - target[1]))))
        elif not found:
            raise ValueError(
                f"noise of {noise:.3g} on one group alone gives the precision of Example 1, {target[0]:.3f}, which is "
                f"less than least_noise={least_noise:.3g}; pass another mild_precision"
            )
    alike = [candidate for candidate in found if candidate[2] <= tolerance]
    noise, share, _ = alike[-1] if alike else min(found, key=lambda candidate: candidate[2])
    return noise, share
