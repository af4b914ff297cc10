"""The paper's Table 4: samples degraded in two ways, with similar global scores but different scores by group.

As in the paper, the samples are of an unconditional diffusion model, filtered to the proportions of its data (MGO).
Without a model, real images play them. Example 1 adds mild noise to all groups and replaces a fifth of each by copies.
Example 2 degrades the smallest group only: it keeps a few samples with strong noise, copied many times.
``table4_report`` makes text and a figure of the results.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from egtmetrics import ego, mgo
from egtmetrics._atomic import write_whole
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_number
from egtmetrics.oracles import group_indices
from egtmetrics.paper import table1
from egtmetrics.paper._stages import (
    N_PROJECTIONS,
    cached,
    check_counts,
    claim,
    compare,
    projected_dim,
    seed_of,
    table_metrics,
)
from egtmetrics.paper.datasets import ImageData
from egtmetrics.paper.table4_report import EXAMPLES

UNDEGRADED = "As they are"
"""Instead of an example: the samples before they are degraded."""

_SHOWN = 20
"""Samples of each group in the figure."""
_FINE = 40
"""Points between two measured strengths of noise, where the search interpolates."""

Degradation = tuple[float, float]
"""Of one group: standard deviation of the noise, share of samples that are replaced by copies."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table4Settings:
    """Size of the experiment, and its degradations. An output folder belongs to one."""

    model: table1.Table1Settings | None = None
    """Of the model whose samples are degraded, trained as Table 1 pretrains: its network, ``pretrain_steps``, ``ratio``
    and ``n_real``, of seed 0. None degrades real images."""
    flip: bool = True
    """Whether copies are flipped horizontally with probability 1/2, as in the paper. Not for digits: a flipped digit is
    another shape, hence no copy but a bad sample."""
    n_splits: int = 20
    """Repetitions, each with its own choice of images, noise, copies and bootstrap draws."""
    n_search_splits: int = 3
    """Further repetitions, on which the degradations are searched."""
    max_samples: int = 1000
    """Most real images, and most degraded ones, of each group."""
    mild_share: float = 0.2
    """Share of copies in Example 1; the paper's."""
    noises: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45)
    """Standard deviations of the noise that the search measures, in units of the range of levels; it interpolates
    between them."""
    distinct: tuple[int, ...] = (6, 8, 10, 12, 15, 20, 30, 60)
    """How many different samples Example 2 may leave of its group, in the order in which the search tries them."""
    tolerance: float = 0.01
    """Difference in overall precision and in overall recall that the search accepts."""
    n_bootstrap: int = 1000
    """Of the confidence band of TopP&R."""

    def __post_init__(self) -> None:
        check_counts(self)
        check_number(self.mild_share, "mild_share", minimum=0.0, below=1.0)
        check_number(self.tolerance, "tolerance", minimum=0.0)
        for name, least in (("noises", 0.0), ("distinct", 1)):
            values = getattr(self, name)
            if len(values) < 2 or values[0] < least or list(values) != sorted(set(values)):
                raise ValueError(f"{name}={values} does not rise from {least} or more; pass two numbers or more")


FULL = Table4Settings()
QUICK = Table4Settings(n_splits=5, n_bootstrap=200)
MODELS = {
    "digits": dataclasses.replace(table1.QUICK, n_seeds=1, half_life=50_000.0),
    "emoji": dataclasses.replace(table1.EMOJI_QUICK, n_seeds=1),
    "ffhq": table1.PAPER["ffhq64-vp"],
}
"""Models by data. On digits one trains for half a minute; for FFHQ, pass a checkpoint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table4:
    """What :func:`reproduce_table4` returns."""

    scores: pd.DataFrame
    """One row per split and per example or "As they are", with ``noise`` and ``share`` of the smallest group, scores
    such as ``topp.precision/all`` and ``ipr.recall/man``, disparities such as ``topp.delta_p``, ``mgo`` and ``ego``."""
    samples: dict[str, NDArray[np.float32]]
    """Of each example in the first split, random samples of each group: ``(groups, 20, channels, height, width)``."""
    facts: dict[str, Any]
    """What was measured, in which features, and which degradations the search found."""


def reproduce_table4(
    data: ImageData,
    out: str | Path,
    *,
    settings: Table4Settings = FULL,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Table4:
    r"""Degrade samples in two ways with similar global precision and recall, and compare the groups.

    Of each group there are n real images and n samples. The samples are generated by an unconditional model and
    rejected until, in the eyes of an oracle, they have the proportions of the training data; the real images were held
    out of its training. Without a model, one half of the real images plays the samples of the other half.

    An example with noise s and share r turns the samples of a group into

    .. math:: x_i' = \text{round}(\text{clip}(x_i + s \epsilon_i)), \quad \epsilon_i \sim N(0, I),

    and then replaces a random share r of them by copies of the others, flipped with probability 1/2 if
    ``settings.flip``. Example 1 has r = ``mild_share`` in every group and some mild s. Example 2 degrades the smallest
    group only, which keeps few different samples: the fewest of ``distinct`` for which some s, stronger than in
    Example 1, brings the global TopP&R precision and recall within ``tolerance`` of those of Example 1 with some mild
    s. If there are none, the fewest with the closest scores.

    Parameters
    ----------
    data
        Images of two groups or more, from :func:`load_image_data`.
    out
        Folder, made if missing, that holds ``settings.json``, the model, every finished stage, and ``scores.csv``. An
        interrupted run resumes from it.
    settings
        Size of the experiment.
    checkpoint
        A file of :func:`convert_checkpoint`, instead of training a model.
    device
        Of the model.
    progress
        Show a progress bar, which counts evaluations.

    Returns
    -------
    Table4
        Scores, images and facts, for ``egtmetrics.paper.table4_report``.

    Raises
    ------
    ValueError
        ``out`` was begun with other settings or data; a group is too small; a checkpoint without a model.

    Notes
    -----
    Why copies lower recall: a place that many copies share has a density that varies much from one bootstrap replicate
    to the next, so the band is wide and excludes the places with few samples. Noise spreads the copies, which keeps the
    band of all groups together narrow, where the group alone has too few places to cover the real images.

    The search uses other repetitions than the reported scores, but the same model. Nothing is fitted to the scores of
    a group, nor to the precision and recall by 5 nearest neighbours. Noise is drawn once for each sample, so the
    examples differ in its strength only.

    Cost: a training and at most ``n_search_splits * len(noises) * (1 + len(distinct))`` evaluations for the search.

    References
    ----------
    The paper, appendix B.1, Figure 4 and Table 4. It gives neither the strengths of the noise nor the share of
    duplicates in Example 2.

    Examples
    --------
    >>> from egtmetrics.paper.datasets import load_image_data
    >>> from egtmetrics.paper.table4 import QUICK, reproduce_table4
    >>> table = reproduce_table4(load_image_data("digits"), "table4-digits", settings=QUICK)  # doctest: +SKIP
    >>> table.scores.groupby("example")["topp.precision/all"].mean()  # doctest: +SKIP
    """
    if checkpoint is not None and settings.model is None:
        raise ValueError("a checkpoint is of a model, but settings.model is None; pass the settings of the model")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(np.ascontiguousarray(data.images).tobytes() + data.groups.tobytes()).hexdigest()[:16]
    start = None if checkpoint is None else hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:16]
    described = {**data.facts, "images": digest, "checkpoint": start}
    claim(folder / "settings.json", {**dataclasses.asdict(settings), **described})
    if settings.model is None:
        pool = _halved(data)
    else:
        pool = _generated(folder / "model", data, settings.model, checkpoint, device, progress)
    experiment = _Experiment(data, pool, settings)
    rows: list[dict[str, Any]] = []
    with tqdm(total=settings.n_splits * 3, unit="evaluation", disable=not progress) as bar:

        def stage(name: str, compute: Callable[[], Any]) -> Any:
            bar.set_description(name)
            content = cached(folder / f"{name}.json", compute)
            bar.update()
            return content

        found = experiment.search(stage)
        bar.total = bar.n + settings.n_splits * 3
        degradations = {
            UNDEGRADED: experiment.mild(0.0, share=0.0),
            EXAMPLES[0]: experiment.mild(found["mild_noise"]),
            EXAMPLES[1]: experiment.strong(found["noise"], found["distinct"]),
        }
        for split in range(settings.n_splits):
            for example, by_group in degradations.items():
                scores = stage(f"split{split}-{example}", functools.partial(experiment.scores, split, by_group))
                noise, share = by_group[experiment.worst]
                rows.append({"split": split, "example": example, "noise": noise, "share": share, **scores})
    table = Table4(
        scores=pd.DataFrame(rows),
        samples={example: experiment.shown(degradations[example]) for example in EXAMPLES},
        facts={**experiment.facts(), "search": found},
    )
    write_whole(folder / "scores.csv", table.scores.to_csv(index=False))
    return table


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pool:
    """Real images, and the samples to compare with them."""

    real: NDArray[np.float32]
    real_groups: NDArray[np.int64]
    samples: NDArray[np.float32]
    sample_groups: NDArray[np.int64]
    proportions: NDArray[np.float64]
    halved: bool
    """Whether the samples are the real images, of which a repetition takes disjoint halves."""
    facts: Mapping[str, str]


def _halved(data: ImageData) -> _Pool:
    counts = np.bincount(data.groups, minlength=len(data.group_names))
    return _Pool(
        real=data.images,
        real_groups=data.groups,
        samples=data.images,
        sample_groups=data.groups,
        proportions=counts / counts.sum(),
        halved=True,
        facts={"model": "none: real images play the samples, so this shows what global scores can hide, and nothing "
               "about any model"},
    )  # fmt: skip


def _generated(
    folder: Path,
    data: ImageData,
    settings: table1.Table1Settings,
    checkpoint: str | Path | None,
    device: str,
    progress: bool,
) -> _Pool:
    """Train or load an unconditional model, or resume that, and draw samples at MGO, which are kept in a file."""
    split = table1.split_images(data, 0, settings.n_real, settings.ratio)
    features = functools.cache(lambda: data.encode(data.images))
    stage = table1.Stage(folder, 0, data, split, features, settings, torch.device(device), progress)
    path = folder / "samples.npz"
    if not path.exists():
        if checkpoint is None:
            model = stage.pretrain()
        else:
            model = table1.load_base(checkpoint, settings.network, data.images.shape[1:]).to(device)
        drawn = stage.sample("Pretrain", "MGO", model)
        levels = np.round(np.stack([image for image, _ in drawn.samples]) * data.n_levels).astype(np.uint8)
        file = io.BytesIO()
        np.savez(file, levels=levels, groups=group_indices(drawn.groups, data.group_names), draws=drawn.n_draws)
        write_whole(path, file.getvalue())
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            levels, groups, n_draws = kept["levels"], kept["groups"], int(kept["draws"])
    except Exception as error:  # also those of archives
        raise ValueError(f"{path} is damaged ({error}); delete it to generate the samples again") from error
    oracle = stage.cached("oracle", stage.describe_oracle)
    errors = zip(oracle["error_by_group"], data.group_names, strict=True)
    listed = ", ".join(f"{100 * rate:.1f} % of {name}" for rate, name in errors)
    trained = np.bincount(data.groups[split.train], minlength=len(data.group_names))
    begun = f"{settings.pretrain_steps} steps of {settings.batch_size}" if checkpoint is None else "a checkpoint"
    return _Pool(
        real=data.images[split.held_out],
        real_groups=data.groups[split.held_out],
        samples=(levels / np.float32(data.n_levels)).astype(np.float32),
        sample_groups=groups,
        proportions=stage.proportions["MGO"],
        halved=False,
        facts={
            "model": f"unconditional, {begun}, on {' and '.join(map(str, trained))} images of the groups; one model, "
            "so the spread says nothing of other models",
            "rejection": f"{len(groups)} samples kept of {n_draws}, at the proportions "
            f"{' to '.join(f'{100 * share:.0f}' for share in stage.proportions['MGO'])} (MGO)",
            "oracle": f"mislabels {listed} (cross-validated on real images; on generated ones it may be more)"
            + (f"; it warns: {oracle['warning']}" if oracle["warning"] else ""),
        },
    )


class _Experiment:
    def __init__(self, data: ImageData, pool: _Pool, settings: Table4Settings) -> None:
        self.data, self.pool, self.settings = data, pool, settings
        self.n_groups = len(data.group_names)
        smallest = min(
            int(np.bincount(groups, minlength=self.n_groups).min()) for groups in (pool.real_groups, pool.sample_groups)
        )
        self.n = min(smallest // 2 if pool.halved else smallest, settings.max_samples)
        """Number of real images, and of samples, of each group."""
        if self.n < 2 * settings.distinct[0] or self.n <= 5 * projected_dim(self.n):
            raise ValueError(
                f"there are {self.n} images of the smallest group to compare, too few for TopP&R in "
                f"{projected_dim(self.n)} dimensions or for distinct={settings.distinct[0]}; pass more images"
            )
        self.worst = int(pool.proportions.argmin())
        """The group that Example 2 degrades."""
        self.sizes = [round(self.n * share / pool.proportions.max()) for share in pool.proportions]
        """Samples of each group in the overall scores, at MGO."""
        self._features = functools.lru_cache(maxsize=4 * self.n_groups)(self._encoded)

    def mild(self, noise: float, *, share: float | None = None) -> list[Degradation]:
        """Noise and share of copies for each group in Example 1."""
        return [(noise, self.settings.mild_share if share is None else share)] * self.n_groups

    def strong(self, noise: float, distinct: int) -> list[Degradation]:
        """The same for Example 2."""
        undegraded = self.mild(0.0, share=0.0)
        return [(noise, 1.0 - distinct / self.n) if i == self.worst else one for i, one in enumerate(undegraded)]

    def search(self, stage: Callable[[str, Callable[[], Any]], Any]) -> dict[str, Any]:
        """Find the noise of Example 1, and noise and number of different samples of Example 2."""
        settings = self.settings

        def measure(name: str, degrade: Callable[[float], list[Degradation]]) -> NDArray[np.float64]:
            """Return overall precision and recall at every noise, means over splits, ``(noises, 2)``."""
            return np.array(
                [
                    np.mean(
                        [
                            stage(
                                f"search{split}-{name}-{noise:g}",
                                functools.partial(self._overall, split, degrade(noise)),
                            )
                            for split in range(settings.n_splits, settings.n_splits + settings.n_search_splits)
                        ],
                        axis=0,
                    )
                    for noise in settings.noises
                ]
            )

        mild = measure(EXAMPLES[0], self.mild)
        best: dict[str, Any] = {}
        for distinct in settings.distinct:
            if 2 * distinct > self.n:
                break
            strong = measure(f"{EXAMPLES[1]}-{distinct}", functools.partial(self.strong, distinct=distinct))
            mild_noise, noise, distance = closest(mild, strong, settings.noises)
            if not best or distance < best["distance"]:
                best = {"mild_noise": mild_noise, "noise": noise, "distinct": distinct, "distance": distance}
            if distance <= settings.tolerance:
                break
        return best

    def _overall(self, split: int, by_group: Sequence[Degradation]) -> list[float]:
        """Return TopP&R precision and recall over all groups at MGO."""
        real = [self._features(split, group, None)[:size] for group, size in enumerate(self.sizes)]
        samples = [self._features(split, group, by_group[group])[:size] for group, size in enumerate(self.sizes)]
        result = self._metrics(split, real[0].shape[1])["topp"](np.concatenate(real), np.concatenate(samples))
        return [result.precision, result.recall]

    def scores(self, split: int, by_group: Sequence[Degradation]) -> dict[str, float]:
        real = np.concatenate([self._features(split, group, None) for group in range(self.n_groups)])
        groups = np.repeat(np.arange(self.n_groups), self.n)
        scores = compare(
            self._metrics(split, real.shape[1]),
            real,
            groups,
            np.concatenate([self._features(split, group, by_group[group]) for group in range(self.n_groups)]),
            groups,
            names=self.data.group_names,
            n=self.n,
            overall_sizes=self.sizes,
            random_state=split,
        )
        names = np.repeat(self.data.group_names, self.sizes)
        return scores | {"mgo": mgo(names, names), "ego": ego(names, names)}

    def shown(self, by_group: Sequence[Degradation]) -> NDArray[np.float32]:
        chosen = np.random.default_rng(0).permutation(self.n)[:_SHOWN]
        return np.stack([self._degraded(0, group, by_group[group])[chosen] for group in range(self.n_groups)])

    def facts(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "name": self.data.name,
            "groups": list(self.data.group_names),
            "degraded": self.data.group_names[self.worst],
            "settings": dataclasses.asdict(settings),
            "notes": {
                **self.data.facts,
                **self.pool.facts,
                "samples": f"{self.n} real and {self.n} degraded ones of each group, of which "
                f"{' and '.join(map(str, self.sizes))} in the scores over all groups; {settings.n_splits} splits",
                "TopP&R": f"{N_PROJECTIONS} Gaussian projections to {projected_dim(self.n)} dimensions (the paper: 32)"
                f", {settings.n_bootstrap} bootstrap replicates",
            },
        }

    def _rows(self, split: int, group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of the real images and of the samples of a group; disjoint if both are real."""
        rng = np.random.default_rng(seed_of(split, f"rows {group}"))
        real = rng.permutation(np.flatnonzero(self.pool.real_groups == group))
        if self.pool.halved:
            return real[: self.n], real[self.n : 2 * self.n]
        return real[: self.n], rng.permutation(np.flatnonzero(self.pool.sample_groups == group))[: self.n]

    def _encoded(self, split: int, group: int, degradation: Degradation | None) -> NDArray[np.float64]:
        """Return the features of a group's samples, or of its real images."""
        if degradation is None:
            return self.data.encode(self.pool.real[self._rows(split, group)[0]])
        return self.data.encode(self._degraded(split, group, degradation))

    def _degraded(self, split: int, group: int, degradation: Degradation) -> NDArray[np.float32]:
        """Return the samples of a group with noise and copies."""
        noise, share = degradation
        _, rows = self._rows(split, group)
        rng = np.random.default_rng(seed_of(split, f"degraded {group}"))
        sources, flipped = duplicates(self.n, share, rng)
        images = self._noisy(self.pool.samples[rows], noise, rng)[sources]
        if self.settings.flip:
            images[flipped] = images[flipped, ..., ::-1]
        return images

    def _noisy(self, images: NDArray[np.float32], noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return images with noise, clipped and rounded to the files' levels; draws do not depend on its strength."""
        if not noise:
            return images
        levels = np.float32(self.data.n_levels)
        noisy = images + np.float32(noise) * rng.standard_normal(images.shape, np.float32)
        rounded: NDArray[np.float32] = np.round(noisy.clip(0.0, 1.0) * levels) / levels
        return rounded

    def _metrics(self, split: int, dim: int) -> dict[str, Callable[..., Any]]:
        metrics = table_metrics(
            dim, projected_dim(self.n), n_bootstrap=self.settings.n_bootstrap, random_state=seed_of(split, "bootstrap")
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


def closest(
    mild: NDArray[np.float64], strong: NDArray[np.float64], noises: Sequence[float]
) -> tuple[float, float, float]:
    """Find the two strengths of noise, the second one larger, at which two curves of scores come closest.

    Parameters
    ----------
    mild, strong
        Precision and recall at every noise, ``(noises, 2)``; linear in between.
    noises
        Rising.

    Returns
    -------
    mild_noise, noise, distance
        The distance is the larger of the differences in precision and in recall.

    Notes
    -----
    Of a grid with 40 steps between two measured noises. Ties go to the lowest noises.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.paper.table4 import closest
    >>> mild, strong = np.array([[0.9, 0.6], [0.5, 0.6]]), np.array([[0.9, 0.4], [0.6, 0.8]])
    >>> [round(value, 3) for value in closest(mild, strong, [0.0, 0.4])]
    [0.15, 0.2, 0.0]
    """
    knots = np.arange(len(noises), dtype=np.float64)
    fine = np.linspace(0.0, knots[-1], _FINE * (len(noises) - 1) + 1)
    strengths = np.interp(fine, knots, noises)
    first, second = (
        np.stack([np.interp(fine, knots, scores[:, column]) for column in (0, 1)], axis=1) for scores in (mild, strong)
    )
    distances = np.abs(first[:, None] - second[None]).max(axis=2)
    distances[strengths[:, None] >= strengths[None]] = np.inf
    i, j = np.unravel_index(int(distances.argmin()), distances.shape)
    return float(strengths[i]), float(strengths[j]), float(distances[i, j])
