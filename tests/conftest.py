"""One profile for all property tests: the same examples in every run, and no time limit, as machines may be shared.

To look for new examples, run ``HYPOTHESIS_PROFILE=explore python -m pytest``; for many more of them, which damage files
for an hour, ``HYPOTHESIS_PROFILE=fuzz python -m pytest tests/data/test_damaged_files.py``.
"""

import itertools
import os
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("explore", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100000")))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True)
def same_entropy_in_every_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test states no seed, its name is one: it passes in every run or in none."""
    new = np.random.default_rng
    name, calls = zlib.crc32(request.node.nodeid.encode()), itertools.count()

    def default_rng(seed: Any = None) -> np.random.Generator:
        return new([name, next(calls)] if seed is None else seed)

    monkeypatch.setattr(np.random, "default_rng", default_rng)


@pytest.fixture
def cuda_on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the CUDA backend on kernels that are compiled for the CPU; tensors on the host act as tensors on a device."""
    pytest.importorskip("torch")
    from egtmetrics.ops import _device
    from tests.simt import build

    monkeypatch.setattr(_device, "KERNELS", _device.DeviceKernels(build.load, "cpu"))
