"""Is a generator as good for the digits 5 to 9, which are rarer in its training data, as for the digits 0 to 4?

The data are scikit-learn's images of digits, subsampled to 75 % below five and 25 % from five up. Three generators are
fitted to them. A classifier decides which digit a generated image shows, and so to which group it belongs. Run it with
``make demo`` or ``python examples/digits.py``; it takes less than a minute.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from egtmetrics import (
    GenerativeMetricFrame,
    ego,
    frechet_distance,
    match_sizes,
    mgo,
    plot_precision_recall,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics.report import render, save_figure, write_whole
from egtmetrics.results import MetricResult

Images = NDArray[np.float64]
Digits = NDArray[np.int64]


def load(rng: np.random.Generator) -> tuple[Images, Digits]:
    """Images and digits, three below five for every one from five up."""
    images, digits = load_digits(return_X_y=True)
    common, rare = np.flatnonzero(digits < 5), rng.permutation(np.flatnonzero(digits >= 5))
    rows = np.concatenate([common, rare[: len(common) // 3]])
    return images[rows], digits[rows]


def sample_mixture(images: Images, n_samples: int, *, n_clusters: int, n_directions: int) -> Images:
    """Draw from a Gaussian mixture that was fitted to the principal components of images."""
    pca = PCA(n_directions, random_state=0).fit(images)
    mixture = GaussianMixture(n_clusters, covariance_type="diag", reg_covar=0.1, random_state=0)
    components, _ = mixture.fit(pca.transform(images)).sample(n_samples)
    samples: Images = pca.inverse_transform(components)
    return samples


def generate(images: Images, digits: Digits, n_samples: int) -> dict[str, Images]:
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


def group_of(digits: Digits) -> NDArray[np.str_]:
    return np.where(digits < 5, "digit < 5", "digit >= 5")


def main(
    folder: Path = Path("demo-output"), *, n_bootstrap: int = 1000, n_projections: int = 10
) -> dict[str, GenerativeMetricFrame]:
    """Evaluate the generators, print the tables, and write tables, figure and features to ``folder``."""
    folder.mkdir(exist_ok=True)
    real, digits = load(np.random.default_rng(0))
    real_groups = group_of(digits)
    classifier = make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=1000))
    accuracy = np.mean(group_of(cross_val_predict(classifier, real, digits)) == real_groups)
    classifier.fit(real, digits)
    print(f"{len(real)} images, {np.mean(digits < 5):.0%} of digits below five.")
    print(f"In cross-validation the classifier is right about {accuracy:.1%} of the groups.\n")

    metrics: dict[str, Callable[..., MetricResult]] = {
        "topp": partial(topp_precision_recall, n_bootstrap=n_bootstrap, n_projections=n_projections),
        "prdc": precision_recall_density_coverage,
        "fid": frechet_distance,
    }
    np.savez(folder / "real.npz", features=real, group=real_groups)
    frames, tables = {}, []
    for name, fake in generate(real, digits, n_samples=1500).items():
        fake_groups = group_of(classifier.predict(fake))
        np.savez(folder / f"{name.replace(' ', '-')}.npz", features=fake, group=fake_groups)
        # Every metric depends on the number of samples, so each group gets as many real ones as fake ones, and as many
        # as the other group. The proportions of the groups are measured before.
        proportions = {"mgo": mgo(real_groups, fake_groups), "ego": ego(fake_groups)}
        matched = match_sizes(
            real,
            fake,
            real_sensitive_features=real_groups,
            fake_sensitive_features=fake_groups,
            across_groups=True,
            random_state=0,
        )
        frame = GenerativeMetricFrame(
            metrics=metrics,
            real=matched.real,
            fake=matched.fake,
            real_sensitive_features=matched.real_sensitive_features,
            fake_sensitive_features=matched.fake_sensitive_features,
            random_state=0,
            progress=True,
        )
        facts = {"before matching": proportions}
        print(f"{name}\n{'=' * len(name)}\n\n{render(frame, provenance=facts)}")
        tables.append(f"## {name}\n\n{render(frame, format='markdown', provenance=facts)}")
        frames[name] = frame

    write_whole(folder / "digits.md", "\n".join(tables))
    write_whole(folder / "digits.json", json.dumps({name: frame.to_dict() for name, frame in frames.items()}, indent=2))
    # Not of topp: its bandwidth reaches to the 160th neighbour, so that it sees little in groups of 300.
    figure = plot_precision_recall(frames, metric="prdc", title="Precision and recall by group, k = 5")
    save_figure(figure, folder / "digits-precision-recall.png")
    print(f"Wrote tables (digits.md, digits.json), figure (digits-precision-recall.png) and features to {folder}.")
    print("The same from the command line:")
    print(f"  egtmetrics evaluate {folder}/real.npz {folder}/5-clusters.npz --real-groups group --fake-groups group \\")
    print("      --metrics topp,prdc,fid --match-groups")
    return frames


if __name__ == "__main__":
    main()
