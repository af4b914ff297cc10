"""The groups of two sets of samples: which there are, which row is in which, and how many."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics._validation import check_group_labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of either side, in sorted order, and the position of every row's group in ``index`` (-1: in none)."""

    index: pd.Index[Any]
    real_ids: NDArray[np.int64]
    fake_ids: NDArray[np.int64]

    def counts(self) -> pd.DataFrame:
        """Count the samples of every group and their proportions; unassigned rows count nowhere."""
        n_groups = len(self.index)
        n_real, n_fake = (np.bincount(ids[ids >= 0], minlength=n_groups) for ids in (self.real_ids, self.fake_ids))
        columns = {
            "n_real": n_real,
            "n_fake": n_fake,
            "real_proportion": n_real / n_real.sum(),
            "fake_proportion": n_fake / n_fake.sum(),
        }
        return pd.DataFrame(columns, index=self.index)

    def unassigned(self) -> dict[str, int]:
        """Count the rows with a None or NaN label on either side."""
        return {"real": int(np.sum(self.real_ids < 0)), "fake": int(np.sum(self.fake_ids < 0))}

    def name(self, label: Hashable) -> str:
        """Return a group's label as text, for messages and JSON: ``"female"``, or ``"gender=female, age=old"``."""
        if isinstance(self.index, pd.MultiIndex) and isinstance(label, tuple):
            return ", ".join(f"{feature}={value}" for feature, value in zip(self.index.names, label, strict=True))
        return str(label)

    def check_two(self) -> None:
        """Raise ValueError unless there are groups to compare."""
        if len(self.index) < 2:
            raise ValueError(
                f"real_sensitive_features and fake_sensitive_features hold one group only, "
                f"{self.name(self.index[0])!r}, and a disparity needs at least two; check the labels"
            )

    def check_present(self, remedy: str) -> None:
        """Raise ValueError if a group has samples on one side only."""
        counts = self.counts()
        for side, other in (("real", "fake"), ("fake", "real")):
            missing = [self.name(label) for label in self.index[counts[f"n_{side}"] == 0]]
            if missing:
                raise ValueError(
                    f"{side}_sensitive_features holds no sample of group {', '.join(map(repr, missing))}, which "
                    f"{other}_sensitive_features has; check the spelling of the labels, add {side} samples of it, or "
                    f"{remedy}"
                )


def assign_groups(
    real_sensitive_features: Any, fake_sensitive_features: Any, *, n_real: int | None = None, n_fake: int | None = None
) -> Groups:
    """Check the labels of both sides and bring them to one index; ``n_real``, ``n_fake``: their number, if known."""
    real_ids, real_index = check_group_labels(real_sensitive_features, n_real, "real_sensitive_features")
    fake_ids, fake_index = check_group_labels(fake_sensitive_features, n_fake, "fake_sensitive_features")
    if isinstance(real_index, pd.MultiIndex) and isinstance(fake_index, pd.MultiIndex):
        if set(real_index.names) != set(fake_index.names):
            raise ValueError(
                f"real_sensitive_features has the features {list(real_index.names)} and fake_sensitive_features has "
                f"{list(fake_index.names)}; pass the same features, under the same names, on both sides"
            )
        fake_index = fake_index.reorder_levels(real_index.names)
    elif real_index.nlevels != fake_index.nlevels:
        raise ValueError(
            f"real_sensitive_features has {real_index.nlevels} features and fake_sensitive_features has "
            f"{fake_index.nlevels}; pass the same features on both sides"
        )
    try:
        labels = sorted({*real_index, *fake_index})
    except TypeError as error:
        raise TypeError(
            f"real_sensitive_features and fake_sensitive_features have labels of different types ({error}); convert "
            "one of them"
        ) from error
    if isinstance(real_index, pd.MultiIndex):
        index: pd.Index[Any] = pd.MultiIndex.from_tuples(labels, names=real_index.names)
    else:
        index = pd.Index(labels, name=real_index.name, tupleize_cols=False)
    position = {label: i for i, label in enumerate(labels)}

    def relocate(ids: NDArray[np.int64], own: pd.Index[Any]) -> NDArray[np.int64]:
        return np.array([*(position[label] for label in own), -1], dtype=np.int64)[ids]  # -1 takes the last: -1

    return Groups(index=index, real_ids=relocate(real_ids, real_index), fake_ids=relocate(fake_ids, fake_index))
