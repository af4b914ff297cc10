"""Simulate how often a gap is found under several encoders of the same samples: where there is none, and where one is.

    python -m benchmarks.views --out benchmarks/results     ten minutes on one core
    python -m benchmarks.views --repeats 20                 print only

Encoders are fixed random layers with one nonlinearity, of which one does not see the direction that is damaged. The
groups differ in spread, so that scores alone would show gaps. The test is that of
:func:`egtmetrics.groups.compare_views` on baselines, at 5 % over all encoders and metrics.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from egtmetrics import GenerativeMetricFrame
from egtmetrics._atomic import write_whole
from egtmetrics.groups import compare_views

SEED = 36
N = 300
METRICS = "fid,ipr"
Array = NDArray[Any]


def encoders() -> dict[str, Array]:
    """Layers ``(8, d)``; the last one is blind to the first direction."""
    rng = np.random.default_rng(SEED)
    layers = {name: rng.normal(size=(8, d)) / 3.0 for name, d in (("wide", 12), ("narrow", 4), ("blind", 8))}
    layers["blind"][0] = 0.0
    return layers


def repeat(seed: int, shift: float) -> dict[str, bool]:
    """Return what was found where the generated samples of group f are shifted along the first direction."""
    rng = np.random.default_rng([SEED, seed])
    groups = np.repeat(["f", "m"], N)
    real, fake = rng.normal(size=(2, 2 * N, 8)) * np.where(groups == "f", 1.0, 1.5)[:, None]
    fake[groups == "f", 0] += shift
    baselines = {}
    for name, layer in encoders().items():
        frame = GenerativeMetricFrame(
            metrics=METRICS,
            real=np.tanh(real @ layer),
            fake=np.tanh(fake @ layer),
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            random_state=seed,
            n_threads=1,
        )
        baselines[name] = frame.baseline(n_splits=2)
    found = compare_views(baselines, of="encoder")
    beyond, joint = found.gaps["beyond_noise"], found.joint
    return {
        "any gap": bool(beyond.any()),
        "any, uncorrected": bool((found.gaps["p_value"] <= 0.05).any()),
        "FID: seeing encoder": bool(beyond["fid", "wide"]),
        "FID: blind encoder": bool(beyond["fid", "blind"]),
        "any metric: every encoder": bool((joint["p_every"] <= 0.05).any()),
    }


def simulate(repeats: int) -> str:
    rows = []
    for shift, what in ((0.0, "no gap"), (2.0, "f shifted by 2, which one encoder does not see")):
        found = [repeat(seed, shift) for seed in tqdm(range(repeats), desc=what)]
        rows.append({"truth": what, **{key: f"{100 * np.mean([one[key] for one in found]):.1f}%" for key in found[0]}})
    return str(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="How often a gap is found under several encoders.")
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--out", type=Path, help="folder for views.md")
    args = parser.parse_args()
    text = (
        "# Gaps under several encoders\n\n"
        f"Written by `python -m benchmarks.views`. {args.repeats} repeats, {N} real and generated samples in each of "
        f"two groups, three encoders of the same samples, metrics {METRICS}; tests at 5 %, over all encoders and "
        "metrics.\n\n"
        f"{simulate(args.repeats)}\n"
    )
    print(text)
    if args.out is not None:
        write_whole(args.out / "views.md", text)


if __name__ == "__main__":
    main()
