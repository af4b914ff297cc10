"""The paper's Table 1 at small scale: four ways to train a diffusion model, on handwritten digits, on a CPU.

The digits below 5 play the majority, the others a minority of a quarter. For every seed the experiment walks

    split -> pretrain -> four fine-tunings -> losses by noise level -> samples at MGO and EGO -> metrics by group

and keeps the outcome of each stage in the output folder, from which an interrupted run goes on. Text and figure are
made of the outcome by ``egtmetrics.report.table1``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import Nystroem
from torch import Tensor
from tqdm.auto import tqdm

from egtmetrics import (
    GenerativeMetricFrame,
    __version__,
    ego,
    frechet_distance,
    improved_precision_recall,
    mgo,
    topp_precision_recall,
)
from egtmetrics._validation import check_positive_int
from egtmetrics.features import ClassifierOracle
from egtmetrics.report import write_whole

from .diffusion import Denoiser, EDMPreconditioning, denoising_losses, heun_sample
from .loop import seeded, train
from .losses import GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss
from .mlp import ResidualMLP
from .noise import NoiseLevels
from .sampling import RejectionSamples, rejection_sample

METHODS = ("Pretrain", "Conditional", "Reweighted", "Min-Max")
REAL = "Real"
"""In the place of a method: other real digits instead of generated ones."""
GROUPS = ("0-4", "5-9")
GENERATIONS = {"MGO": (0.75, 0.25), "EGO": (0.5, 0.5)}
"""Proportions to sample at, by rejection: those of the training data, and equal ones."""

_GREY_LEVELS = 16.0
_MEAN, _SPREAD = 4.9, 12.0
"""Of the grey levels; (level - mean) / spread has mean 0 and deviation 0.5, what EDM is set up for."""
_PROJECTED_DIM, _N_PROJECTIONS = 8, 10
"""Of TopP&R. Its bandwidth reaches to neighbour 5 d', which in the paper's 32 dimensions would be half of 300 samples;
in 8 it is neighbour 40."""
_N_NEIGHBORS = 5
_N_SIGMAS = 16
_CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1Settings:
    """Size of the experiment. An output folder belongs to one; :data:`FULL` and :data:`QUICK` are those of the CLI."""

    n_seeds: int = 10
    """Repetitions with another split, model, noise and samples."""
    pretrain_steps: int = 2000
    finetune_steps: int = 1000
    """Steps after pretraining, the same for all four methods."""
    batch_size: int = 256
    learning_rate: float = 1e-3
    """Ten times the paper's, for a thousandth of its steps."""
    n_bins: int = 8
    """Noise levels at which min-max chooses."""
    width: int = 352
    n_blocks: int = 4
    n_real: int = 300
    """Real digits of each group that are held out of training, to evaluate with; a multiple of 3."""
    n_bootstrap: int = 1000
    """Of the confidence band of TopP&R."""
    sampler_steps: int = 18

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type == "int":
                check_positive_int(getattr(self, field.name), field.name)
        if self.n_real % 3:
            raise ValueError(f"n_real={self.n_real} is no multiple of 3, which the proportions 3 : 1 need; pass one")


FULL = Table1Settings()
QUICK = Table1Settings(n_seeds=5, pretrain_steps=1000, finetune_steps=500, width=192, n_bootstrap=200)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1:
    """What :func:`reproduce_table1` returns."""

    runs: pd.DataFrame
    """One row per seed, method and generation, and of the method "Real", which has other real digits in the place of
    generated ones and so shows the gaps of a perfect model. Scores are in columns such as ``topp.precision/all`` and
    ``topp.precision/0-4``, disparities in such as ``topp.delta_p`` and ``fid.delta_fid``; ``mgo`` and ``ego`` are those
    of the samples, ``mgo_generated`` and ``ego_generated`` of those before rejection, ``draws_per_sample`` its cost."""
    losses: pd.DataFrame
    """Weighted denoising loss by seed, method, split ("training" or "held-out"), group and sigma."""
    facts: dict[str, Any]
    """Settings, errors of the oracles by seed and group, and what was measured in which features."""


def reproduce_table1(out: str | Path, *, settings: Table1Settings = FULL, progress: bool = False) -> Table1:
    """Train, sample and evaluate all models of Table 1 on scikit-learn's digits, or take up where that was stopped.

    A model is pretrained without groups and then fine-tuned in four ways from its averaged weights, by as many steps
    each: without groups as before ("Pretrain"), conditioned on the group, reweighted to equal groups, and min-max at
    each noise level. Samples are brought to the proportions 3 : 1 (MGO) and 1 : 1 (EGO) by rejection. Scores of a group
    compare as many generated digits as held-out real ones, the same number for both groups; overall scores compare
    real and generated sets of equal size and proportions. Other real digits in the place of the generated ones show
    what scores and gaps a perfect model has.

    Parameters
    ----------
    out
        Folder, made if missing, that holds every stage: ``settings.json``, ``seed<n>/*.pt`` and ``seed<n>/*.json``,
        and the results as ``runs.csv`` and ``losses.csv``.
    settings
        Size of the experiment.
    progress
        Show a bar of the stages and one of the steps.

    Returns
    -------
    Table1
        Scores, losses and facts, to be shown with ``egtmetrics.report.table1``.

    Raises
    ------
    ValueError
        ``out`` was begun with other settings, or holds a damaged file; a model generates too little of a group.

    Notes
    -----
    Features are the 64 pixels, rounded to the 17 grey levels of the data: no encoder for 8 x 8 digits exists, and
    centred digits of that size compare well pixel by pixel. TopP&R runs, as in the paper, on 10 random Gaussian
    projections, but to 8 dimensions instead of 32, because a group has 300 held-out digits instead of 20,000. The
    oracle is a logistic regression on 400 Nystroem features of the pixels, fitted on digits that are not held out.

    References
    ----------
    The paper, section 5, Tables 1, 3, 6 and 7, Figures 3 and 5, appendix B.3.

    Examples
    --------
    >>> from egtmetrics.training.table1 import QUICK, reproduce_table1
    >>> table = reproduce_table1("table1-digits", settings=QUICK)  # doctest: +SKIP
    >>> table.runs.groupby("method")["topp.delta_pr"].mean()  # doctest: +SKIP
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "settings.json", settings)
    runs: list[dict[str, Any]] = []
    real: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    oracles: list[dict[str, Any]] = []
    with tqdm(total=settings.n_seeds * (1 + len(METHODS)), unit="model", disable=not progress) as bar:
        for seed in range(settings.n_seeds):
            stage = _Stage(folder / f"seed{seed}", seed, settings, progress)
            bar.set_description(f"seed {seed}, pretraining")
            pretrained = stage.pretrain()
            bar.update()
            for method in METHODS:
                bar.set_description(f"seed {seed}, {method}")
                model = stage.finetune(method, pretrained)
                losses += stage.cached(f"{method}-losses", functools.partial(stage.losses, method, model))
                for generation in GENERATIONS:
                    evaluate = functools.partial(stage.evaluate, method, generation, model)
                    runs.append(stage.cached(f"{method}-{generation}", evaluate))
                bar.update()
            real += [
                stage.cached(f"{REAL}-{name}", functools.partial(stage.evaluate_real, name)) for name in GENERATIONS
            ]
            oracles.append(stage.cached("oracle", stage.describe_oracle))
    table = Table1(
        runs=pd.DataFrame(runs + real),
        losses=pd.DataFrame(losses),
        facts={"settings": dataclasses.asdict(settings), "oracles": oracles, **_facts(settings)},
    )
    write_whole(folder / "runs.csv", table.runs.to_csv(index=False))
    write_whole(folder / "losses.csv", table.losses.to_csv(index=False))
    return table


@dataclasses.dataclass(frozen=True)
class _Split:
    """Digits as pixels in [0, 1], ``(n, 64)``, and their groups."""

    train: NDArray[np.float64]
    train_groups: NDArray[np.int64]
    known: NDArray[np.float64]
    """All that are not held out: those of training, and those left out of it to make a minority. For the oracle."""
    known_groups: NDArray[np.int64]
    held_out: NDArray[np.float64]
    held_out_groups: NDArray[np.int64]


def _split(seed: int, n_real: int) -> _Split:
    digits = load_digits()
    rng = np.random.default_rng([seed, 0])
    held_out: list[NDArray[np.int64]] = []
    train: list[NDArray[np.int64]] = []
    known: list[NDArray[np.int64]] = []
    groups = (digits.target >= 5).astype(np.int64)
    for group in range(len(GROUPS)):
        rows = rng.permutation(np.flatnonzero(groups == group))
        held_out.append(rows[:n_real])
        known.append(rows[n_real:])
        train.append(rows[n_real:] if group == 0 else rows[n_real : n_real + round(len(train[0]) / 3)])
    pixels = digits.data / _GREY_LEVELS
    sets = [np.concatenate(part) for part in (train, known, held_out)]
    return _Split(*(array for rows in sets for array in (pixels[rows], groups[rows])))


class _Stage:
    """The stages of one seed, each kept in a file."""

    def __init__(self, folder: Path, seed: int, settings: Table1Settings, progress: bool) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.seed, self.settings, self.progress = folder, seed, settings, progress
        self.split = _split(seed, settings.n_real)
        self.noise = NoiseLevels(EDMPreconditioning().law, settings.n_bins)

    def cached(self, name: str, compute: Callable[[], Any]) -> Any:
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_whole(path, json.dumps(compute(), indent=1))
        return _read_json(path)  # of a new file, too: so that first and later runs see the same

    @functools.cached_property
    def oracle(self) -> ClassifierOracle:
        known = self.split.known
        kernel = Nystroem(gamma=0.25, n_components=min(400, len(known)), random_state=self.seed).fit(known)
        return ClassifierOracle(
            kernel.transform(known), self.split.known_groups, encode=kernel.transform, random_state=self.seed
        )

    def describe_oracle(self) -> dict[str, Any]:
        return {"seed": self.seed, "error_by_group": self.oracle.error_by_group.tolist()}

    def pretrain(self) -> Denoiser:
        with seeded(self.seed, _CPU):
            network = ResidualMLP(64, width=self.settings.width, n_blocks=self.settings.n_blocks)
        loss = MeanLoss(len(GROUPS), n_bins=self.settings.n_bins)
        return self._train("base", network, loss, n_steps=self.settings.pretrain_steps, conditional=False)

    def finetune(self, method: str, pretrained: Denoiser) -> Denoiser:
        n_groups, n_bins = len(GROUPS), self.settings.n_bins
        counts = np.bincount(self.split.train_groups)
        strategies: dict[str, Callable[[], GroupLoss]] = {
            "Pretrain": lambda: MeanLoss(n_groups, n_bins=n_bins),
            "Conditional": lambda: MeanLoss(n_groups, n_bins=n_bins),
            "Reweighted": lambda: ReweightedLoss(target="ego", source=counts / counts.sum(), n_bins=n_bins),
            "Min-Max": lambda: MinMaxLoss(n_groups, n_bins=n_bins),
        }
        network = pretrained.network
        assert isinstance(network, ResidualMLP)
        conditional = method == "Conditional"
        start = network.with_classes(n_groups) if conditional else network
        n_steps = self.settings.finetune_steps
        return self._train(method, start, strategies[method](), n_steps=n_steps, conditional=conditional)

    def _train(self, name: str, network: ResidualMLP, loss: GroupLoss, *, n_steps: int, conditional: bool) -> Denoiser:
        """Train a copy, and return the averaged model."""
        denoiser = Denoiser(copy.deepcopy(network).requires_grad_(True), EDMPreconditioning())
        groups = torch.as_tensor(self.split.train_groups)
        run = train(
            denoiser,
            _to_model(self.split.train),
            groups,
            loss,
            self.noise,
            n_steps=n_steps,
            labels=groups if conditional else None,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            checkpoint=self.folder / f"{name}.pt",
            checkpoint_every=200,
            random_state=_seed_of(self.seed, name),
            progress=self.progress,
        )
        averaged = run.ema.model
        assert isinstance(averaged, Denoiser)
        return averaged

    @torch.no_grad()
    def losses(self, method: str, model: Denoiser) -> list[dict[str, Any]]:
        """Mean loss of each group at each sigma; the noise is the same for all methods, so they compare in pairs."""
        sigmas = self.noise.law.quantile((torch.arange(_N_SIGMAS) + 0.5) / _N_SIGMAS)
        generator = torch.Generator().manual_seed(_seed_of(self.seed, "losses"))
        rows = []
        for split, pixels, groups in (
            ("training", self.split.train, self.split.train_groups),
            ("held-out", self.split.held_out, self.split.held_out_groups),
        ):
            x = _to_model(pixels)
            labels = torch.as_tensor(groups) if method == "Conditional" else None
            for sigma in sigmas.tolist():
                sigma_of_each = torch.full((len(x),), sigma)
                per_sample = denoising_losses(model, x, sigma_of_each, labels=labels, generator=generator)
                for group, name in enumerate(GROUPS):
                    loss = float(per_sample[groups == group].double().mean())
                    key = {"seed": self.seed, "method": method, "split": split}
                    rows.append({**key, "group": name, "sigma": sigma, "loss": loss})
        return rows

    def evaluate(self, method: str, generation: str, model: Denoiser) -> dict[str, Any]:
        """Sample at the proportions of ``generation``, and compare with the held-out digits."""
        samples = self._sample(method, generation, model)
        names = np.array(GROUPS)
        trained_on, sampled = names[self.split.train_groups], names[samples.groups]
        generated = np.repeat(names, samples.draws_by_group)
        return {
            "seed": self.seed,
            "method": method,
            "generation": generation,
            **self._compare(samples.samples, samples.groups, generation),
            "mgo": mgo(trained_on, sampled),
            "ego": ego(sampled),
            "mgo_generated": mgo(trained_on, generated),
            "ego_generated": ego(generated),
            "draws_per_sample": samples.expected_draws_per_sample,
        }

    def evaluate_real(self, generation: str) -> dict[str, Any]:
        """Compare other real digits with the held-out ones: the scores, and the gaps, of a perfect model."""
        scores = self._compare(self.split.known, self.split.known_groups, generation)
        return {"seed": self.seed, "method": REAL, "generation": generation, **scores}

    def _compare(self, samples: NDArray[np.float64], groups: NDArray[np.int64], generation: str) -> dict[str, float]:
        """Scores, overall and by group, and disparities; every group has ``n_real`` samples at least."""
        n = self.settings.n_real
        names = np.array(GROUPS)
        rows = [np.flatnonzero(groups == group) for group in range(len(GROUPS))]
        real_rows = [np.flatnonzero(self.split.held_out_groups == group) for group in range(len(GROUPS))]
        metrics = self._metrics()
        by_group = GenerativeMetricFrame(
            metrics=metrics,
            real=self.split.held_out,
            fake=samples[np.concatenate([row[:n] for row in rows])],
            real_sensitive_features=names[self.split.held_out_groups],
            fake_sensitive_features=np.repeat(names, n),
            random_state=self.seed,
        )
        # 4/3 n of each side: the most that the held-out digits have at 3 : 1, and fewer than they have at 1 : 1.
        sizes = [round(share * n * 4 / 3) for share in GENERATIONS[generation]]
        real, fake = (
            np.concatenate([pool[row[:size]] for row, size in zip(of_group, sizes, strict=True)])
            for pool, of_group in ((self.split.held_out, real_rows), (samples, rows))
        )
        results: dict[Any, dict[str, Any]] = {
            "all": {name: metric(real, fake) for name, metric in metrics.items()},
            **by_group.results,
        }
        scores = {
            f"{name}.{score}/{who}": value
            for who, of_metric in results.items()
            for name, result in of_metric.items()
            for score, value in result.scores().items()
        }
        disparities = by_group.disparities().reset_index().to_dict("records")
        deltas = {f"{row['metric']}.{row['disparity']}": float(row["value"]) for row in disparities}
        return scores | {name: value for name, value in deltas.items() if not name.startswith("proportions.")}

    def _sample(self, method: str, generation: str, model: Denoiser) -> RejectionSamples:
        target = GENERATIONS[generation]
        generator = torch.Generator().manual_seed(_seed_of(self.seed, f"{method} {generation}"))

        def generate(k: int) -> NDArray[np.float64]:
            latents = torch.randn(k, 64, generator=generator)
            labels = None
            if method == "Conditional":
                labels = torch.multinomial(torch.tensor(target), k, replacement=True, generator=generator)
            return _to_pixels(heun_sample(model, latents, labels=labels, n_steps=self.settings.sampler_steps))

        n = round(self.settings.n_real / min(target))  # then the smallest group has n_real, too
        try:
            return rejection_sample(
                generate, self.oracle, target, n, max_draws=20 * n, exact=True, batch_size=300, random_state=self.seed
            )
        except RuntimeError as error:
            raise ValueError(
                f"the model of seed {self.seed}, {method}, cannot be sampled at {generation}: {error}"
            ) from error

    def _metrics(self) -> dict[str, Callable[..., Any]]:
        # The same projections for every seed and model, so that their noise is not that of the models.
        normal = np.random.default_rng(0).standard_normal((_N_PROJECTIONS, _PROJECTED_DIM, 64))
        topp = functools.partial(
            topp_precision_recall,
            projections=list(normal / np.sqrt(_PROJECTED_DIM)),
            n_bootstrap=self.settings.n_bootstrap,
            random_state=self.seed,
        )
        ipr = functools.partial(improved_precision_recall, n_neighbors=_N_NEIGHBORS)
        return {"topp": topp, "ipr": ipr, "fid": frechet_distance}


def _to_model(pixels: NDArray[np.float64]) -> Tensor:
    return torch.as_tensor((_GREY_LEVELS * pixels - _MEAN) / _SPREAD, dtype=torch.float32)


def _to_pixels(samples: Tensor) -> NDArray[np.float64]:
    """Round to grey levels, as any image that is stored, and scale to [0, 1]."""
    levels = (_SPREAD * samples.double() + _MEAN).round().clamp(0.0, _GREY_LEVELS)
    pixels: NDArray[np.float64] = levels.numpy() / _GREY_LEVELS
    return pixels


def _seed_of(seed: int, name: str) -> int:
    """A seed of its own for every stage of every seed."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def _claim(path: Path, settings: Table1Settings) -> None:
    """Write the settings into a new folder; refuse one that was begun with others."""
    current = {**dataclasses.asdict(settings), "egtmetrics": __version__}  # another version may compute otherwise
    if not path.exists():
        write_whole(path, json.dumps(current, indent=1))
    saved = _read_json(path)
    differing = [name for name in {**saved, **current} if saved.get(name) != current.get(name)]
    if differing:
        listed = "; ".join(f"{name} was {saved.get(name)}, is {current.get(name)}" for name in differing)
        raise ValueError(f"{path.parent} holds a run with other settings: {listed}; pass the same, or another folder")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to compute it again") from error


def _facts(settings: Table1Settings) -> dict[str, Any]:
    return {
        "steps": f"{settings.pretrain_steps} + {settings.finetune_steps} of {settings.batch_size} samples for each; "
        f"Adam, learning rate {settings.learning_rate:g}; ResidualMLP, width {settings.width}; EDM preconditioning",
        "features": "64 pixels, rounded to the grey levels of the data",
        "TopP&R": f"{_N_PROJECTIONS} Gaussian projections to {_PROJECTED_DIM} dimensions (the paper: 32), "
        f"{settings.n_bootstrap} bootstrap replicates",
        "samples": f"{settings.n_real} real, held out, and {settings.n_real} generated of each group",
        "sampler": f"Heun, {settings.sampler_steps} steps, averaged weights",
        "torch": torch.__version__,
    }
