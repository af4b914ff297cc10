"""What the experiments share: stages that are kept in files, the strategies, and scores by group as flat rows.

An experiment owns an output folder, which :func:`claim` ties to its settings. A stage is computed once and then read
from its file, so that an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics import (
    GenerativeMetricFrame,
    __version__,
    frechet_distance,
    improved_precision_recall,
    topp_precision_recall,
)
from egtmetrics._atomic import write_whole
from egtmetrics._validation import check_positive_int
from egtmetrics.data._reading import parsed_json
from egtmetrics.training.losses import GroupLoss, MeanLoss, MinMaxLoss, ReweightedLoss
from egtmetrics.training.resumable import differences

N_PROJECTIONS = 10
"""Of TopP&R, as in the paper."""
N_NEIGHBORS = 5
"""Of the k-nearest-neighbour precision and recall."""
SAMPLES_PER_DIMENSION = 37.5
"""Of TopP&R, see :func:`projected_dim`."""
_PROJECTED_DIMS = (2, 32)
"""Fewest and most: in one dimension precision and recall say next to nothing; the paper has 32."""


def check_counts(settings: Any) -> None:
    """Check that every integer among an experiment's settings is positive."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.type == "int" or (field.type == "int | None" and value is not None):
            check_positive_int(value, field.name)


def claim(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a new folder; refuse a folder with other settings."""
    current = {**settings, "egtmetrics": __version__}  # another version may compute other numbers
    if not path.exists():
        write_whole(path, json.dumps(current, indent=1))
    current = json.loads(json.dumps(current))  # tuples are lists in a file
    if listed := differences(read_json(path), current):
        raise ValueError(f"{path.parent} holds a run with other settings: {listed}; pass the same, or another folder")


def cached(path: Path, compute: Callable[[], Any]) -> Any:
    """Return the content of a JSON file; compute and write it first if the file does not exist."""
    if not path.exists():
        write_whole(path, json.dumps(compute(), indent=1))
    return read_json(path)  # also after writing, so that the first run sees what later runs see


def read_json(path: Path) -> Any:
    try:
        return parsed_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to compute it again") from error


def seed_of(seed: int, name: str) -> int:
    """Return a seed for one stage of one repetition."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def strategy(method: str, counts: NDArray[np.int64], *, target: str = "ego", **options: Any) -> GroupLoss:
    """Return the loss of a method, given how many training samples each group has.

    "Reweighted" and "Min-Max" have their own; all others train without regard to the groups.
    """
    loss: GroupLoss
    if method == "Reweighted":
        loss = ReweightedLoss(target=target, source=counts / counts.sum(), **options)
    elif method == "Min-Max":
        loss = MinMaxLoss(len(counts), **options)
    else:
        loss = MeanLoss(len(counts), **options)
    return loss


def projected_dim(n: int) -> int:
    """Return the dimensions d' to which TopP&R projects n samples of a group: n / 37.5, but from 2 to the paper's 32.

    Its bandwidth is the distance to neighbour 5 d', so to 2/15 of the samples: d' is 8 for 300, and 32 from 1200 on.
    """
    fewest, most = _PROJECTED_DIMS
    return max(fewest, min(most, int(n / SAMPLES_PER_DIMENSION)))


def table_metrics(
    dim: int, projected_dim: int, *, n_bootstrap: int, random_state: int
) -> dict[str, Callable[..., Any]]:
    """TopP&R on Gaussian projections, k-nearest-neighbour precision and recall, and FID, of ``dim`` features."""
    # The same projections for every seed and model, so that they add no noise to comparisons.
    normal = np.random.default_rng(0).standard_normal((N_PROJECTIONS, projected_dim, dim))
    topp = functools.partial(
        topp_precision_recall,
        projections=list(normal / np.sqrt(projected_dim)),
        n_bootstrap=n_bootstrap,
        random_state=random_state,
    )
    ipr = functools.partial(improved_precision_recall, n_neighbors=N_NEIGHBORS)
    return {"topp": topp, "ipr": ipr, "fid": frechet_distance}


def compare(
    metrics: Mapping[str, Callable[..., Any]],
    real: NDArray[Any],
    real_groups: NDArray[np.int64],
    fake: NDArray[Any],
    fake_groups: NDArray[np.int64],
    *,
    names: Sequence[str],
    n: int,
    overall_sizes: Sequence[int],
    overall_metrics: Mapping[str, Callable[..., Any]] | None = None,
    random_state: int = 0,
) -> dict[str, float]:
    """Scores as ``<metric>.<score>/<group>`` and ``.../all``, disparities as ``<metric>.<disparity>``.

    The scores of a group compare its first n rows on both sides. The overall scores compare the first
    ``overall_sizes[group]`` rows of all groups together; ``overall_metrics`` are computed there only.
    """
    labels = np.array(names)
    real_rows, fake_rows = (
        [np.flatnonzero(groups == group) for group in range(len(names))] for groups in (real_groups, fake_groups)
    )

    def pick(pool: NDArray[Any], rows: Sequence[NDArray[np.int64]], sizes: Sequence[int]) -> NDArray[Any]:
        return np.concatenate([pool[of_group[:size]] for of_group, size in zip(rows, sizes, strict=True)])

    equal = [n] * len(names)
    by_group = GenerativeMetricFrame(
        metrics=dict(metrics),
        real=pick(real, real_rows, equal),
        fake=pick(fake, fake_rows, equal),
        real_sensitive_features=np.repeat(labels, n),
        fake_sensitive_features=np.repeat(labels, n),
        random_state=random_state,
    )
    overall_real, overall_fake = pick(real, real_rows, overall_sizes), pick(fake, fake_rows, overall_sizes)
    overall = {
        name: metric(overall_real, overall_fake) for name, metric in {**metrics, **(overall_metrics or {})}.items()
    }
    scores = {
        f"{name}.{score}/{who}": value
        for who, of_metric in {"all": overall, **by_group.results}.items()
        for name, result in of_metric.items()
        for score, value in result.scores().items()
    }
    disparities = by_group.disparities().reset_index().to_dict("records")
    deltas = {f"{row['metric']}.{row['disparity']}": float(row["value"]) for row in disparities}
    return scores | {name: value for name, value in deltas.items() if not name.startswith("proportions.")}
