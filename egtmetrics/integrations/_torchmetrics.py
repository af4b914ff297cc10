"""Scores by group as a torchmetrics ``Metric``, which torchmetrics moves between devices and gathers from ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from egtmetrics._arrays import is_empty
from egtmetrics._errors import listed
from egtmetrics._validation import check_features
from egtmetrics.groups import GenerativeMetricFrame, Reference
from egtmetrics.groups._evaluation import Metrics, MissingGroups
from egtmetrics.groups.flat import flat_scores
from egtmetrics.ops import BackendName, device_of
from egtmetrics.streaming import GenerativeMetricStream

_SIDES = ("real", "fake")


class GroupMetric(Metric):  # type: ignore[misc]
    """Scores and disparities by group, as a torchmetrics ``Metric``.

    Parameters
    ----------
    metrics, missing_groups, strict, backend, n_threads
        As for :class:`egtmetrics.GenerativeMetricFrame`.
    group_names
        Names of the groups 0, 1, ..., which the scores go by.
    random_state
        An integer, so that all ranks compute the same.
    reference
        The real side, as a :class:`egtmetrics.Reference` with one sensitive feature, as for
        :class:`egtmetrics.GenerativeMetricStream`. Then only fake rows are added, in its dtype, and no rank gathers the
        real ones. The scores are the same, to the last bit, as if its rows had been added, too.
    reset_real_features
        False keeps the real samples at ``reset``, as in torchmetrics' own FID.
    kwargs
        For ``torchmetrics.Metric``, for example ``dist_sync_fn`` or ``sync_on_compute``.

    Notes
    -----
    All features are kept on the metric's device, as float32 unless ``set_dtype`` says otherwise; for bounded memory see
    ``max_samples`` and ``spill`` of :class:`egtmetrics.GenerativeMetricStream`. ``update`` takes groups as integers,
    since torch gathers nothing else. ``forward`` adds the batch and returns None: the few samples of a batch have no
    meaningful score. The result does not depend on which rank has which rows; a rank may have none. While the model
    generates, ``peek`` returns the scores of what one rank has so far.

    Examples
    --------
    >>> metric = GroupMetric("fid", group_names=["f", "m"])
    >>> groups = torch.tensor([0, 0, 1, 1])
    >>> metric.update(torch.tensor([[0.0], [2.0], [0.0], [2.0]]), real=True, groups=groups)
    >>> metric.update(torch.tensor([[1.0], [3.0], [0.0], [2.0]]), real=False, groups=groups)
    >>> scores = metric.compute()
    >>> for name in ("fid/overall", "fid/f", "fid/m", "fid/worst", "fid/delta_fid"):
    ...     print(name, round(float(scores[name]), 6))
    fid/overall 0.268576
    fid/f 1.0
    fid/m 0.0
    fid/worst 1.0
    fid/delta_fid 1.0
    """

    n_features: Tensor
    real_values: list[Tensor]
    real_groups: list[Tensor]
    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(
        self,
        metrics: Metrics,
        *,
        group_names: Sequence[str],
        random_state: int = 0,
        missing_groups: MissingGroups = "raise",
        strict: bool = False,
        backend: BackendName = "auto",
        n_threads: int | None = None,
        reference: Reference | None = None,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._new_stream = functools.partial(
            GenerativeMetricStream,
            metrics=metrics,
            random_state=random_state,
            missing_groups=missing_groups,
            strict=strict,
            backend=backend,
            n_threads=n_threads,
            reference=reference,
        )
        self._new_stream()  # raises now if an argument is invalid
        self.reference = reference
        self.group_names = list(group_names)
        if len(set(self.group_names)) < len(self.group_names):
            raise ValueError(
                f"group_names={listed(self.group_names)} has a name twice; give every group a name of its own"
            )
        self._sensitive_feature = "group" if reference is None else _only_feature(reference, self.group_names)
        self._peeking: GenerativeMetricStream | None = None
        self._peeked: dict[str, list[Tensor]] = {side: [] for side in _SIDES}
        """The parts that ``_peeking`` has got."""
        self.reset_real_features = reset_real_features
        for side in _SIDES:
            # flat, so that a rank without rows, which does not know d, can take part in gathering
            self.add_state(f"{side}_values", default=[], dist_reduce_fx="cat")
            self.add_state(f"{side}_groups", default=[], dist_reduce_fx="cat")
        self.add_state("n_features", default=torch.zeros(1, dtype=torch.long), dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool, groups: Tensor) -> None:
        """Add features ``(n, d)`` and their groups ``(n,)``, integers from 0, or -1 for a row in no group.

        A batch without rows changes nothing.
        """
        self._check_reference(real)
        if is_empty(features):
            if len(groups):
                raise ValueError(f"groups has {len(groups)} numbers for 0 samples; pass one integer per sample")
            self._check_width(np.shape(features))
            return
        checked: Any = check_features(features, "features", device=device_of(features))
        groups = torch.as_tensor(groups)
        if groups.is_floating_point() or groups.is_complex() or tuple(groups.shape) != (len(checked),):
            raise ValueError(
                f"groups has shape {tuple(groups.shape)} and dtype {groups.dtype} for {len(checked)} samples, expected "
                "one integer per sample; pass the number of its group in group_names, or -1 for none"
            )
        self._check_width(checked.shape)
        n_groups = len(self.group_names)
        low, high = (int(value) for value in groups.aminmax())
        if low < -1 or high >= n_groups:
            raise ValueError(
                f"groups has numbers from {low} to {high}, expected 0 to {n_groups - 1}, as group_names has {n_groups} "
                "names, or -1 for no group; correct the numbers"
            )
        side = "real" if real else "fake"
        self.n_features = torch.full_like(self.n_features, checked.shape[1])
        values = torch.as_tensor(checked, device=self.device).to(self.dtype, copy=True)
        getattr(self, f"{side}_values").append(values.flatten())
        getattr(self, f"{side}_groups").append(groups.to(self.device, torch.long, copy=True))

    def _check_reference(self, real: bool) -> None:
        if self.reference is None:
            return
        if real:
            raise ValueError("the real samples of this metric are those of its reference; add fake ones only")
        dtype = str(self.reference.features.dtype).removeprefix("torch.")
        if f"torch.{dtype}" != str(self.dtype):
            raise TypeError(
                f"reference has {dtype} features, and this metric keeps {self.dtype}; call set_dtype(torch.{dtype}), "
                f"or make a reference of {str(self.dtype).removeprefix('torch.')}"
            )

    def _check_width(self, shape: tuple[int, ...]) -> None:
        d = int(self.n_features.max()) if self.reference is None else self.reference.features.shape[1]
        if d and len(shape) == 2 and shape[1] != d:
            raise ValueError(
                f"features has {shape[1]} features where there were {d} before; pass features of one encoder, or "
                "reset() before using another"
            )

    def compute(self) -> dict[str, Tensor]:
        """Return :func:`egtmetrics.flat_scores` of the frame, as tensors on the metric's device."""
        return self._flat(self.frame())

    def frame(self) -> GenerativeMetricFrame:
        """Return the frame of the samples of this rank; inside ``sync_context``, of all ranks."""
        stream = self._new_stream()
        for side in _SIDES:
            for values, groups in self._parts(side):
                self._add(stream, side, values, groups)
        return stream.compute()

    def peek(self) -> dict[str, Tensor]:
        """Return what ``compute`` would of the samples that this rank has so far, and make the next peek cheap.

        For a metric that gets batches while the model generates; see :meth:`egtmetrics.GenerativeMetricStream.peek`,
        also for what it gains. Until ``reset`` the rows are kept on the host as well.
        """
        if self._peeking is None:
            self._peeking = self._new_stream()
        parts = {side: self._parts(side) for side in _SIDES}
        changed = [
            side
            for side, seen in self._peeked.items()
            if [id(values) for values, _ in parts[side][: len(seen)]] != [id(values) for values in seen]
        ]
        if changed:  # moved to another device or dtype, merged, gathered: other tensors
            self._forget_peeks(keep_real="real" not in changed)
        for side, seen in self._peeked.items():
            for values, groups in parts[side][len(seen) :]:
                self._add(self._peeking, side, values, groups)
                seen.append(values)
        return self._flat(self._peeking.peek())

    def _forget_peeks(self, *, keep_real: bool) -> None:
        if self._peeking is not None:
            self._peeking.reset(keep_real=keep_real)
        self._peeked = {"real": self._peeked["real"] if keep_real else [], "fake": []}

    def _parts(self, side: str) -> list[tuple[Tensor, Tensor]]:
        """Return the batches of a side, or all rows as one after gathering: features, flat, and groups."""
        values, groups = getattr(self, f"{side}_values"), getattr(self, f"{side}_groups")
        pairs = [(values, groups)] if isinstance(values, Tensor) else list(zip(values, groups, strict=True))
        return [pair for pair in pairs if pair[0].numel()]

    def _add(self, stream: GenerativeMetricStream, side: str, values: Tensor, groups: Tensor) -> None:
        sizes = sorted({int(d) for d in self.n_features.flatten()} - {0})
        if len(sizes) > 1:
            raise ValueError(
                f"the ranks have different numbers of features: {listed(sizes)}; use one encoder on all ranks"
            )
        labels = [None if i < 0 else self.group_names[i] for i in groups.long().tolist()]
        features = values.reshape(-1, sizes[0])
        stream.update(features, real=side == "real", sensitive_features={self._sensitive_feature: labels})

    def _flat(self, frame: GenerativeMetricFrame) -> dict[str, Tensor]:
        return {name: torch.tensor(value, device=self.device) for name, value in flat_scores(frame).items()}

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch, as ``update`` does."""
        self.update(*args, **kwargs)

    def reset(self) -> None:
        """Forget all samples, or with ``reset_real_features=False`` the fake ones."""
        values, groups, n_features = list(self.real_values), list(self.real_groups), self.n_features
        self._forget_peeks(keep_real=not self.reset_real_features)
        super().reset()  # which empties the lists in place
        if values and not self.reset_real_features:
            self.real_values, self.real_groups, self.n_features = values, groups, n_features

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        """Bring the states to one dtype on all ranks, also on one without rows, before torchmetrics gathers them."""
        for side in _SIDES:
            for state, dtype in ((f"{side}_values", self.dtype), (f"{side}_groups", torch.long)):
                parts = getattr(self, state)
                joined = torch.cat(parts) if parts else torch.empty(0, device=self.device)
                setattr(self, state, [joined.to(dtype)])
        super()._sync_dist(dist_sync_fn, process_group)


def _only_feature(reference: Reference, group_names: Sequence[str]) -> str:
    """Return the name of a reference's sensitive feature; ValueError unless it is one, of these groups."""
    labels = reference.sensitive_features
    if len(labels.columns) > 1:
        raise ValueError(
            f"reference has the sensitive features {listed(labels.columns)}, expected one, whose labels are "
            "group_names; make it with one"
        )
    unknown = [label for label in labels.iloc[:, 0].dropna().unique().tolist() if label not in group_names]
    if unknown:
        raise ValueError(
            f"group_names={listed(group_names)} lacks groups of the reference: {listed(map(repr, unknown))}; name all "
            "of them, as they are there"
        )
    return str(labels.columns[0])
