"""The rule in pyproject.toml: a warning from another package is an error only if our code causes it."""

from __future__ import annotations

import warnings

import pytest
from sklearn.exceptions import ConvergenceWarning

OURS = ["egtmetrics", "egtmetrics.groups.frame", "training.loop", "tests.groups.test_frame", __name__]
OTHERS = ["transformers.modeling_utils", "torch.nn.modules", "scipy.linalg", "pandas.core.frame", "egtmetricsx"]


def warn(category: type[Warning], module: str) -> None:
    warnings.warn_explicit("something is wrong", category, "file.py", 1, module=module, registry={})


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, UserWarning, RuntimeWarning])
@pytest.mark.parametrize("module", OURS)
def test_a_warning_that_points_to_our_code_is_an_error(category: type[Warning], module: str) -> None:
    with pytest.raises(category):
        warn(category, module)


@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
@pytest.mark.parametrize("module", OTHERS)
def test_a_package_may_deprecate_its_own_code(category: type[Warning], module: str) -> None:
    with warnings.catch_warnings(record=True) as seen:  # unlike pytest.warns, this keeps the filters
        warn(category, module)
    assert len(seen) == 1


@pytest.mark.parametrize("category", [UserWarning, RuntimeWarning])
def test_frameworks_may_warn_about_themselves(category: type[Warning]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warn(category, "transformers.modeling_utils")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("category", "module"), [(RuntimeWarning, "scipy.stats"), (ConvergenceWarning, "sklearn.cluster")]
)
def test_a_warning_about_our_numbers_is_an_error_in_any_package(category: type[Warning], module: str) -> None:
    with pytest.raises(category):
        warn(category, module)
