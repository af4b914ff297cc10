"""Is a generator as good for the digits 5 to 9, which are rare in its training data, as for the digits 0 to 4?

Three generators are fitted to scikit-learn's images of handwritten digits, of which three in four are below five. A
classifier decides which digit a generated image shows, and so to which group it belongs. Each group is compared with
real digits that no generator has seen.

Two groups of digits need not score alike even with a perfect generator, since one may be harder to imitate. So other
real digits are scored in the place of generated ones, and what counts is each generator's excess over them. Run it with
``make demo`` or ``python examples/digits.py``; it takes about a minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from tabulate import tabulate

from egtmetrics import GenerativeMetricFrame, GroupedSamples, plot_precision_recall
from egtmetrics.groups import Baseline
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


def findings(baseline: Baseline) -> Iterator[str]:
    """Say for every score which group is worse off against other real digits, by how much, or that none is known to be.

    A generator that is further from other real digits in one group than in the other has made the gap itself.
    """
    tests = baseline.test().to_dict("index")
    for metric, table in baseline.tables().items():
        for disparity in table.disparities:
            if disparity.column is None:  # a sum of scores
                continue
            pair, score = table.gap(disparity), disparity.score
            excesses = baseline.excess[table.column(disparity.column)].to_dict()
            numbers = ", ".join(f"{score.text(excesses[group])} for {group}" for group in GROUPS)
            found = tests[metric, disparity.name]
            text = f"{score.label}: {numbers}{f' {score.difference_unit}'.rstrip()}"
            p_value = f"corrected p = {found['adjusted_p_value']:.2g}"
            if found["adjusted_p_value"] <= LEVEL:
                yield f"{text}. The {disparity.worse(table.values, pair)} are worse off ({p_value})"
            else:
                yield (
                    f"{text}. Not distinguishable from noise ({p_value}); a difference of "
                    f"{score.text(found['detectable'])} would have been found with 80 % probability"
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
    other, other_groups = parts[OTHER_REAL][0], group_of(parts[OTHER_REAL][1])
    np.savez(folder / "other-real-digits.npz", features=other, group=other_groups)
    print(f"The excess of each generator's scores over those of {OTHER_REAL}:\n")
    frames, tables = {}, []
    rows: list[list[str]] = []
    for name, fake in generate(images, digits, n_generated).items():
        labels = group_of(classifier.predict(fake))
        np.savez(folder / f"{name.replace(' ', '-')}.npz", features=fake, group=labels)
        samples = GroupedSamples(
            real=reference,
            fake=fake,
            real_sensitive_features=group_of(reference_digits),
            fake_sensitive_features=labels,
        )
        # Scores depend on the number of samples, so every group gets as many as every other one, real and generated.
        matched = samples.matched(across_groups=True, random_state=0)
        frames[name] = frame = GenerativeMetricFrame(metrics=METRICS, samples=matched, random_state=0)
        baseline = frame.baseline(other, other_groups)
        tables.append(f"## {name}\n\n{render(frame, format='markdown')}")
        shares = frame.group_counts["fake_proportion"].to_dict()
        print(f"{name} ({', '.join(f'{shares[group]:.0%} {group}' for group in GROUPS)})")
        for finding in findings(baseline):
            print(f"  - {finding}")
        print()
        shown = {OTHER_REAL: baseline.placebo} if not rows else {}
        for title, scores in {**shown, name: baseline.model}.items():
            columns = frame.describe()
            rows += [
                [f"{title}, {group}", *(one.text(scores[column].to_dict()[group]) for column, one in columns.items())]
                for group in GROUPS
            ]
    header = ["", *(f"{score.label}{' (%)' if score.percent else ''}" for score in frame.describe().values())]
    print(tabulate(rows, headers=header, disable_numparse=True, colalign=["left", *["right"] * (len(header) - 1)]))

    write_whole(folder / "digits.md", "\n".join(tables))
    write_whole(folder / "digits.json", json.dumps({name: frame.to_dict() for name, frame in frames.items()}, indent=2))
    axes = plot_precision_recall(frames, metric="ipr", title="Precision and recall of each group")
    save_figure(axes, folder / "digits-precision-recall.png")
    print(f"\nWrote tables (digits.md, digits.json), figure (digits-precision-recall.png) and features to {folder}.")
    print("A page of one of them, from the command line:")
    print(f"  egtmetrics report {folder}/real.npz {folder}/40-clusters.npz --real-groups group --fake-groups group \\")
    print(f"      --metrics {METRICS} --baseline {folder}/other-real-digits.npz --out {folder}/page.html")
    return frames


if __name__ == "__main__":
    main()
