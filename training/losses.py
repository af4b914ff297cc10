"""Training strategies as losses over per-sample losses: mean, reweighted, min-max (Algorithms 1 and 2), group DRO.

Every strategy is one table of weights. A sample belongs to a cell: its group a at its noise level b (one level where
there is no noise). The loss is

    sum_i weight[a_i, b_i] * per_sample_i,

so the strategies differ only in how they fill the table. They all fill it from the sum and the number of losses in each
cell of the *global* batch (one all-reduce), and from an exponential moving average of the cell means. So all processes
choose alike. A process without a sample of the chosen group returns a zero that is connected to its graph, as
DistributedDataParallel needs.
"""

from __future__ import annotations

import abc
import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from egtmetrics._validation import check_number, check_positive_int

from ._checks import check_proportions
from ._precision import exact_dtype
from ._processes import n_processes


class _Table(NamedTuple):
    """For each cell of a batch: sum and number of its finite losses, and the number of losses that are not finite."""

    sums: Tensor
    counts: Tensor
    nonfinite: Tensor


class _Step:
    """One optimizer step in several backward passes: the weights of all passes, and the sums over those so far."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.seen = weights.new_zeros(3, *weights.shape)
        self.gradients: list[Tensor] = []
        """What each part's backward pass multiplied its value by."""


class GroupLoss(nn.Module, abc.ABC):
    r"""Base of the strategies: checks, sums per cell, averages, accumulation. Use one of its subclasses.

    Called as ``loss(per_sample, groups, bins=None)``, it returns the scalar to call ``backward()`` on:

    - ``per_sample`` ``(n,)``: the loss of every sample, weighted by w(sigma) where there is noise. float16 and
      bfloat16 are converted to float32.
    - ``groups`` ``(n,)``: integers from 0 to ``n_groups - 1``.
    - ``bins`` ``(n,)``: noise levels from 0 to ``n_bins - 1``, see :class:`NoiseLevels`; needed if ``n_bins > 1``.

    Every strategy keeps, in float64 (on MPS in float32), an average of the losses of each group a at each noise level
    b, over the steps t in which the cell had samples:

    .. math:: L_{ab} = \frac{(1 - \alpha) \sum_t \alpha^{T - t} \ell_{ab}^{(t)}}{1 - \alpha^{T}}, \quad
        T \text{ their number},

    Read it as :attr:`group_losses`. It is part of ``state_dict()``, so a resumed training chooses as an uninterrupted
    one would.

    Parameters
    ----------
    n_groups
        Number of groups.
    n_bins
        Number of noise levels; 1 for losses without noise.
    decay
        alpha of the average, at least 0 and below 1. The paper takes 0.9.
    max_nonfinite
        How many batches in a row may hold losses that are NaN or infinite; and for each group, how many of those in a
        row that hold it may have no finite loss of it.

    Raises
    ------
    TypeError, ValueError
        From the call: arguments that are not tensors of the right type, shape, device and range.
    FloatingPointError
        From the call: more than ``max_nonfinite`` batches in a row with losses that are NaN or infinite, or without a
        finite loss of a group that they hold: training would go on without that group.

    Notes
    -----
    Losses that are not finite are left out and counted in :attr:`n_nonfinite`. The gradient can still be NaN, because a
    NaN activation reaches it even with weight zero; ``torch.amp.GradScaler`` skips such a step.

    With ``torch.distributed`` initialised, the sums are over all processes, and a process returns ``world_size`` times
    its part of the global loss: DistributedDataParallel averages gradients, which gives that of the global loss.

    After ``eval()`` nothing is updated, left out or communicated: the loss is that of the given batch, under the
    averages reached in training.

    Cost: O(n + n_groups n_bins), one all-reduce of 3 n_groups n_bins numbers, two waits for the device.
    """

    ema: Tensor
    n_updates: Tensor
    n_nonfinite: Tensor
    """How many losses have been left out."""
    nonfinite_in_a_row: Tensor
    last_weights: Tensor
    """Weight of each group in the last step of training, ``(n_groups,)``: of its mean loss at every level, summed."""
    silent_in_a_row: Tensor
    """For each group, of the last batches that held it, how many had no finite loss of it."""

    def __init__(self, n_groups: int, *, n_bins: int = 1, decay: float = 0.9, max_nonfinite: int = 10) -> None:
        super().__init__()
        self.n_groups = check_positive_int(n_groups, "n_groups")
        self.n_bins = check_positive_int(n_bins, "n_bins")
        self.decay = check_number(decay, "decay", minimum=0.0, below=1.0)
        self.max_nonfinite = check_positive_int(max_nonfinite, "max_nonfinite", minimum=0)
        self.register_buffer("ema", self._cells())
        self.register_buffer("n_updates", self._cells(torch.int64))
        self.register_buffer("n_nonfinite", torch.zeros((), dtype=torch.int64))
        self.register_buffer("nonfinite_in_a_row", torch.zeros((), dtype=torch.int64))
        self.register_buffer("silent_in_a_row", torch.zeros(self.n_groups, dtype=torch.int64))
        self.register_buffer(
            "last_weights", torch.full((self.n_groups,), torch.nan, dtype=torch.float64), persistent=False
        )
        self._step: _Step | None = None

    @property
    def group_losses(self) -> Tensor:
        """Average loss of every group at every noise level, ``(n_groups, n_bins)``; NaN for cells never seen."""
        return self.ema / (1.0 - self.decay ** self.n_updates.to(self.ema.dtype))

    def log_entries(self) -> dict[str, float]:
        """Return what a training log should have: average losses, the worst of them, and weights of the last step.

        For each group a that is ``group_loss_<a>``, the mean of :attr:`group_losses` over the noise levels that it was
        seen at, and ``group_weight_<a>`` of :attr:`last_weights`; and ``worst_group``, with the largest ``group_loss``;
        of a tie, the lowest group. Groups that were never seen have NaN.

        >>> import torch
        >>> from egtmetrics.training import MeanLoss
        >>> loss = MeanLoss(2)
        >>> _ = loss(torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([0, 0, 0, 1]))
        >>> loss.log_entries()
        {'group_loss_0': 2.0, 'group_loss_1': 6.0, 'group_weight_0': 0.75, 'group_weight_1': 0.25, 'worst_group': 1}
        """
        losses = self.group_losses.nanmean(dim=1)
        return {
            **{f"group_loss_{a}": value for a, value in enumerate(losses.tolist())},
            **{f"group_weight_{a}": value for a, value in enumerate(self.last_weights.tolist())},
            "worst_group": int(losses.nan_to_num(nan=-torch.inf).argmax()),
        }

    def forward(self, per_sample: Tensor, groups: Tensor, bins: Tensor | None = None) -> Tensor:
        losses = self._check_losses(per_sample)
        cells = self._check_cells(groups, bins, len(losses))
        if self.training:
            losses = torch.where(torch.isfinite(losses), losses, 0.0)
        table = self._tabulate(per_sample.detach(), cells)
        if self._step is not None:
            self._step.seen += torch.stack(table)
            weights = self._step.weights
        else:
            weights = self._start(table, observe=True)
        value = torch.sum(weights.to(losses.dtype).flatten()[cells] * losses)
        if self._step is not None and value.requires_grad:
            value.register_hook(self._step.gradients.append)  # type: ignore[no-untyped-call]
        return value

    @contextlib.contextmanager
    def accumulate(
        self,
        groups: Tensor,
        bins: Tensor | None = None,
        *,
        per_sample: Tensor | None = None,
        divided_by: int = 1,
    ) -> Iterator[None]:
        """Take all calls within the context as parts of one batch: one optimizer step in several backward passes.

        ``groups`` and ``bins`` are those of the whole step; they give the number of samples in each cell before the
        first part. The gradients of the parts add up to that of the whole step: do not divide by the number of parts.
        Some loops divide by themselves: ``Accelerator.backward`` by its ``gradient_accumulation_steps``, Lightning by
        its ``accumulate_grad_batches``. Pass that number as ``divided_by``; every part's value is multiplied by it.

        The losses of the later parts are not known before the first. So the worst groups are chosen by the averages of
        the *previous* steps, which are updated at the end. Pass ``per_sample``, the losses of the whole step from a
        pass without gradients and with the same noise, to get the choice and the gradient of one big batch.

        Raises
        ------
        ValueError
            At the end, if the parts had other groups or bins than announced.
        RuntimeError
            If called within another such context.

        Warns
        -----
        UserWarning
            At the end, if the backward pass of each of n parts has divided its value by n. A ``GradScaler`` hides that.

        Examples
        --------
        >>> import torch
        >>> from egtmetrics.training import MinMaxLoss
        >>> loss, theta = MinMaxLoss(2), torch.ones((), requires_grad=True)
        >>> x, groups = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 0, 0, 1])
        >>> with loss.accumulate(groups):
        ...     for rows in (slice(0, 2), slice(2, 4)):
        ...         loss(theta * x[rows], groups[rows]).backward()
        >>> theta.grad, loss.group_losses.flatten().tolist()  # no averages at first: a tie, so group 0
        (tensor(2.), [2.0, 4.0])
        """
        if self._step is not None:
            raise RuntimeError("accumulate was called within accumulate; close the first context before the next step")
        divided_by = check_positive_int(divided_by, "divided_by")
        cells = self._check_cells(groups, bins, None)
        known = per_sample is not None
        losses = self._check_losses(per_sample).detach() if per_sample is not None else self.ema.new_zeros(len(cells))
        announced = self._tabulate(losses, cells)
        step = self._step = _Step(divided_by * self._start(announced, observe=known))
        try:
            yield
        finally:
            self._step = None
        seen = _Table(*step.seen)
        if not torch.equal(seen.counts + seen.nonfinite, announced.counts + announced.nonfinite):
            raise ValueError(
                f"groups of accumulate announced {(announced.counts + announced.nonfinite).tolist()} samples per group "
                f"and noise level, but the parts had {(seen.counts + seen.nonfinite).tolist()}; pass the groups and "
                "bins of all parts of the step, and call the loss once per part"
            )
        if not known and self.training:
            self._update(_all_reduce(seen))
        n = len(step.gradients)
        if n > 1 and divided_by == 1 and (torch.stack(step.gradients) == 1.0 / n).all():
            warnings.warn(
                f"the gradients of all {n} parts of a step were divided by {n}, as by a loop that averages parts; but "
                f"accumulate sums them, so the step's gradient is {n} times too small; do not divide, or pass "
                f"divided_by={n} to accumulate where the loop does (Accelerator.backward, Lightning)",
                stacklevel=3,
            )

    def _start(self, table: _Table, *, observe: bool) -> Tensor:
        """Update the averages if asked to, and return the weight of a sample in each cell."""
        if not self.training:
            return self._weights(table.counts)
        table = _all_reduce(table)
        if observe:
            self._update(table)
        weights = self._weights(table.counts)
        self.last_weights.copy_((weights * table.counts).sum(dim=1))
        return n_processes() * weights

    def _update(self, table: _Table) -> None:
        n_nonfinite = int(table.nonfinite.sum())
        self.n_nonfinite += n_nonfinite
        self.nonfinite_in_a_row.mul_(n_nonfinite > 0).add_(n_nonfinite > 0)
        heard = (table.counts > 0).any(dim=1)
        self.silent_in_a_row.masked_fill_(heard, 0).add_(~heard & (table.nonfinite > 0).any(dim=1))
        if n_nonfinite:
            self._check_finite(n_nonfinite, int(table.counts.sum()))
        self._observe(table.sums, table.counts)

    def _check_finite(self, n_nonfinite: int, n_finite: int) -> None:
        """Raise FloatingPointError if too many batches in a row had losses that are not finite."""
        if self.nonfinite_in_a_row > self.max_nonfinite:
            raise FloatingPointError(
                f"per_sample held NaN or infinity in {int(self.nonfinite_in_a_row)} batches in a row, {n_nonfinite} of "
                f"{n_nonfinite + n_finite} losses in the last; expected finite losses: lower the learning rate, clip "
                "gradients, compute the losses in float32, or leave out samples that have no loss"
            )
        longest, group = self.silent_in_a_row.max(dim=0)
        if longest > self.max_nonfinite:
            raise FloatingPointError(
                f"per_sample held no finite loss of group {int(group)} in {int(longest)} batches in a row that held "
                "it, so it is not trained; repair its samples, compute their losses in float32, or leave the group out"
            )

    def _observe(self, sums: Tensor, counts: Tensor) -> None:
        """Update the averages of the cells that have samples."""
        seen = counts > 0
        step = (1.0 - self.decay) * (sums / counts.clamp(min=1.0) - self.ema)
        self.ema += torch.where(seen, step, 0.0)
        self.n_updates += seen

    @abc.abstractmethod
    def _weights(self, counts: Tensor) -> Tensor:
        """Return the weight of a sample in each cell, given how many samples it has in the global batch."""

    def _tabulate(self, losses: Tensor, cells: Tensor) -> _Table:
        """Sum and count losses by cell, on this process."""
        losses = losses.to(self.ema.dtype)
        finite = torch.isfinite(losses)
        rows = torch.stack([torch.where(finite, losses, 0.0), finite.to(losses.dtype), (~finite).to(losses.dtype)])
        table = rows.new_zeros(3, self.n_groups * self.n_bins).index_add_(1, cells, rows)
        return _Table(*table.view(3, self.n_groups, self.n_bins))

    def _cells(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(self.n_groups, self.n_bins, dtype=dtype)

    def _check_losses(self, per_sample: Any) -> Tensor:
        _check_vector(per_sample, "per_sample", None)
        if not per_sample.is_floating_point():
            raise TypeError(f"per_sample has dtype {per_sample.dtype}, expected losses in floating point")
        self._check_device(per_sample, "per_sample")
        losses: Tensor = per_sample if per_sample.dtype == torch.float64 else per_sample.float()
        return losses

    def _check_cells(self, groups: Any, bins: Any, n: int | None) -> Tensor:
        """Return the cell of every sample, ``group * n_bins + bin``; waits for the device once if all is well."""
        _check_vector(groups, "groups", n)
        ids = [("groups", "n_groups", groups, self.n_groups)]
        if bins is not None:
            _check_vector(bins, "bins", len(groups))
            ids.append(("bins", "n_bins", bins, self.n_bins))
        elif self.n_bins > 1:
            raise ValueError(
                f"bins is missing, but {type(self).__name__} has n_bins={self.n_bins}; pass the noise level of every "
                "sample, for example NoiseLevels.bin_of(sigma)"
            )
        for name, _, values, _ in ids:
            if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
                raise TypeError(f"{name} has dtype {values.dtype}, expected integers; convert it with {name}.long()")
            self._check_device(values, name)
        wrong = torch.stack([((values < 0) | (values >= limit)).any() for _, _, values, limit in ids])
        if wrong.any():
            name, option, values, limit = ids[int(wrong.int().argmax())]
            bad = values[(values < 0) | (values >= limit)]
            raise ValueError(
                f"{name} holds {int(bad[0])} ({len(bad)} of {len(values)} values are out of range), expected integers "
                f"from 0 to {limit - 1}; leave out samples without a group (-1, where an oracle abstained), or build "
                f"the loss with another {option}"
            )
        cells: Tensor = groups.long() * self.n_bins
        return cells if bins is None else cells + bins.long()

    def _check_device(self, values: Tensor, name: str) -> None:
        if values.device != self.ema.device:
            raise ValueError(
                f"{name} lies on {values.device}, but {type(self).__name__} on {self.ema.device}; move them to one "
                f"device, the loss with its to({str(values.device)!r})"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GroupLoss:
        """Move with a model to its device, but not to its dtype: averages in bfloat16 would stop changing."""
        exact = {name: value for name, value in self.named_buffers(recurse=False) if value.is_floating_point()}
        try:
            for name, value in exact.items():
                setattr(self, name, value.float())  # float64 would not move to MPS
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            for name, value in exact.items():
                device = getattr(self, name).device
                setattr(self, name, value.to(exact_dtype(device)).to(device))
        return self


class MeanLoss(GroupLoss):
    r"""The plain mean of the losses, blind to groups: unconditional training, equation 8.

    .. math:: \mathcal L = \frac1n \sum_i \ell_i.

    Its :attr:`group_losses` show the gap between the groups that the other strategies try to close.
    See :class:`GroupLoss` for arguments, errors, distributed training and cost.

    References
    ----------
    The paper, appendix B.3.2, equation 8; equation 9 for a model that is conditioned on the group.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import MeanLoss
    >>> loss = MeanLoss(2)
    >>> loss(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 1]))
    tensor(3.)
    >>> loss.group_losses.flatten().tolist()
    [1.5, 6.0]
    """

    def _weights(self, counts: Tensor) -> Tensor:
        return torch.ones_like(counts) / counts.sum().clamp(min=1.0)


class ReweightedLoss(GroupLoss):
    r"""The mean of the losses, weighted so that the groups count in given proportions.

    .. math:: \mathcal L = \frac1n \sum_i w_{a_i} \ell_i, \quad w_a = \pi_a^{\text{target}} / \pi_a^{\text{source}}.

    The mean of w over the training data is 1. So batches need no normalisation, and the estimate of the mean loss under
    the target is unbiased, at every noise level: noise is drawn without regard to groups, so their proportions are the
    same at all levels. The weight of a *noisy sample* does depend on the level, see :class:`DensityRatio`.

    Parameters
    ----------
    target
        Proportions of the groups to train for: an array, a mapping from group to proportion, or ``"ego"`` for equal
        ones.
    source
        Proportions of the groups in the *training* data: ``(n_groups,)``, or ``(n_groups, n_bins)`` if measured at each
        noise level. Then every column has sum 1, and w depends on the level.
    n_bins
        Number of noise levels; by default that of ``source``.
    decay, max_nonfinite
        See :class:`GroupLoss`; also for the call, errors, distributed training and cost.

    Raises
    ------
    ValueError
        Proportions that are negative or do not sum to 1; a group that the target has and the source lacks.

    References
    ----------
    The paper, section 5 (after Choi et al. 2020). Its appendix B.2 has for diffusion models "a rescaling per noise
    level", which is :class:`DensityRatio`; ADR 45 has what else it could mean.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import ReweightedLoss
    >>> loss = ReweightedLoss(target="ego", source=[0.75, 0.25])
    >>> loss(torch.tensor([1.0, 1.0, 1.0, 5.0]), torch.tensor([0, 0, 0, 1]))
    tensor(3.)
    """

    sample_weights: Tensor
    """w, ``(n_groups, n_bins)``."""

    def __init__(
        self, *, target: Any, source: Any, n_bins: int | None = None, decay: float = 0.9, max_nonfinite: int = 10
    ) -> None:
        training = torch.as_tensor(check_proportions(source, "source"))
        if training.ndim == 1:
            training = training[:, None]
        elif n_bins not in (None, training.shape[1]):
            raise ValueError(
                f"source has {training.shape[1]} columns, but n_bins={n_bins}; pass one column per noise level"
            )
        wanted = torch.as_tensor(check_proportions(target, "target", groups=range(len(training))))
        if wanted.ndim != 1:
            raise ValueError(f"target has shape {tuple(wanted.shape)}, expected one proportion per group")
        unreachable = (training <= 0.0).any(dim=1) & (wanted > 0.0)
        if unreachable.any():
            raise ValueError(
                f"source has no samples of group {unreachable.nonzero().flatten().tolist()}, which target has; no "
                "weight can replace them: collect some, or set the proportion in target to 0"
            )
        super().__init__(len(training), n_bins=n_bins or training.shape[1], decay=decay, max_nonfinite=max_nonfinite)
        ratio = torch.where(wanted[:, None] > 0.0, wanted[:, None] / training, 0.0)
        self.register_buffer("sample_weights", ratio.expand(-1, self.n_bins).clone())

    def _weights(self, counts: Tensor) -> Tensor:
        return self.sample_weights / counts.sum().clamp(min=1.0)


class WorstCaseLoss(GroupLoss):
    r"""Base of min-max and group DRO: what they choose by, and how much of the plain mean they keep.

    .. math:: \mathcal L = (1 - c)\, \mathcal L_{\text{worst}} + c\, \frac1n \sum_i \ell_i.

    The worst case is chosen by the *excess* of the losses over a reference r: the loss that can be reached for the
    group at the level. Losses of groups differ by what no model can explain, so the largest loss need not be the
    largest divergence; the excess is. The reference takes part in the choice alone, not in the value or its gradient.

    Parameters
    ----------
    n_groups, n_bins, decay, max_nonfinite
        See :class:`GroupLoss`; also for the call, errors, distributed training and cost.
    reference
        r, finite numbers ``(n_groups,)`` or ``(n_groups, n_bins)``, for example ``held_out_losses(...).means`` of
        :func:`train_specialists`; by default 0. It is part of ``state_dict()``, which a resumed run has to agree with.
    mean_share
        c, at least 0 and below 1: the knob between the worst case and the mean. So every sample weighs at least c / n,
        and no group is starved.

    Raises
    ------
    TypeError, ValueError
        A reference that is not numbers, not finite, or of another shape; a share out of range.

    Notes
    -----
    Measure the reference on samples that no model was trained on. On training samples it is too low, most of all for a
    small group, which then seems to have more to gain than it has.
    """

    reference: Tensor
    """r, ``(n_groups, n_bins)``."""

    def __init__(
        self,
        n_groups: int,
        *,
        n_bins: int,
        decay: float,
        max_nonfinite: int,
        reference: Any,
        mean_share: float,
    ) -> None:
        super().__init__(n_groups, n_bins=n_bins, decay=decay, max_nonfinite=max_nonfinite)
        self.mean_share = check_number(mean_share, "mean_share", minimum=0.0, below=1.0)
        self.register_buffer("reference", self._cells() if reference is None else self._check(reference, "reference"))

    @property
    def group_excess(self) -> Tensor:
        """:attr:`group_losses` minus the reference, ``(n_groups, n_bins)``; NaN for cells never seen."""
        return self.group_losses - self.reference

    def _weights(self, counts: Tensor) -> Tensor:
        plain = 1.0 / counts.sum().clamp(min=1.0)
        return (1.0 - self.mean_share) * self._worst_case(counts) + self.mean_share * plain

    @abc.abstractmethod
    def _worst_case(self, counts: Tensor) -> Tensor:
        """Return the weight of a sample in each cell, without the share of the mean."""

    def _check(self, values: Any, name: str) -> Tensor:
        """Return one finite number per cell, ``(n_groups, n_bins)`` float64 on the CPU."""
        try:
            on_host = values.detach().cpu() if isinstance(values, Tensor) else values
            array = torch.as_tensor(on_host, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} cannot be read as numbers ({error}); pass one per group") from error
        expected = f"({self.n_groups},)" + f" or ({self.n_groups}, {self.n_bins})" * (self.n_bins > 1)
        if array.shape not in ((self.n_groups,), (self.n_groups, self.n_bins)):
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}, expected {expected}; pass one number per group, or one per "
                "group and noise level"
            )
        if not array.isfinite().all():
            raise ValueError(
                f"{name}={array.tolist()} holds NaN or infinity, expected finite numbers; measure every group, at "
                "every noise level"
            )
        return array.view(self.n_groups, -1).expand(-1, self.n_bins).clone()


class MinMaxLoss(WorstCaseLoss):
    r"""The mean loss of the worst group, at every noise level the worst there: Algorithms 1 and 2.

    .. math:: \mathcal L_{\text{worst}} = \frac1{|B|} \sum_{b \in B} \ell_{a^\star(b), b}, \quad
        a^\star(b) = \arg\max_{a \text{ in the batch at level } b} L_{ab} - r_{ab},

    with B the noise levels in the batch, l_ab the mean loss of group a's samples at level b, L their moving average,
    the batch included, and r the reference, by default 0. With ``n_bins=1`` this is Algorithm 2. Ties go to the lowest
    group.

    Parameters
    ----------
    n_groups, n_bins, decay, max_nonfinite
        See :class:`GroupLoss`; also for the call, errors, distributed training and cost.
    reference, mean_share
        See :class:`WorstCaseLoss`; the paper has neither.
    literal
        Follow the algorithms to the letter, which changes four things. The average starts at zero, without a correction
        for that. A group that a batch lacks counts as if its loss were zero. It can be chosen; then the level has no
        gradient. Levels are summed, not averaged. Not with a reference or a share of the mean.

    Notes
    -----
    The literal version is not the default because it chooses badly in small batches. Take true losses of 1.0 and, for a
    tenth of the data, 1.1, with a standard deviation of 0.3 between samples. At batch size 8, the literal average
    misses the worst group in 95 % of the first 30 steps, the default in 20 %; at batch size 64, either in 3 %.

    Algorithm 1 omits w(sigma). Without it the largest noise outweighs all else, so keep it in ``per_sample``.
    The chosen group need not have the largest loss in the current batch. Min-max is known to close gaps by making the
    better group worse: watch the worst group's metrics beside the gap.

    References
    ----------
    The paper, appendix B.3.2, Algorithms 1 and 2; Theorem 4.3 motivates them. Averaging over levels only rescales.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import MinMaxLoss
    >>> loss = MinMaxLoss(2)
    >>> loss(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 1]))
    tensor(6.)
    >>> loss.worst_groups
    tensor([1])

    The second group has the larger loss, but no model gets below 5.5 there; the first has more to gain:

    >>> loss = MinMaxLoss(2, reference=[0.2, 5.5])
    >>> loss(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 1])), loss.group_excess.flatten().tolist()
    (tensor(1.5000), [1.3, 0.5])
    """

    worst_groups: Tensor
    """Group chosen at each noise level in the last step of training, ``(n_bins,)``; -1 for one without samples."""

    def __init__(
        self,
        n_groups: int,
        *,
        n_bins: int = 1,
        decay: float = 0.9,
        reference: Any = None,
        mean_share: float = 0.0,
        literal: bool = False,
        max_nonfinite: int = 10,
    ) -> None:
        super().__init__(
            n_groups,
            n_bins=n_bins,
            decay=decay,
            max_nonfinite=max_nonfinite,
            reference=reference,
            mean_share=mean_share,
        )
        if literal and (reference is not None or mean_share != 0.0):
            raise ValueError(
                "literal=True was given with a reference or a mean_share, which the paper's algorithms do not have; "
                "leave one of the two out"
            )
        self.literal = literal
        self.register_buffer("worst_groups", torch.full((self.n_bins,), -1), persistent=False)

    @property
    def group_losses(self) -> Tensor:
        """Average loss of every group at every noise level, ``(n_groups, n_bins)``; NaN for cells never seen."""
        return self.ema.clone() if self.literal else super().group_losses

    def _observe(self, sums: Tensor, counts: Tensor) -> None:
        super()._observe(sums, counts.clamp(min=1.0) if self.literal else counts)

    def _worst_case(self, counts: Tensor) -> Tensor:
        present = counts > 0
        if self.literal:
            worst = self.group_losses.argmax(dim=0)
            self._choose(worst)
            return _one_hot(worst, counts) / counts.clamp(min=1.0)
        excess = self.group_excess.nan_to_num(nan=torch.inf)  # never seen, so possibly the worst
        worst = excess.masked_fill(~present, -torch.inf).argmax(dim=0)
        self._choose(torch.where(present.any(dim=0), worst, -1))
        return _weights_of_cell_means(_one_hot(worst, counts), counts)

    def _choose(self, worst: Tensor) -> None:
        if self.training:
            self.worst_groups.copy_(worst)


class GroupDROLoss(WorstCaseLoss):
    r"""A weighted mean of the groups' mean losses, whose weights grow exponentially with the loss: a soft maximum.

    .. math:: \mathcal L_{\text{worst}} = \frac1{|B|} \sum_{b \in B} \sum_a q_{ab} \ell_{ab}, \quad
        q_{ab} \propto q_{ab} \exp\bigl(\eta\, (\ell_{ab} - r_{ab})\bigr) \text{ before each step},

    with B the noise levels in the batch, l_ab the mean loss of group a's samples at level b, and r the reference, by
    default 0. A group that the batch lacks keeps its q; in that batch the others share its weight in proportion.

    Parameters
    ----------
    n_groups, n_bins, decay, max_nonfinite
        See :class:`GroupLoss`; also for the call, errors, distributed training and cost. ``decay`` only serves
        :attr:`group_losses`.
    step_size
        eta, at least 0. Sagawa et al. take 0.01. With 0 the weights change by :meth:`update_weights` alone.
    reference, mean_share
        See :class:`WorstCaseLoss`.

    References
    ----------
    Sagawa, Koh, Hashimoto, Liang: Distributionally Robust Neural Networks for Group Shifts, ICLR 2020, Algorithm 1.
    The reference is what Oren, Sagawa, Hashimoto, Liang call a baselined loss: Distributionally Robust Language
    Modeling, EMNLP 2019. Not among the paper's strategies.

    Examples
    --------
    >>> import torch
    >>> from egtmetrics.training import GroupDROLoss
    >>> loss = GroupDROLoss(2, step_size=0.1)
    >>> loss(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 1]))
    tensor(4.2479)
    >>> loss.group_weights.flatten()
    tensor([0.3894, 0.6106], dtype=torch.float64)
    """

    log_weights: Tensor

    def __init__(
        self,
        n_groups: int,
        *,
        n_bins: int = 1,
        decay: float = 0.9,
        step_size: float = 0.01,
        reference: Any = None,
        mean_share: float = 0.0,
        max_nonfinite: int = 10,
    ) -> None:
        super().__init__(
            n_groups,
            n_bins=n_bins,
            decay=decay,
            max_nonfinite=max_nonfinite,
            reference=reference,
            mean_share=mean_share,
        )
        self.step_size = check_number(step_size, "step_size", minimum=0.0)
        self.register_buffer("log_weights", self._cells().log_softmax(dim=0))

    @property
    def group_weights(self) -> Tensor:
        """q, ``(n_groups, n_bins)``; every column has sum 1."""
        return self.log_weights.exp()

    def update_weights(self, deficits: Any) -> None:
        r"""Raise the weights of groups by what was *measured* of them: q becomes q exp(deficit), normalised.

        It counts from the next step on. So weights can follow a validation set, or what matters in the end: precision
        and recall of generated samples. Of several processes, each has to pass the same numbers.

        Parameters
        ----------
        deficits
            How much each group lacks, times a step size: finite numbers ``(n_groups,)`` or ``(n_groups, n_bins)``.
            Only differences between groups count.

        Raises
        ------
        TypeError, ValueError
            Deficits that are not numbers, not finite, or of another shape.

        Examples
        --------
        >>> import math
        >>> from egtmetrics.training import GroupDROLoss
        >>> loss = GroupDROLoss(2, step_size=0.0)
        >>> loss.update_weights([0.0, math.log(3.0)])
        >>> loss.group_weights.flatten()
        tensor([0.2500, 0.7500], dtype=torch.float64)
        """
        exponents = self._check(deficits, "deficits").to(self.log_weights)
        self.log_weights.copy_((self.log_weights + exponents).log_softmax(dim=0))

    def _observe(self, sums: Tensor, counts: Tensor) -> None:
        super()._observe(sums, counts)
        excess = sums / counts.clamp(min=1.0) - self.reference
        # The groups present share anew what they had together.
        old = self.log_weights.masked_fill(counts == 0, -torch.inf)
        new = (old + self.step_size * excess).log_softmax(dim=0) + old.logsumexp(dim=0)
        self.log_weights.copy_(torch.where(counts > 0, new, self.log_weights).log_softmax(dim=0))

    def _worst_case(self, counts: Tensor) -> Tensor:
        share = self.log_weights.masked_fill(counts == 0, -torch.inf).softmax(dim=0)
        return _weights_of_cell_means(share.nan_to_num(nan=0.0), counts)  # NaN: a level without samples


def _weights_of_cell_means(share: Tensor, counts: Tensor) -> Tensor:
    """Weights of the samples in a mean over levels of the cell means, weighted by ``share`` within a level."""
    n_levels = (counts > 0).any(dim=0).sum().clamp(min=1)
    return share / counts.clamp(min=1.0) / n_levels


def _one_hot(groups: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(0, groups[None], 1.0)


def _all_reduce(table: _Table) -> _Table:
    if n_processes() == 1:
        return table
    joined = torch.stack(table)
    distributed.all_reduce(joined)
    return _Table(*joined)


def _check_vector(values: Any, name: str, n: int | None) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} is {type(values).__name__}, expected a tensor; convert it with torch.as_tensor")
    if values.ndim != 1:
        remedy = "average over the other dimensions, for example with per_sample.flatten(1).mean(1)"
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, expected one value per sample, (n,); "
            + (remedy if name == "per_sample" else f"flatten {name}")
        )
    if n is not None and len(values) != n:
        raise ValueError(f"{name} has {len(values)} values for {n} samples; pass one per sample, in the same order")
