"""Is a generator as good for the digits 5 to 9, which are rare in its training data, as for the digits 0 to 4?

Three generators are fitted to scikit-learn's images of handwritten digits, of which three in four are below five. A
classifier decides which digit a generated image shows, and so to which group it belongs. Each group is compared with
real digits that no generator has seen.

Two groups of digits need not score alike even with a perfect generator, since one may be harder to imitate. So other
real digits are scored as if a generator had made them: what a generator adds to *their* gap is its own. Run it with
``make demo`` or ``python examples/digits.py``; it takes about a minute.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from tabulate import tabulate

from egtmetrics import GenerativeMetricFrame, GroupedSamples, mgo, plot_precision_recall
from egtmetrics.groups.inference import holm, normal_quantile
from egtmetrics.plots import save_figure
from egtmetrics.report import render, write_whole

Images = NDArray[np.float64]
Labels = NDArray[np.str_]

GROUPS = ("digits 0 to 4", "digits 5 to 9")
OTHER_REAL = "other real digits"
METRICS = "ipr,fid"
"""They suit a few hundred samples of 64 pixels. TopP&R does not: its bandwidth reaches to the 160th neighbour."""
LEVEL = 0.05


def group_of(digits: NDArray[np.int64]) -> Labels:
    return np.where(digits < 5, *GROUPS)


def split(rng: np.random.Generator) -> dict[str, tuple[Images, NDArray[np.int64]]]:
    """Images and digits to train on, three below five for one from five up, and two equal sets to compare with."""
    images, digits = load_digits(return_X_y=True)
    below, above = (rng.permutation(np.flatnonzero(group_of(digits) == group)) for group in GROUPS)
    parts = {"training": (450, 150), "reference": (225, 225), OTHER_REAL: (225, 225)}
    chosen, taken = {}, np.zeros(2, dtype=int)
    for name, sizes in parts.items():
        rows = np.concatenate([side[t : t + n] for side, t, n in zip((below, above), taken, sizes, strict=True)])
        taken += sizes
        chosen[name] = images[rows], digits[rows]
    return chosen


def sample_mixture(images: Images, n_samples: int, *, n_clusters: int, n_directions: int) -> Images:
    """Draw from a Gaussian mixture that was fitted to the principal components of images."""
    pca = PCA(n_directions, random_state=0).fit(images)
    mixture = GaussianMixture(n_clusters, covariance_type="diag", reg_covar=0.1, random_state=0)
    components, _ = mixture.fit(pca.transform(images)).sample(n_samples)
    samples: Images = pca.inverse_transform(components)
    return samples


def generate(images: Images, digits: NDArray[np.int64], n_samples: int) -> dict[str, Images]:
    """Samples of each generator; the last one is conditional and keeps the proportions of the digits."""
    per_digit = [
        sample_mixture(
            images[digits == digit], int(n_samples * np.mean(digits == digit)), n_clusters=1, n_directions=15
        )
        for digit in range(10)
    ]
    return {
        "5 clusters": sample_mixture(images, n_samples, n_clusters=5, n_directions=20),
        "40 clusters": sample_mixture(images, n_samples, n_clusters=40, n_directions=40),
        "1 cluster per digit": np.concatenate(per_digit),
    }


class Gap(NamedTuple):
    """A signed difference between the groups, the second minus the first."""

    column: str
    model: float
    placebo: float
    """Of other real digits, scored as if a generator had made them."""
    p_value: float
    """Of the hypothesis that the two are equal."""


def gaps_of(frame: GenerativeMetricFrame, placebo: GenerativeMetricFrame) -> list[Gap]:
    """Compare the gap of a generator in every score with that of other real digits.

    Both frames share the reference, which makes their errors cancel in part;
    adding their variances is therefore cautious.
    """
    found = []
    for column in map(str, frame.by_group):
        gaps, errors = [], []
        for one in (frame, placebo):
            low, high = one.difference_interval(column, GROUPS[1], GROUPS[0])
            gaps.append((low + high) / 2)
            errors.append((high - low) / 2 / normal_quantile(0.95))
        excess, error = gaps[0] - gaps[1], math.hypot(*errors)
        p_value = float(2.0 * norm.sf(abs(excess) / error)) if error > 0 else 1.0
        found.append(Gap(column, gaps[0], gaps[1], p_value))
    return found


def sentence(frame: GenerativeMetricFrame, gap: Gap, adjusted_p: float) -> str:
    """Say in words who is worse off, by how much, and whether it is more than noise."""
    score = frame.describe()[gap.column]
    factor, unit = (100.0, " points") if score.percent else (1.0, "")
    model, placebo = factor * gap.model, factor * gap.placebo
    numbers = f"gap {model:+.3g}{unit}, of other real digits {placebo:+.3g}{unit}, corrected p = {adjusted_p:.2g}"
    if adjusted_p > LEVEL:
        return f"{score.label}: no gap that is more than noise ({numbers})"
    excess = model - placebo
    worse = GROUPS[score.loss(excess) > 0]  # in these scores a loss is the score itself, or minus it
    return (
        f"{score.label}: {worse} are worse off, by {abs(excess):.3g}{unit} more than other real digits show ({numbers})"
    )


def main(folder: Path = Path("demo-output"), *, n_generated: int = 1500) -> dict[str, GenerativeMetricFrame]:
    """Evaluate the generators, say what was found, and write tables, figure and features to ``folder``."""
    folder.mkdir(exist_ok=True)
    parts = split(np.random.default_rng(0))
    images, digits = parts["training"]
    reference, reference_digits = parts["reference"]
    classifier = make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=1000)).fit(images, digits)
    right = np.mean(group_of(classifier.predict(reference)) == group_of(reference_digits))
    print(f"Three generators have learnt from {len(images)} images; {np.mean(digits < 5):.0%} show a digit below five.")
    print(f"The classifier that sorts generated images into groups is right about {right:.1%} of real ones.\n")

    np.savez(folder / "real.npz", features=reference, group=group_of(reference_digits))
    sets = {OTHER_REAL: parts[OTHER_REAL][0], **generate(images, digits, n_generated)}
    frames, tables, proportions = {}, [], {}
    for name, fake in sets.items():
        labels = group_of(parts[OTHER_REAL][1] if name == OTHER_REAL else classifier.predict(fake))
        np.savez(folder / f"{name.replace(' ', '-')}.npz", features=fake, group=labels)
        proportions[name] = mgo(group_of(digits), labels)
        samples = GroupedSamples(
            real=reference,
            fake=fake,
            real_sensitive_features=group_of(reference_digits),
            fake_sensitive_features=labels,
        )
        # Scores depend on the number of samples, so every group gets as many as every other one, real and generated.
        matched = samples.matched(across_groups=True, random_state=0)
        frames[name] = GenerativeMetricFrame(metrics=METRICS, samples=matched, random_state=0)
        tables.append(f"## {name}\n\n{render(frames[name], format='markdown')}")

    placebo = frames[OTHER_REAL]
    generators = [name for name in frames if name != OTHER_REAL]
    found = {name: gaps_of(frames[name], placebo) for name in generators}
    adjusted = iter(holm(np.array([gap.p_value for gaps in found.values() for gap in gaps])).tolist())
    for name, gaps in found.items():
        print(f"{name} (proportions are off by {100 * proportions[name]:.1f} points)")
        for gap in gaps:
            print(f"  - {sentence(frames[name], gap, next(adjusted))}")
        print()
    columns = placebo.describe()
    header = ["", *(f"{score.label}{' (%)' if score.percent else ''}" for score in columns.values())]
    body = [
        [
            f"{name}, {group}",
            *(score.text(frame.by_group[column].to_dict()[group]) for column, score in columns.items()),
        ]
        for name, frame in frames.items()
        for group in GROUPS
    ]
    print(tabulate(body, headers=header, disable_numparse=True, colalign=["left", *["right"] * len(columns)]))

    write_whole(folder / "digits.md", "\n".join(tables))
    write_whole(folder / "digits.json", json.dumps({name: frame.to_dict() for name, frame in frames.items()}, indent=2))
    axes = plot_precision_recall(frames, metric="ipr", title="Precision and recall of each group")
    save_figure(axes, folder / "digits-precision-recall.png")
    print(f"\nWrote tables (digits.md, digits.json), figure (digits-precision-recall.png) and features to {folder}.")
    print("A page of one of them, from the command line:")
    print(f"  egtmetrics report {folder}/real.npz {folder}/40-clusters.npz --real-groups group --fake-groups group \\")
    print(f"      --metrics {METRICS} --match-groups --out {folder}/page.html")
    return frames


if __name__ == "__main__":
    main()
