"""One profile for all property tests: the same examples in every run, and no time limit, as machines may be shared.

To look for new examples, run ``HYPOTHESIS_PROFILE=explore python -m pytest``; for many more of them, which damage files
for an hour, ``HYPOTHESIS_PROFILE=fuzz python -m pytest tests/data/test_damaged_files.py``.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("explore", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100000")))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture
def cuda_on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the CUDA backend on kernels that are compiled for the CPU; tensors on the host act as tensors on a device."""
    pytest.importorskip("torch")
    from egtmetrics.ops import _device
    from tests.simt import build

    monkeypatch.setattr(_device, "KERNELS", _device.DeviceKernels(build.load, "cpu"))
