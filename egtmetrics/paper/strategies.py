"""Beyond the paper: which ways to train improve the worse group, and what do they cost the better one?

Two groups, one of which has few training samples: handwritten digits, or a mixture of normals, whose best denoiser is
known. Every strategy trains a diffusion model from the same first weights, on the same batches and noise, and is
stopped early by the same validation samples. The stages for every seed are

    draw -> specialists -> their validation losses, the reference -> for every strategy: train, sample, score

Each is kept in the output folder, from which an interrupted run resumes. ``strategies_report`` makes text and a figure
of them.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.svm import SVC
from torch import Tensor, nn

from egtmetrics import improved_precision_recall
from egtmetrics._atomic import write_whole
from egtmetrics._errors import listed
from egtmetrics._progress import tqdm
from egtmetrics.oracles import LabelOracle, Oracle, group_indices
from egtmetrics.oracles.labels import names_of
from egtmetrics.paper._stages import N_NEIGHBORS, cached, check_counts, claim, compare, seed_of
from egtmetrics.paper.datasets import load_image_data
from egtmetrics.training.diffusion import Denoiser, EDMPreconditioning, Preconditioning, heun_sample
from egtmetrics.training.early_stop import train_until_best
from egtmetrics.training.held_out import held_out_losses
from egtmetrics.training.losses import GroupDROLoss, GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss
from egtmetrics.training.mlp import ResidualMLP
from egtmetrics.training.noise import NoiseLevels
from egtmetrics.training.resumable import seeded
from egtmetrics.training.sampling import rejection_sample
from egtmetrics.training.specialists import Specialists, train_specialists

PLAIN = "Plain"
MORE_DATA = "Plain, more data"
"""No strategy but a yardstick: plain training with more samples of the minority."""
SPECIALISTS = "Specialists"
TUNED = "Specialists from plain"
"""Specialists that begin with what plain training has learnt of both groups."""
_CONDITIONAL = (SPECIALISTS, TUNED)
REAL = "Real"
"""Instead of a method: other real samples in place of generated ones."""

_KERNEL_GAMMA = 0.25
"""Of the oracle's kernel, for pixels in [0, 1]."""
_FEWEST = 2 * N_NEIGHBORS
"""Generated samples of a group without which nothing is said about its precision and recall."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrategySettings:
    """Size of the study; an output folder belongs to one. The command line has :data:`FULL` and :data:`QUICK`."""

    n_seeds: int = 10
    """Repetitions, each with its own samples, first weights, batches and noise, which all methods share."""
    n_majority: int = 500
    n_minority: int = 100
    """Training samples of each group."""
    n_more: int = 100
    """Training samples of the minority that :data:`MORE_DATA` has besides."""
    n_validation: int = 100
    """Samples of each group to stop by, to measure the reference on, and to weight by."""
    n_real: int = 300
    """Held-out samples of each group, for the scores alone."""
    width: int = 96
    n_blocks: int = 2
    """Of :class:`ResidualMLP`."""
    n_steps: int = 4000
    """Most steps of a training; of specialists, of each group."""
    look_every: int = 200
    patience: int = 3
    """Of :func:`train_until_best`."""
    batch_size: int = 128
    learning_rate: float = 5e-3
    n_bins: int = 4
    """Noise levels of the strategies."""
    step_size: float = 0.05
    """Of group DRO."""
    mean_share: float = 0.5
    """Of the strategy that is half plain."""
    sampler_steps: int = 18

    def __post_init__(self) -> None:
        check_counts(self)


FULL = StrategySettings()
QUICK = StrategySettings(n_seeds=3, n_steps=500, look_every=50)


class Part(NamedTuple):
    """Some samples ``(n, d)`` and their groups ``(n,)``: 0, the majority, or 1."""

    x: NDArray[np.float64]
    groups: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """The samples of one seed; no sample is in two parts, except that ``known`` is all that is not held out."""

    training: Part
    more: Part
    """More of the minority."""
    validation: Part
    held_out: Part
    known: Part
    oracle: Oracle


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyData:
    """What :func:`load_study_data` returns."""

    name: str
    group_names: tuple[str, ...]
    """Majority and minority."""
    draw: Callable[[int, StrategySettings], Draw]
    """Samples of a seed."""
    mean: float
    spread: float
    """(x - mean) / spread has about mean 0 and standard deviation 0.5, which EDM expects."""
    n_levels: int | None
    """Highest level of stored samples, which are integers divided by it; None for real numbers."""
    best: Denoiser | None
    """The denoiser with the lowest possible loss for each group, called with labels, if it is known."""
    facts: Mapping[str, str]

    def to_model(self, x: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor((x - self.mean) / self.spread, dtype=torch.float32)

    def to_samples(self, x: Tensor) -> NDArray[np.float64]:
        samples: NDArray[np.float64] = self.spread * x.double().numpy() + self.mean
        if self.n_levels is None:
            return samples
        return np.clip(np.round(self.n_levels * samples), 0, self.n_levels) / self.n_levels


def load_study_data(name: str) -> StudyData:
    """Return the data of that name.

    =========== ====================================================== =================================
    name        samples                                                groups, majority first
    =========== ====================================================== =================================
    ``digits``  scikit-learn's 1797 handwritten digits, 64 pixels      0-4 and 5-9
    ``mixture`` normals in 8 dimensions, fresh for every seed          4 wide ones, and 12 narrow ones
    =========== ====================================================== =================================

    The mixture is made so that losses mislead: no model gets a low loss on wide normals, while narrow ones have a low
    loss even for a model that knows them badly.

    Raises
    ------
    ValueError
        An unknown name.

    Examples
    --------
    >>> from egtmetrics.paper.strategies import QUICK, load_study_data
    >>> draw = load_study_data("mixture").draw(0, QUICK)
    >>> draw.training.x.shape, draw.held_out.x.shape
    ((600, 8), (600, 8))
    """
    if name not in DATA:
        raise ValueError(f"name={name!r} is unknown; expected one of {', '.join(DATA)}")
    return DATA[name]()


def _digits() -> StudyData:
    data = load_image_data("digits")
    x, names = data.encode(data.images), data.group_names

    def draw(seed: int, settings: StrategySettings) -> Draw:
        rng = np.random.default_rng([seed, 0])
        sizes = (settings.n_majority, settings.n_minority)
        parts: list[list[NDArray[np.int64]]] = []
        for group, n_training in enumerate(sizes):
            rows = rng.permutation(np.flatnonzero(data.groups == group))
            needed = [settings.n_real, settings.n_validation, n_training, settings.n_more * group]
            if sum(needed) > len(rows):
                raise ValueError(
                    f"{names[group]} has {len(rows)} images, but the settings ask for {sum(needed)}; pass smaller ones"
                )
            parts.append([*np.split(rows, np.cumsum(needed)), rows[settings.n_real :]])
        held_out, validation, training, more, _, known = (
            Part(x[rows], data.groups[rows]) for rows in map(np.concatenate, zip(*parts, strict=True))
        )
        machine = SVC(gamma=_KERNEL_GAMMA).fit(known.x, known.groups)
        oracle = LabelOracle(names, lambda samples: np.array(names)[machine.predict(samples)])
        return Draw(training=training, more=more, validation=validation, held_out=held_out, known=known, oracle=oracle)

    return StudyData(
        name="digits",
        group_names=names,
        draw=draw,
        mean=data.mean,
        spread=data.spread,
        n_levels=data.n_levels,
        best=None,
        facts=data.facts,
    )


class NormalMixture:
    r"""A mixture of isotropic normals, :math:`\sum_k N(\mu_k, s_k^2 I) / K` in every group, and its best denoiser.

    Parameters
    ----------
    means
        mu, ``(K, d)``.
    spreads
        s, ``(K,)``.
    group_of
        Group of each normal, ``(K,)``.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.paper.strategies import NormalMixture
    >>> mixture = NormalMixture(torch.zeros(1, 2), torch.ones(1), torch.zeros(1, dtype=torch.long))
    >>> mixture.expectation(torch.ones(1, 2), torch.tensor([1.0]), None)  # half way from the noisy sample to the mean
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """

    def __init__(self, means: Tensor, spreads: Tensor, group_of: Tensor) -> None:
        self.means, self.spreads, self.group_of = means.double(), spreads.double(), group_of

    def sample(self, group: int, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw ``(n, d)`` samples of a group."""
        which = rng.choice(np.flatnonzero(self.group_of.numpy() == group), size=n)
        noise = rng.standard_normal((n, self.means.shape[1]))
        samples: NDArray[np.float64] = self.means.numpy()[which] + self.spreads.numpy()[which, None] * noise
        return samples

    def log_densities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Log-density of every normal at noisy samples, ``(n, K)``, up to a constant."""
        variances = self.spreads**2 + sigma.double()[:, None] ** 2
        squares = ((x.double()[:, None] - self.means) ** 2).sum(dim=2)
        return -0.5 * (squares / variances + x.shape[1] * variances.log())

    def expectation(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Expectation of the clean sample given the noisy one and, with labels, its group; ``(n, d)`` float64."""
        logits = self.log_densities(x, sigma)
        if labels is not None:
            logits = logits.masked_fill(labels[:, None] != self.group_of, -torch.inf)
        shares = logits.softmax(dim=1)
        kept = self.spreads**2 / (self.spreads**2 + sigma.double()[:, None] ** 2)
        means: Tensor = (shares * (1.0 - kept)) @ self.means + (shares * kept).sum(dim=1)[:, None] * x.double()
        return means


class BestDenoiser(Denoiser):
    """The denoiser with the lowest loss of all: the expectation of the clean sample."""

    def __init__(self, mixture: NormalMixture, preconditioning: Preconditioning) -> None:
        super().__init__(nn.Identity(), preconditioning)
        self.mixture = mixture

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.mixture.expectation(x, sigma, labels).to(x.dtype)


def _mixture() -> StudyData:
    rng = np.random.default_rng(0)  # one mixture for all seeds
    n_normals, names = (4, 12), ("wide", "narrow")
    mixture = NormalMixture(
        torch.as_tensor(0.45 * rng.standard_normal((sum(n_normals), 8))),
        torch.as_tensor(np.repeat([0.3, 0.08], n_normals)),
        torch.as_tensor(np.repeat([0, 1], n_normals)),
    )

    def read(samples: NDArray[np.float64]) -> NDArray[np.object_]:
        """The more probable group, if both are equally probable beforehand."""
        shares = mixture.log_densities(torch.as_tensor(samples), torch.zeros(len(samples)))
        of_group = [
            shares[:, mixture.group_of == group].logsumexp(dim=1) - np.log(n) for group, n in enumerate(n_normals)
        ]
        return names_of(torch.stack(of_group, dim=1).argmax(dim=1).numpy(), names)

    def draw(seed: int, settings: StrategySettings) -> Draw:
        rng = np.random.default_rng([seed, 1])

        def part(*sizes: int) -> Part:
            x = np.concatenate([mixture.sample(group, n, rng) for group, n in enumerate(sizes)])
            return Part(x, np.repeat(np.arange(len(sizes)), sizes))

        return Draw(
            training=part(settings.n_majority, settings.n_minority),
            more=part(0, settings.n_more),
            validation=part(settings.n_validation, settings.n_validation),
            held_out=part(settings.n_real, settings.n_real),
            known=part(settings.n_real, settings.n_real),
            oracle=LabelOracle(names, read),
        )

    return StudyData(
        name="mixture",
        group_names=names,
        draw=draw,
        mean=0.0,
        spread=1.0,
        n_levels=None,
        best=BestDenoiser(mixture, EDMPreconditioning()),
        facts={
            "data": "mixtures of isotropic normals in 8 dimensions; wide: 4 of standard deviation 0.3, narrow: 12 of "
            "0.08; means drawn once from a normal of standard deviation 0.45",
            "groups": "made so that the group with the larger loss is the one that is learnt better",
            "features": "the samples; groups of generated ones by the more probable density",
        },
    )


DATA: dict[str, Callable[[], StudyData]] = {"digits": _digits, "mixture": _mixture}
"""By name, what :func:`load_study_data` calls."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategies:
    """What :func:`compare_strategies` returns."""

    runs: pd.DataFrame
    """One row per seed and method, whose ``kind`` is plain, yardstick, strategy or real.

    It has k-nearest-neighbour ``ipr.precision/<group>`` and ``ipr.recall/<group>`` (and of ``all``, as many of each
    group), ``ipr.delta_pr``, held-out losses ``loss/<group>``, ``draws_per_sample`` of rejection, and
    ``stopped_early``, 1 if the validation loss rose before the last step. Where the best denoiser is known, losses are
    those above its own. "Real" has other real samples in place of generated ones."""
    facts: dict[str, str]


def compare_strategies(
    out: str | Path,
    data: StudyData,
    *,
    settings: StrategySettings = FULL,
    methods: Sequence[str] | None = None,
    progress: bool = False,
) -> Strategies:
    """Train, sample and score strategies, or resume where that stopped.

    Parameters
    ----------
    out
        Folder, made if missing, for ``settings.json``, ``seed<n>/*.json`` and the results as ``runs.csv``. Networks are
        removed once they are scored.
    data
        Of :func:`load_study_data`.
    settings
        Size of the study.
    methods
        Some of :data:`METHODS`, beside plain training; by default all. More can be added later in the same folder.
    progress
        Show a progress bar, which counts models.

    Returns
    -------
    Strategies
        Scores and facts, for ``egtmetrics.paper.strategies_report``.

    Raises
    ------
    ValueError
        ``out`` has other settings or data, or holds a damaged file; an unknown method; there are too few samples of a
        group.
    RuntimeError
        A model generates too few samples of a group.

    Examples
    --------
    >>> from egtmetrics.paper.strategies import QUICK, compare_strategies, load_study_data
    >>> study = compare_strategies("study", load_study_data("digits"), settings=QUICK)  # doctest: +SKIP
    >>> study.runs.groupby("method", sort=False)["ipr.delta_pr"].mean()  # doctest: +SKIP
    """
    if unknown := [name for name in methods or () if name not in METHODS]:
        raise ValueError(f"there is no method {listed(map(repr, unknown))}; there are {', '.join(map(repr, METHODS))}")
    chosen = [name for name in METHODS if methods is None or name == PLAIN or name in methods]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder / "settings.json", {**dataclasses.asdict(settings), "data": data.name})
    runs: list[dict[str, Any]] = []
    errors: list[list[float]] = []
    with tqdm(total=settings.n_seeds * len(chosen), unit="model", disable=not progress) as bar:
        for seed in range(settings.n_seeds):
            stage = _Seed(folder / f"seed{seed}", seed, data, settings)
            errors.append(list(stage.confusion.error_by_group.values()))
            for method in chosen:
                bar.set_description(f"seed {seed}, {method}")
                runs.append(cached(stage.folder / f"{method}.json", functools.partial(stage.score, method)))
                bar.update()
            runs.append(cached(stage.folder / f"{REAL}.json", stage.score_real))
            shutil.rmtree(stage.models, ignore_errors=True)
    table = pd.DataFrame(runs)
    write_whole(folder / "runs.csv", table.to_csv(index=False))
    errors_by_group = ", ".join(
        f"{100 * error:.1f} % of {name}" for name, error in zip(data.group_names, np.mean(errors, axis=0), strict=True)
    )
    oracle = f"mislabels {errors_by_group} (held-out samples, mean over seeds; of generated ones it may be more)"
    return Strategies(runs=table, facts={**data.facts, "oracle": oracle, **_facts(settings, data)})


class _Seed:
    """The stages of one seed."""

    def __init__(self, folder: Path, seed: int, data: StudyData, settings: StrategySettings) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.models = folder, folder / "models"
        self.seed, self.data, self.settings = seed, data, settings
        self.draw = data.draw(seed, settings)
        held_out = self.draw.held_out
        self.confusion = self.draw.oracle.measure_error(held_out.x, np.array(data.group_names)[held_out.groups])
        with seeded(seed, torch.device("cpu")):
            network = ResidualMLP(self.draw.training.x.shape[1], width=settings.width, n_blocks=settings.n_blocks)
        self.base = Denoiser(network, EDMPreconditioning())
        self.noise = NoiseLevels(self.base.preconditioning.law, n_bins=settings.n_bins)
        self.training: dict[str, Any] = {
            "n_steps": settings.n_steps,
            "look_every": settings.look_every,
            "patience": settings.patience,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "random_state": seed_of(seed, "training"),  # the same batches and noise for all methods
        }

    @functools.cached_property
    def specialists(self) -> Specialists:
        return self._specialists(SPECIALISTS, self.base)

    def _specialists(self, method: str, base: Denoiser) -> Specialists:
        return train_specialists(
            base,
            *self._tensors(self.draw.training),
            *self._tensors(self.draw.validation),
            self.noise,
            folder=self.models / method,
            **self.training,
        )

    @functools.cached_property
    def reference(self) -> list[list[float]]:
        """What each group can reach at each level: the validation losses of its specialist."""

        def measure() -> list[list[float]]:
            x, groups = self._tensors(self.draw.validation)
            seed = seed_of(self.seed, "reference")
            specialists = self.specialists.denoiser
            losses = held_out_losses(specialists, x, groups, self.noise, labels=groups, random_state=seed)
            means: list[list[float]] = losses.means.tolist()
            return means

        kept: list[list[float]] = cached(self.folder / "reference.json", measure)
        return kept

    @property
    def proportions(self) -> NDArray[np.float64]:
        """Of the groups in the training samples."""
        shares: NDArray[np.float64] = np.bincount(self.draw.training.groups) / len(self.draw.training.groups)
        return shares

    def train(self, method: str) -> tuple[Denoiser, bool]:
        """Return a model, and whether its losses rose before the last step."""
        if method in _CONDITIONAL:
            found = self.specialists if method == SPECIALISTS else self._specialists(method, self.train(PLAIN)[0])
            return found.denoiser, all(stop.step < self.settings.n_steps for stop in found.stops)
        self.models.mkdir(exist_ok=True)
        parts = (self.draw.training, self.draw.more) if method == MORE_DATA else (self.draw.training,)
        x, groups = (torch.cat(values) for values in zip(*map(self._tensors, parts), strict=True))
        stop = train_until_best(
            self.base,
            x,
            groups,
            functools.partial(_LOSSES[method], self),
            self.noise,
            *self._tensors(self.draw.validation),
            checkpoint=self.models / f"{method}.pt",
            **self.training,
        )
        model = copy.deepcopy(self.base).eval()
        model.load_state_dict(stop.weights)
        return model, stop.step < self.settings.n_steps

    def score(self, method: str) -> dict[str, Any]:
        model, stopped_early = self.train(method)
        x, groups = self._tensors(self.draw.held_out)
        measure = functools.partial(
            held_out_losses, data=x, groups=groups, noise=self.noise, random_state=seed_of(self.seed, "losses")
        )
        losses = measure(model, labels=groups if method in _CONDITIONAL else None).means
        if self.data.best is not None:
            losses = losses - measure(self.data.best, labels=groups).means
        samples = self._sample(method, model)
        return {
            "seed": self.seed,
            "method": method,
            "kind": {PLAIN: "plain", MORE_DATA: "yardstick"}.get(method, "strategy"),
            **self._compare(samples.samples, group_indices(samples.groups, self.data.group_names)),
            **{
                f"loss/{name}": loss
                for name, loss in zip(self.data.group_names, losses.mean(dim=1).tolist(), strict=True)
            },
            "draws_per_sample": samples.expected_draws_per_sample,
            "stopped_early": float(stopped_early),
        }

    def score_real(self) -> dict[str, Any]:
        return {"seed": self.seed, "method": REAL, "kind": "real", **self._compare(*self.draw.known)}

    def measure_deficits(self, model: Denoiser, step: int) -> NDArray[np.float64]:
        """Return by how much precision + recall of each group fall short of 2, on the validation samples.

        Zeros, which change no weight, if the model generates too few samples of a group to say.
        """
        n = 2 * self.settings.n_validation
        generator = torch.Generator().manual_seed(seed_of(self.seed, f"validation {step}"))
        fake = self._generate(model, n, generator)
        fake_groups = group_indices(self.draw.oracle(fake), self.data.group_names)
        real, real_groups = self.draw.validation
        size = min(self.settings.n_validation, *np.bincount(fake_groups, minlength=2).tolist())
        if size < _FEWEST:
            return np.zeros(2)
        deficits = []
        for group in range(2):
            scores = improved_precision_recall(
                real[real_groups == group][:size], fake[fake_groups == group][:size], n_neighbors=N_NEIGHBORS
            )
            deficits.append(2.0 - scores.precision - scores.recall)
        return np.array(deficits)

    def _generate(self, model: Denoiser, n: int, generator: torch.Generator, *, labels: bool = False) -> Any:
        latents = torch.randn(n, self.draw.training.x.shape[1], generator=generator)
        of_group = torch.randint(2, (n,), generator=generator) if labels else None
        samples = heun_sample(model, latents, labels=of_group, n_steps=self.settings.sampler_steps)
        return self.data.to_samples(samples)

    def _sample(self, method: str, model: Denoiser) -> Any:
        """Draw ``n_real`` samples of each group, by rejection."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "samples"))
        n = 2 * self.settings.n_real
        return rejection_sample(
            lambda k: self._generate(model, k, generator, labels=method in _CONDITIONAL),
            self.draw.oracle,
            "ego",
            n,
            max_draws=200 * n,
            exact=True,
            random_state=self.seed,
        )

    def _compare(self, samples: NDArray[np.float64], groups: NDArray[np.int64]) -> dict[str, float]:
        n = self.settings.n_real
        return compare(
            {"ipr": functools.partial(improved_precision_recall, n_neighbors=N_NEIGHBORS)},
            *self.draw.held_out,
            samples,
            groups,
            names=self.data.group_names,
            n=n,
            overall_sizes=[n, n],
        )

    def _tensors(self, part: Part) -> tuple[Tensor, Tensor]:
        return self.data.to_model(part.x), torch.as_tensor(part.groups)


def _by_validation(stage: _Seed, denoiser: Denoiser) -> GroupLoss:
    """Group DRO whose weights follow precision and recall, measured during training."""
    loss = GroupDROLoss(2, step_size=0.0)

    def follow(*_: Any) -> None:
        step = int(loss.n_updates.max())
        if step % stage.settings.look_every == 0:
            loss.update_weights(stage.measure_deficits(denoiser, step))

    loss.register_forward_hook(follow)
    return loss


_LOSSES: dict[str, Callable[[_Seed, Denoiser], GroupLoss]] = {
    PLAIN: lambda stage, _: MeanLoss(2, n_bins=stage.settings.n_bins),
    MORE_DATA: lambda stage, _: MeanLoss(2, n_bins=stage.settings.n_bins),
    "Reweighted": lambda stage, _: ReweightedLoss(target="ego", source=stage.proportions, n_bins=stage.settings.n_bins),
    "Min-max, one level": lambda *_: MinMaxLoss(2),
    "Min-max": lambda stage, _: MinMaxLoss(2, n_bins=stage.settings.n_bins),
    "Min-max on the excess": lambda stage, _: MinMaxLoss(2, n_bins=stage.settings.n_bins, reference=stage.reference),
    "DRO": lambda stage, _: GroupDROLoss(2, n_bins=stage.settings.n_bins, step_size=stage.settings.step_size),
    "DRO on the excess": lambda stage, _: GroupDROLoss(
        2, n_bins=stage.settings.n_bins, step_size=stage.settings.step_size, reference=stage.reference
    ),
    "DRO on the excess, half plain": lambda stage, _: GroupDROLoss(
        2,
        n_bins=stage.settings.n_bins,
        step_size=stage.settings.step_size,
        reference=stage.reference,
        mean_share=stage.settings.mean_share,
    ),
    "Weights by precision + recall": _by_validation,
}
METHODS = (*_LOSSES, *_CONDITIONAL)


def _facts(settings: StrategySettings, data: StudyData) -> dict[str, str]:
    majority, minority = data.group_names
    return {
        "training": f"{settings.n_majority} samples of {majority}, {settings.n_minority} of {minority} "
        f"({settings.n_more} more of {minority} for {MORE_DATA!r}); up to {settings.n_steps} steps of "
        f"{settings.batch_size}, Adam, learning rate {settings.learning_rate:g}, from random weights; specialists: for "
        f"each group, so twice the computing and twice the weights; network: {settings.n_blocks} blocks of width "
        f"{settings.width}; {settings.n_bins} noise levels",
        "validation": f"{settings.n_validation} samples of each group, looked at every {settings.look_every} steps; "
        "the averaged weights with the lowest loss (groups in equal parts; specialists: of the own group) are kept. "
        "The reference of the excess and the weights by precision + recall are measured on them, too",
        "scores": f"{settings.n_real} real, held out, and {settings.n_real} generated of each group; precision and "
        f"recall with k = {N_NEIGHBORS}; overall: all of them together",
        "DRO": f"step size {settings.step_size:g}",
        "torch": torch.__version__,
    }
