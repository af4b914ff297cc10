"""The paper's Table 1: five ways to train a diffusion model, on handwritten digits, emoji of persons, or FFHQ.

On digits and emoji the first group is made the majority, the others a minority. The stages for every seed are

    split -> pretrain -> five fine-tunings -> losses by noise level -> samples at MGO and EGO -> metrics by group

Each stage's results are kept in the output folder, from which an interrupted run resumes. ``table1_report`` makes text
and figures of them.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import io
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.kernel_approximation import Nystroem
from torch import Tensor, nn

from egtmetrics import ego, mgo
from egtmetrics._atomic import write_whole
from egtmetrics._progress import tqdm
from egtmetrics.oracles import ClassifierOracle, group_indices
from egtmetrics.paper._stages import (
    N_PROJECTIONS,
    SAMPLES_PER_DIMENSION,
    cached,
    check_counts,
    claim,
    compare,
    projected_dim,
    seed_of,
    strategy,
    table_metrics,
)
from egtmetrics.paper.checkpoints import load_checkpoint
from egtmetrics.paper.datasets import ImageData
from egtmetrics.paper.unet import UNet
from egtmetrics.training.density_ratio import DensityRatio, fit_density_ratio
from egtmetrics.training.diffusion import Denoiser, EDMPreconditioning, denoising_losses, heun_sample
from egtmetrics.training.loop import train
from egtmetrics.training.mlp import ResidualMLP
from egtmetrics.training.noise import NoiseLevels
from egtmetrics.training.resumable import fingerprint, seeded
from egtmetrics.training.sampling import RejectionSamples, rejection_sample

DENSITY_RATIO = "Density-Ratio"
"""The method that reweights noisy samples, with :class:`DensityRatio`; "Reweighted" weights groups."""
METHODS = ("Pretrain", "Conditional", "Reweighted", DENSITY_RATIO, "Min-Max")
REAL = "Real"
"""Instead of a method: other real images in place of generated ones."""
GENERATIONS = ("MGO", "EGO")
"""Proportions to sample at, by rejection: those of the training data (MGO), and equal ones (EGO)."""

_N_SIGMAS = 16
_N_SHOWN = 10
"""Samples of each group and method that are kept for the figure, of seed 0 at MGO."""
_KERNEL_GAMMA = 0.25
"""Of the oracle's kernel map, for pixels in [0, 1]."""
_CHUNK = 1024
"""Images converted at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1Settings:
    """Size of the experiment; an output folder belongs to one.

    The defaults suit digits. The command line has :data:`FULL`, :data:`QUICK`, :data:`EMOJI_FULL`, :data:`EMOJI_QUICK`
    and, for FFHQ, :data:`PAPER`.
    """

    network: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"architecture": "mlp", "width": 352, "n_blocks": 4}
    )
    """``architecture="mlp"`` and options of :class:`ResidualMLP`, on flattened images; or options of :class:`UNet`."""
    n_seeds: int = 10
    """Repetitions, each with its own split, model, noise and samples."""
    ratio: int | None = 3
    """Training images of the first group for each image of another group; None for all there are."""
    pretrain_steps: int = 2000
    finetune_steps: int = 1000
    """Steps after pretraining, the same for all methods, and those of the classifier of "Density-Ratio"."""
    batch_size: int = 256
    learning_rate: float = 1e-3
    """Ten times the paper's, for a thousandth of its steps."""
    half_life: float = 500_000.0
    """Of the average of the weights, in images."""
    decay: float = 0.9
    """Of the averages of losses."""
    n_bins: int = 8
    """Number of noise levels of min-max."""
    target: str = "ego"
    """Proportions that "Reweighted" and "Density-Ratio" train for."""
    n_real: int = 300
    """Real images of each group that are held out of training, for evaluation; as many generated ones are compared."""
    real_row: bool = True
    """Whether to compare as many other real images as well, in the row "Real". They need not be held out of
    training, but a group needs twice ``n_real`` images then."""
    oracle_components: int | None = 400
    """Nystroem features of a Gaussian kernel for the oracle; None for the plain features of the data."""
    n_bootstrap: int = 1000
    """Of the confidence band of TopP&R."""
    sampler_steps: int = 18
    sample_batch: int = 300
    """Images that pass through the network at once outside training."""

    def __post_init__(self) -> None:
        check_counts(self)

    @property
    def projected_dim(self) -> int:
        """Dimensions d' to which TopP&R projects: one for every 37.5 samples of a group, from 2 to 32."""
        return projected_dim(self.n_real)


FULL = Table1Settings()
QUICK = Table1Settings(
    network={"architecture": "mlp", "width": 192, "n_blocks": 4}, n_seeds=5, pretrain_steps=1000, finetune_steps=500,
    n_bootstrap=200,
)  # fmt: skip
EMOJI_FULL = Table1Settings(
    network={"architecture": "ddpmpp", "resolution": 32, "width": 32, "multipliers": (1, 2, 2), "n_blocks": 1,
             "attention": (8,), "dropout": 0.05},
    n_seeds=3, pretrain_steps=12_000, finetune_steps=4000, batch_size=64, learning_rate=5e-4, n_bins=4, n_real=150,
    oracle_components=None, sample_batch=64,
)  # fmt: skip
EMOJI_QUICK = dataclasses.replace(
    EMOJI_FULL,
    network={"architecture": "ddpmpp", "resolution": 16, "width": 32, "multipliers": (1, 2), "n_blocks": 1,
             "attention": (8,), "dropout": 0.05},
    n_seeds=2, pretrain_steps=1200, finetune_steps=300, batch_size=40, learning_rate=1e-3, n_bins=2, n_bootstrap=200,
    sampler_steps=12,
)  # fmt: skip


def _ffhq(architecture: str) -> Table1Settings:
    # Sizes of the network and the half-life: Karras et al. 2022, Table 7; the public checkpoints edm-ffhq-64x64-uncond
    # have them. The paper gives the batch size, the learning rate, the decay and the one seed, and says nothing of the
    # other numbers. It compares with 20,000 images of each group that it has trained on; here 10,000 are held out. Its
    # "1M iterations" of 256 images cannot take 5 hours on 8 V100, where about 40,000 fit.
    return Table1Settings(
        network={"architecture": architecture, "resolution": 64, "channels": 3, "width": 128,
                 "multipliers": (1, 2, 2, 2), "n_blocks": 4, "attention": (16,), "dropout": 0.05},
        n_seeds=1, ratio=None, pretrain_steps=40_000, finetune_steps=40_000, batch_size=256, learning_rate=1e-4,
        n_real=10_000, oracle_components=None, sampler_steps=40, sample_batch=256,
    )  # fmt: skip


PAPER = {"ffhq64-vp": _ffhq("ddpmpp"), "ffhq64-ve": _ffhq("ncsnpp")}
"""The paper's trainings of EDM-VP and EDM-VE on FFHQ at 64 x 64 (appendix B.3). They have not been run here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table1:
    """What :func:`reproduce_table1` returns."""

    runs: pd.DataFrame
    """One row per seed, method and generation. The method "Real" (with ``real_row``) has other real images in place of
    generated ones, and so shows the gaps of a perfect model. Scores are in columns such as ``topp.precision/all`` and
    ``topp.precision/<group>``, disparities in columns such as ``topp.delta_p`` and ``fid.delta_fid``; in
    ``variance/<group>`` the total variance of the features, over that of the held-out images. ``mgo`` and
    ``ego`` describe the samples, ``mgo_generated`` and ``ego_generated`` those before rejection, and
    ``draws_per_sample`` the cost of rejection."""
    losses: pd.DataFrame
    """Weighted denoising loss by seed, method, split ("training" or "held-out"), group and sigma."""
    samples: dict[str, NDArray[np.float64]]
    """Images of seed 0 at MGO for the figure, by method and for "Real", ``(groups, k, channels, height, width)``."""
    facts: dict[str, Any]
    """Settings; by seed, errors and warnings of the oracles and the fit of the density ratios; what was measured in
    which features."""


def reproduce_table1(
    out: str | Path,
    data: ImageData,
    *,
    settings: Table1Settings = FULL,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Table1:
    """Train, sample and evaluate all models of Table 1, or resume where that stopped.

    A model is pretrained without groups. From its averaged weights it is then fine-tuned in five ways, with the same
    number of steps: without groups as before ("Pretrain"), conditioned on the group, reweighted to equal groups by
    group and by noisy sample ("Density-Ratio"), and min-max at each noise level. Rejection brings the samples to the
    proportions of the training data (MGO) and to equal ones (EGO). The scores of a group compare generated with
    held-out real images, the same number for all groups. Overall scores compare real and generated sets of equal size
    and proportions. Other real images in place of the generated ones show the scores and gaps of a perfect model, if
    there are enough.

    Parameters
    ----------
    out
        Folder, made if missing, that holds every stage: ``settings.json``, ``seed<n>/*.pt``, ``seed<n>/*.json`` and
        ``seed<n>/*.npy``, and the results as ``runs.csv`` and ``losses.csv``.
    data
        Of :func:`load_image_data`. Metrics and oracle see ``data.encode`` of the images; generated images are rounded
        to the levels of the files.
    settings
        Size of the experiment.
    checkpoint
        A file of :func:`convert_checkpoint`, to fine-tune instead of a pretrained model.
    device
        Of the networks, "cpu" or "cuda". It is not part of the settings, but a training that was interrupted on one
        cannot resume on the other.
    progress
        Show a progress bar of the stages and one of the steps.

    Returns
    -------
    Table1
        Scores, losses, samples and facts, for ``egtmetrics.paper.table1_report``.

    Raises
    ------
    ValueError
        ``out`` has other settings or data, or holds a damaged file; there are too few images of a group, or their size
        is not the network's; a model generates too few samples of a group.

    Notes
    -----
    TopP&R uses 10 random Gaussian projections, as in the paper, but to fewer than its 32 dimensions if a group has few
    images, see ``Table1Settings.projected_dim``. The oracle is a logistic regression, for digits on 400 Nystroem
    features of the pixels, otherwise on the features of the data; it is fitted on images that are not held out. Public
    checkpoints were trained on the images that are held out here. :data:`PAPER` has not been run.

    References
    ----------
    The paper, section 5, Tables 1, 3, 6 and 7, Figures 3 and 5, appendix B.3.

    Examples
    --------
    >>> from egtmetrics.paper.datasets import load_image_data
    >>> from egtmetrics.paper.table1 import QUICK, reproduce_table1
    >>> table = reproduce_table1("table1-digits", load_image_data("digits"), settings=QUICK)  # doctest: +SKIP
    >>> table.runs.groupby("method")["topp.delta_pr"].mean()  # doctest: +SKIP
    """
    splits = [
        split_images(data, seed, settings.n_real, settings.ratio, real_row=settings.real_row)
        for seed in range(settings.n_seeds)
    ]
    with torch.device("meta"):
        network = _network(settings.network, data.images.shape[1:])
    base = None if checkpoint is None else load_base(checkpoint, settings.network, data.images.shape[1:])
    expected = (network.channels, network.resolution, network.resolution) if isinstance(network, UNet) else None
    if expected not in (None, data.images.shape[1:]):
        raise ValueError(
            f"data has images {data.images.shape[1:]}, but the network takes {expected} (channels, height, width); "
            "load them in that size, or pass another network"
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (data.images, data.groups, *([] if data.clusters is None else [data.clusters]))
    content = fingerprint(torch.as_tensor(array) for array in arrays)
    start = None if checkpoint is None else hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:16]
    described = {"data": data.name, "content": content, "features": data.facts["features"], "checkpoint": start}
    claim(folder / "settings.json", {**dataclasses.asdict(settings), **described})
    features = functools.cache(lambda: _features(folder / "features.npy", data))  # only if a stage needs them
    runs: list[dict[str, Any]] = []
    real: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    oracles: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    samples: dict[str, NDArray[np.float64]] = {}
    with tqdm(total=settings.n_seeds * (1 + len(METHODS)), unit="model", disable=not progress) as bar:
        for seed, split in enumerate(splits):
            stage = Stage(folder / f"seed{seed}", seed, data, split, features, settings, torch.device(device), progress)
            bar.set_description(f"seed {seed}, pretraining")
            pretrained = stage.pretrain() if base is None else base.to(stage.device)
            bar.update()
            for method in METHODS:
                bar.set_description(f"seed {seed}, {method}")
                model = stage.finetune(method, pretrained)
                losses += stage.cached(f"{method}-losses", functools.partial(stage.losses, method, model))
                for generation in GENERATIONS:
                    evaluate = functools.partial(stage.evaluate, method, generation, model)
                    runs.append(stage.cached(f"{method}-{generation}", evaluate))
                if seed == 0:
                    samples[method] = stage.shown(method)
                bar.update()
            if seed == 0:
                samples[REAL] = stage.shown_real()
            if settings.real_row:
                real += [
                    stage.cached(f"{REAL}-{name}", functools.partial(stage.evaluate_real, name)) for name in GENERATIONS
                ]
            oracles.append(stage.cached("oracle", stage.describe_oracle))
            ratios.append(stage.cached("ratio", functools.partial(stage.describe_ratio, pretrained)))
    table = Table1(
        runs=pd.DataFrame(runs + real),
        losses=pd.DataFrame(losses),
        samples=samples,
        facts={
            "settings": dataclasses.asdict(settings),
            "oracles": oracles,
            "ratios": ratios,
            **data.facts,
            **_facts(settings, base),
        },
    )
    write_whole(folder / "runs.csv", table.runs.to_csv(index=False))
    write_whole(folder / "losses.csv", table.losses.to_csv(index=False))
    return table


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows of the data."""

    train: NDArray[np.int64]
    known: NDArray[np.int64]
    """All that are neither held out nor near-duplicates of those: the training images, and those left out to make a
    minority. For the oracle."""
    held_out: NDArray[np.int64]


def split_images(data: ImageData, seed: int, n_real: int, ratio: int | None, *, real_row: bool = True) -> Split:
    """Hold out whole clusters, those of random images, until there are ``n_real`` images of each group."""
    rng = np.random.default_rng([seed, 0])
    of_group = [rng.permutation(np.flatnonzero(data.groups == group)) for group in range(len(data.group_names))]
    clusters = np.arange(len(data.groups)) if data.clusters is None else data.clusters
    chosen: set[int] = set()
    for rows in of_group:
        sizes = Counter(clusters[rows].tolist())
        n = sum(sizes[cluster] for cluster in chosen)
        for cluster in clusters[rows].tolist():
            if n >= n_real:
                break
            if cluster not in chosen:
                chosen.add(cluster)
                n += sizes[cluster]
    is_held_out = np.isin(clusters, list(chosen))
    held_out: list[NDArray[np.int64]] = []
    train: list[NDArray[np.int64]] = []
    known: list[NDArray[np.int64]] = []
    for group, rows in enumerate(of_group):
        held_out.append(rows[is_held_out[rows]][:n_real])
        known.append(rows[~is_held_out[rows]])
        if len(held_out[group]) < n_real or len(known[group]) < (n_real if real_row else 1):
            remedies = "pass a smaller n_real, or more images"
            if real_row and len(held_out[group]) == n_real and len(known[group]):
                remedies = f"leave out that row (real_row=False, --no-real-row), {remedies}"
            raise ValueError(
                f"n_real={n_real}, but data has {len(rows)} images of {data.group_names[group]}, of which "
                f"{len(known[group])} are left when that many are held out, expected at least "
                f"{f'{n_real}, for the row {REAL!r}' if real_row else '1 to train on'}; {remedies}"
            )
        most = len(rows) if ratio is None or group == 0 else round(len(train[0]) / ratio)
        train.append(known[group][:most])
    return Split(*(np.concatenate(part) for part in (train, known, held_out)))


def _network(options: Mapping[str, Any], image_shape: tuple[int, ...]) -> nn.Module:
    if options.get("architecture") == "mlp":
        rest = {name: value for name, value in options.items() if name != "architecture"}
        mlp: nn.Module = ResidualMLP(math.prod(image_shape), **rest)
        return mlp
    return UNet(**{"channels": image_shape[0], **options})


class _ImageClassifier(nn.Module):
    """Groups of noisy images: convolutions that see no noise level, and an MLP that does."""

    def __init__(self, shape: tuple[int, ...], n_groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((shape[0], 32, 64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            n_features = self.convolutions(torch.zeros(1, *shape)).shape[1]
        self.head = ResidualMLP(n_features, n_outputs=n_groups, width=128, n_blocks=2)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        logits: Tensor = self.head(self.convolutions(x), c_noise)
        return logits


def load_base(path: str | Path, options: Mapping[str, Any], image_shape: tuple[int, ...]) -> Denoiser:
    with seeded(0, torch.device("cpu")):  # for the initial weights, which are replaced
        network = _network(options, image_shape)
    return load_checkpoint(path, network)


class Stage:
    """The stages of one seed, each kept in a file."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        data: ImageData,
        split: Split,
        features: Callable[[], NDArray[np.float64]],
        settings: Table1Settings,
        device: torch.device,
        progress: bool,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.seed, self.data, self.split, self.settings = folder, seed, data, split, settings
        self.device, self.progress = device, progress
        self._features = features
        self.names = np.array(data.group_names)
        counts = np.bincount(data.groups[self.split.train])
        if settings.ratio is not None:  # without the rounding of the counts
            counts = np.array([settings.ratio, *[1] * (len(counts) - 1)])
        equal = np.ones(len(counts))
        self.proportions = {"MGO": counts / counts.sum(), "EGO": equal / equal.sum()}

    def cached(self, name: str, compute: Callable[[], Any]) -> Any:
        return cached(self.folder / f"{name}.json", compute)

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._features()[rows]

    @functools.cached_property
    def oracle(self) -> ClassifierOracle:
        """Of features."""
        rows = self.split.known
        known = self.features(rows)
        fit = functools.partial(
            ClassifierOracle,
            groups=self.names[self.data.groups[rows]],
            group_names=self.data.group_names,
            clusters=None if self.data.clusters is None else self.data.clusters[rows],
            random_state=self.seed,
        )
        n_components = self.settings.oracle_components
        if n_components is None:
            return fit(known)
        kernel = Nystroem(gamma=_KERNEL_GAMMA, n_components=min(n_components, len(known)), random_state=self.seed).fit(
            known
        )
        return fit(kernel.transform(known), encode=kernel.transform)

    def describe_oracle(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "error_by_group": list(self.oracle.error_by_group.values()),
            "warning": self.oracle.warning,
        }

    def pretrain(self) -> Denoiser:
        with seeded(self.seed, self.device):
            network = _network(self.settings.network, self.data.images.shape[1:])
        return self._train("base", "Pretrain", Denoiser(network, EDMPreconditioning()), self.settings.pretrain_steps)

    def finetune(self, method: str, pretrained: Denoiser) -> Denoiser:
        ratio = self.density_ratio(pretrained) if method == DENSITY_RATIO else None
        return self._train(method, method, pretrained, self.settings.finetune_steps, ratio)

    def density_ratio(self, pretrained: Denoiser) -> DensityRatio:
        """Of equal groups to the training images, under the noise that the model is trained with."""
        rows, settings = self.split.train, self.settings
        network = None
        if settings.network.get("architecture") != "mlp":
            with seeded(self.seed, self.device):
                network = _ImageClassifier(self.data.images.shape[1:], len(self.names)).to(self.device)
        return fit_density_ratio(
            self._to_model(rows),
            torch.as_tensor(self.data.groups[rows], device=self.device),
            pretrained.preconditioning.law,
            n_steps=settings.finetune_steps,
            target=settings.target,
            network=network,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            checkpoint=self.folder / "ratio.pt",
            random_state=seed_of(self.seed, "ratio"),
            progress=self.progress,
        )

    def describe_ratio(self, pretrained: Denoiser) -> dict[str, float]:
        """On noisy held-out images, at the proportions of the training data: cross-entropy in nats, and mean ratio.

        If the classifier knew nothing, the cross-entropy would be that of the ``proportions``.
        """
        ratio, rows = self.density_ratio(pretrained), self.split.held_out
        groups = torch.as_tensor(self.data.groups[rows], device=self.device)
        generator = torch.Generator().manual_seed(seed_of(self.seed, "ratio of held-out images"))
        sigma = pretrained.preconditioning.law.sample(len(rows), generator=generator).to(self.device)
        x = self._to_model(rows)
        noise = torch.randn(x.shape, generator=generator).to(self.device)
        noisy = x + sigma.reshape(-1, *[1] * (x.ndim - 1)) * noise
        parts = _slices(len(rows), self.settings.sample_batch)
        with torch.no_grad():
            of_groups = torch.cat([ratio.log_probabilities(noisy[part], sigma[part]) for part in parts])
        ratios = torch.cat([ratio(noisy[part], sigma[part]).weight for part in parts])
        own = -of_groups[torch.arange(len(rows)), groups]
        shares = ratio.log_source.double().exp()
        weights = shares[groups] / torch.bincount(groups)[groups]
        return {
            "cross_entropy": float((weights * own).sum()),
            "of_proportions": float(-(shares * shares.log()).sum()),
            "mean_ratio": float((weights * ratios).sum()),
        }

    def _train(
        self, name: str, method: str, start: Denoiser, n_steps: int, ratio: DensityRatio | None = None
    ) -> Denoiser:
        """Train a copy, and return the averaged model."""
        settings, conditional = self.settings, method == "Conditional"
        groups = torch.as_tensor(self.data.groups[self.split.train], device=self.device)
        counts = np.bincount(self.data.groups[self.split.train])
        loss = strategy(method, counts, decay=settings.decay, n_bins=settings.n_bins, target=settings.target)
        with seeded(self.seed, self.device):  # with_classes draws the new embedding before setting it to zero
            denoiser = copy.deepcopy(start).requires_grad_(True).to(self.device)
            if conditional:
                assert isinstance(denoiser.network, UNet | ResidualMLP)
                denoiser = Denoiser(denoiser.network.with_classes(len(self.names)), denoiser.preconditioning)
        run = train(
            denoiser,
            self._to_model(self.split.train),
            groups,
            loss.to(self.device),
            NoiseLevels(denoiser.preconditioning.law, n_bins=settings.n_bins),
            n_steps=n_steps,
            labels=groups if conditional else None,
            ratio=ratio,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            half_life=settings.half_life,
            checkpoint=self.folder / f"{name}.pt",
            checkpoint_every=200,
            random_state=seed_of(self.seed, name),
            progress=self.progress,
        )
        averaged = run.ema.model
        assert isinstance(averaged, Denoiser)
        return averaged

    @torch.no_grad()
    def losses(self, method: str, model: Denoiser) -> list[dict[str, Any]]:
        """Mean loss of each group at each sigma, with the same noise for all methods, for paired comparisons."""
        sigmas = model.preconditioning.law.quantile((torch.arange(_N_SIGMAS) + 0.5) / _N_SIGMAS)
        generator = torch.Generator().manual_seed(seed_of(self.seed, "losses"))
        rows = []
        for split, chosen in (("training", self.split.train), ("held-out", self.split.held_out)):
            x, groups = self._to_model(chosen), self.data.groups[chosen]
            labels = torch.as_tensor(groups, device=self.device)
            for sigma in sigmas.tolist():
                noise = torch.randn(x.shape, generator=generator)
                per_sample = torch.cat(
                    [
                        denoising_losses(
                            model,
                            x[part],
                            torch.full((len(x[part]),), sigma, device=self.device),
                            labels=labels[part] if method == "Conditional" else None,
                            noise=noise[part].to(self.device),
                        ).cpu()
                        for part in _slices(len(x), self.settings.sample_batch)
                    ]
                )
                for group, name in enumerate(self.names.tolist()):
                    loss = float(per_sample[groups == group].double().mean())
                    key = {"seed": self.seed, "method": method, "split": split}
                    rows.append({**key, "group": name, "sigma": sigma, "loss": loss})
        return rows

    def evaluate(self, method: str, generation: str, model: Denoiser) -> dict[str, Any]:
        """Sample at the proportions of ``generation``, and compare with the held-out images."""
        result = self.sample(method, generation, model)
        images = np.stack([image for image, _ in result.samples])
        features = np.stack([feature for _, feature in result.samples])
        groups = group_indices(result.groups, self.data.group_names)
        if generation == "MGO" and self.seed == 0:
            self._keep(method, images, groups)
        trained_on, sampled = self.names[self.data.groups[self.split.train]], self.names[groups]
        generated = np.repeat(self.names, result.draws_by_group)
        return {
            "seed": self.seed,
            "method": method,
            "generation": generation,
            **self._compare(features, groups, generation),
            "mgo": mgo(trained_on, sampled),
            "ego": ego(trained_on, sampled),
            "mgo_generated": mgo(trained_on, generated),
            "ego_generated": ego(trained_on, generated),
            "draws_per_sample": result.expected_draws_per_sample,
        }

    def evaluate_real(self, generation: str) -> dict[str, Any]:
        """Compare other real images with the held-out ones: scores and gaps of a perfect model."""
        known = self.split.known
        scores = self._compare(self.features(known), self.data.groups[known], generation)
        return {"seed": self.seed, "method": REAL, "generation": generation, **scores}

    def shown(self, method: str) -> NDArray[np.float64]:
        """Samples for the figure, ``(groups, k, channels, height, width)`` in [0, 1]."""
        levels: NDArray[np.float64] = _read_array(self.folder / f"{method}-samples.npy") / self.data.n_levels
        return levels

    def shown_real(self) -> NDArray[np.float64]:
        held_out = self.split.held_out
        rows = [held_out[self.data.groups[held_out] == group] for group in range(len(self.names))]
        return np.stack([self.data.images[of_group[:_N_SHOWN]] for of_group in rows]).astype(np.float64)

    def _keep(self, method: str, images: NDArray[np.float64], groups: NDArray[np.int64]) -> None:
        by_group = [images[groups == group][:_N_SHOWN] for group in range(len(self.names))]
        levels = np.round(np.stack(by_group) * self.data.n_levels).astype(np.uint8)
        _write_array(self.folder / f"{method}-samples.npy", levels)

    def _compare(self, features: NDArray[np.float64], groups: NDArray[np.int64], generation: str) -> dict[str, float]:
        """Scores, overall and by group, disparities and variances; every group has at least ``n_real`` samples."""
        n, held_out = self.settings.n_real, self.split.held_out
        real = self.features(held_out)
        # The same total for both generations: the most that the held-out images allow at MGO, fewer than at EGO.
        total = n / self.proportions["MGO"].max()
        scores = compare(
            table_metrics(
                real.shape[1],
                min(self.settings.projected_dim, real.shape[1]),
                n_bootstrap=self.settings.n_bootstrap,
                random_state=self.seed,
            ),
            real,
            self.data.groups[held_out],
            features,
            groups,
            names=self.data.group_names,
            n=n,
            overall_sizes=[round(share * total) for share in self.proportions[generation]],
            random_state=self.seed,
        )
        for group, name in enumerate(self.data.group_names):
            generated, of_real = features[groups == group][:n], real[self.data.groups[held_out] == group]
            scores[f"variance/{name}"] = float(generated.var(axis=0).sum() / of_real.var(axis=0).sum())
        return scores

    def sample(self, method: str, generation: str, model: Denoiser) -> RejectionSamples:
        """Draw samples, as pairs of an image and its features, which the oracle and the metrics share."""
        target = self.proportions[generation]
        generator = torch.Generator().manual_seed(seed_of(self.seed, f"{method} {generation}"))
        shape = self._to_model(self.split.train[:1]).shape[1:]

        def generate(k: int) -> list[Any]:
            latents = torch.randn(k, *shape, generator=generator).to(self.device)
            labels = None
            if method == "Conditional":
                labels = torch.multinomial(torch.tensor(target), k, replacement=True, generator=generator)
                labels = labels.to(self.device)
            samples = heun_sample(model, latents, labels=labels, n_steps=self.settings.sampler_steps)
            images = self._to_images(samples)
            return list(zip(images, self.data.encode(images), strict=True))

        n = math.ceil(self.settings.n_real / target.min() - 1e-9)  # so that the smallest group has n_real
        try:
            return rejection_sample(
                generate,
                _OfPairs(self.oracle),
                target,
                n,
                max_draws=20 * n,
                exact=True,
                batch_size=self.settings.sample_batch,
                random_state=self.seed,
            )
        except RuntimeError as error:
            raise ValueError(
                f"the model of seed {self.seed}, {method}, cannot be sampled at {generation}: {error}"
            ) from error

    def _to_model(self, rows: NDArray[np.int64]) -> Tensor:
        """Images in the form of the network's input: centred, in float32, flat for an MLP."""
        n_levels = self.data.n_levels
        parts = [
            (n_levels * self.data.images[rows[part]].astype(np.float64) - n_levels * self.data.mean)
            / (n_levels * self.data.spread)
            for part in _slices(len(rows), _CHUNK)
        ]
        x = torch.cat([torch.as_tensor(part, dtype=torch.float32) for part in parts]).to(self.device)
        return x.flatten(1) if self.settings.network.get("architecture") == "mlp" else x

    def _to_images(self, samples: Tensor) -> NDArray[np.float64]:
        """Round to the levels of the files, as a stored image is, and scale to [0, 1]."""
        n_levels = self.data.n_levels
        levels = (n_levels * self.data.spread * samples.double().cpu() + n_levels * self.data.mean).round()
        images: NDArray[np.float64] = levels.clamp(0.0, n_levels).numpy() / n_levels
        return images.reshape(len(images), *self.data.images.shape[1:])


@dataclasses.dataclass(frozen=True)
class _OfPairs:
    """An oracle of features, for samples that are pairs of an image and its features."""

    oracle: ClassifierOracle

    @property
    def group_names(self) -> tuple[str, ...]:
        return self.oracle.group_names

    def warning_of(self, called: Any, /) -> str | None:
        return self.oracle.warning_of(called)

    def __call__(self, samples: Any, /) -> NDArray[np.object_]:
        return self.oracle(np.stack([features for _, features in samples]))


def _features(path: Path, data: ImageData) -> NDArray[np.float64]:
    """Features of all images of the data, kept in a file."""
    if not path.exists():
        _write_array(path, data.encode(data.images))
    features: NDArray[np.float64] = _read_array(path)
    return features


def _write_array(path: Path, array: NDArray[Any]) -> None:
    file = io.BytesIO()
    np.save(file, array)
    write_whole(path, file.getvalue())


def _read_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # also those of archives
        raise ValueError(f"{path} is damaged ({error}); delete the folder {path.parent} to compute it again") from error
    return array


def _slices(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]


def _facts(settings: Table1Settings, base: Denoiser | None) -> dict[str, str]:
    network = ", ".join(f"{name} {value}" for name, value in settings.network.items())
    start = f"{settings.pretrain_steps}" if base is None else "a checkpoint, which may have seen the held-out images,"
    kind = (EDMPreconditioning if base is None else type(base.preconditioning)).__name__
    return {
        "steps": f"{start} + {settings.finetune_steps} of {settings.batch_size} samples for each; Adam, learning rate "
        f"{settings.learning_rate:g}; {kind.removesuffix('Preconditioning')} preconditioning; network: {network}",
        "TopP&R": f"{N_PROJECTIONS} Gaussian projections to {settings.projected_dim} dimensions (one for every "
        f"{SAMPLES_PER_DIMENSION:g} samples of a group, from 2 to 32; the paper: 32), {settings.n_bootstrap} bootstrap "
        "replicates",
        "samples": f"{settings.n_real} real, held out, and {settings.n_real} generated of each group, rounded to the "
        "levels of the files",
        "sampler": f"Heun, {settings.sampler_steps} steps, averaged weights",
        "torch": torch.__version__,
    }
