"""Evaluate with the egtmetrics that is installed: in Python, with its compiled kernels, and on the command line."""

import subprocess
import sys

import egtmetrics

assert not {m for m in sys.modules if m.partition(".")[0] in ("torch", "matplotlib")}, "import pulls in a framework"
assert "egtmetrics.ops" not in sys.modules, "import loads the kernels"

import numpy as np  # noqa: E402

x = np.random.default_rng(0).normal(size=(200, 32))
group = np.repeat(["f", "m"], 100)
labels = {"real_sensitive_features": group, "fake_sensitive_features": group}
frame = egtmetrics.GenerativeMetricFrame(metrics="prdc", real=x, fake=x, **labels)
assert (frame.by_group[["prdc_precision", "prdc_recall"]] == 1.0).all(axis=None), frame.by_group
assert egtmetrics.precision_recall_density_coverage(x, x[::-1]).backend == "cpu"

np.savez("samples.npz", features=x, group=group)
sides = ["samples.npz", "samples.npz", "--real-groups", "group", "--fake-groups", "group"]
for words in (["--version"], ["evaluate", *sides, "--metrics", "prdc,fid"]):
    subprocess.run([sys.executable, "-m", "egtmetrics", *words], check=True)
