"""Fine-tuning causal language models: the loss of every answer, and a training loop under the group strategies.

The rows of a batch often begin with the same prompt, in the paper three times as long as the answers. Then the prompt
goes through the model once, and its keys and values serve all rows: the same losses and gradients for less work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from egtmetrics._errors import listed, out_of_memory
from egtmetrics._extras import extra
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_number, check_positive_int

from .early_stop import EarlyStop, stop_early
from .losses import GroupLoss, MeanLoss
from .prompts import IGNORED, PromptedTexts
from .resumable import ResumableTraining, RunCounts, describe_loss, describe_weights, fingerprint, seeded

_ORDER, _DROPOUT = 0, 1
"""Names of streams of random numbers."""


def answer_losses(model: Any, batch: Mapping[str, Tensor], *, share_prompt: bool = True) -> Tensor:
    r"""Mean negative log-likelihood of the tokens of every answer, for a :class:`GroupLoss`.

    .. math:: \ell_i = -\frac{1}{|T_i|} \sum_{t \in T_i} \log p(x_{i,t} \mid x_{i, < t}), \quad T_i \text{ the labels.}

    So every text has the same weight, however long it is.

    Parameters
    ----------
    model
        Causal language model of transformers, with or without adapters.
    batch
        ``input_ids``, ``attention_mask``, ``labels``, ``(n, length)``, one text in each row, as
        :meth:`PromptedTexts.collate` makes them, or the collators of transformers and TRL. The labels are the tokens to
        learn, and :data:`IGNORED` elsewhere. A label on the first token of a row is ignored: nothing predicts it.
        Tokens with attention 0 count as absent, be they padding on the right, on the left, or between. Positions follow
        from the attention. ``position_ids`` are only checked to agree; other entries are ignored.
    share_prompt
        Pass the tokens that all rows begin with through the model once. This is not done where it would change the
        result (every row draws its own dropout; prompt tuning, aLoRA, X-LoRA) or is impossible (gradient checkpointing,
        models with other states than keys and values). Turn it off inside DistributedDataParallel, which expects one
        forward pass.

    Returns
    -------
    Tensor
        ``(n,)``, float32, nats per token. NaN for a row without labels, which passes on no gradient; the row must not
        take part in a strategy: ``loss(losses[kept], groups[kept])`` with ``kept = has_labels(batch)``.

    Raises
    ------
    ValueError
        A missing entry; entries of other shapes; attention other than 0 and 1; a label that is not the token at its
        place, or has attention 0; ``position_ids`` other than 0, 1, 2 ... along the tokens of a row.

    Notes
    -----
    The tokens of a row are moved to its first columns, so the loss does not depend on where padding stands, in models
    with absolute positions too. Logits are computed for the answers alone; they take n x longest answer x vocabulary
    numbers.
    """
    ids, mask, labels = _tokens_first(*_check_rows(batch))
    targets = labels != IGNORED
    n, length = ids.shape
    first = int((targets.any(dim=0).cumsum(dim=0) == 0).sum())  # column of the first label, or length if there is none
    # Counted from the end, since adapters may put tokens of their own in front. The column before a label predicts it.
    kept = torch.arange(first - length - 1, -1, device=ids.device)
    shared = min(_common_prefix(ids, mask), first - 1) if share_prompt and n > 1 and _can_share(model) else 0
    if shared == 0:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
    else:
        states = prompt_states(model, ids[:1, :shared]).cache
        states.batch_repeat_interleave(n)
        logits = model(
            input_ids=ids[:, shared:], attention_mask=mask, cache=states, use_cache=True, logits_to_keep=kept
        ).logits
    nll = functional.cross_entropy(
        logits.float().flatten(0, 1), labels[:, first:].flatten(), reduction="none", ignore_index=IGNORED
    )
    n_targets = targets.sum(dim=1)
    means = nll.view(n, length - first).sum(dim=1) / n_targets.clamp(min=1)
    return torch.where(n_targets > 0, means, torch.nan)


def has_labels(batch: Mapping[str, Tensor]) -> Tensor:
    """Return which rows of a batch have a label to learn, ``(n,)`` bool; the others have no loss."""
    labels, mask = batch["labels"], batch.get("attention_mask")
    if mask is None or mask.shape != labels.shape:  # not a batch of answer_losses: the first label may count
        return (labels != IGNORED).any(dim=1)
    return (_without_first(labels, mask) != IGNORED).any(dim=1)


def _without_first(labels: Tensor, mask: Tensor) -> Tensor:
    """Take the label off the first token of every row; nothing predicts it."""
    attended = mask == 1
    return labels.masked_fill(attended & (attended.cumsum(dim=1) == 1), IGNORED)


def _check_rows(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention and labels of a batch, if they can mean but one thing; waits for the device once."""
    names = ("input_ids", "attention_mask", "labels")
    for name in names:
        if name not in batch:
            raise ValueError(
                f"batch holds {listed(batch)}, but no {name}; pass input_ids, labels, and an attention_mask with 1 for "
                "the tokens of a row and 0 for padding, as PromptedTexts.collate does"
            )
    ids, mask, labels = (batch[name] for name in names)
    if ids.ndim != 2 or not ids.shape == mask.shape == labels.shape:
        shapes = ", ".join(f"{name} {tuple(batch[name].shape)}" for name in names)
        raise ValueError(f"batch has {shapes}; expected one shape, (n, length), with one text in each row")
    attended, targets = mask == 1, labels != IGNORED
    places = attended.cumsum(dim=1) - 1
    positions = batch.get("position_ids")
    if positions is None:
        positions = places
    elif positions.shape not in (ids.shape, (1, ids.shape[1])):
        raise ValueError(f"position_ids has shape {tuple(positions.shape)}, expected {tuple(ids.shape)}; leave it out")
    wrong = {
        "attention_mask: row {} has values other than 0 and 1; put each text into a row of its own": (
            ~attended & (mask != 0)
        ),
        "labels: row {} has a label where attention_mask is 0; pass the label -100 if it is padding, attention 1 if it "
        "is a token to learn (where padding is the token that ends a text, attention follows from lengths alone)": (
            targets & ~attended
        ),
        "labels: row {} has a label that is not the token at its place; pass input_ids, with -100 where there is "
        "nothing to learn, and do not shift them": targets & (labels != ids),
        "position_ids: row {} does not count 0, 1, 2 ... along the tokens with attention 1; leave position_ids out, "
        "and put each text into a row of its own": attended & (positions != places),
    }
    rows = torch.stack([fault.any(dim=1) for fault in wrong.values()])
    if rows.any():
        fault, row = rows.nonzero()[0].tolist()
        raise ValueError(list(wrong)[fault].format(row))
    return ids, mask, _without_first(labels, mask)


def _tokens_first(ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move the tokens of every row to its first columns, and padding behind them."""
    order = (mask == 0).int().argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order), labels.gather(1, order)


def prompt_states(model: Any, ids: Tensor) -> Any:
    """Pass a prompt ``(1, length)`` through a model; return its keys and values, and the logits of its last token."""
    if not _adapters_are_of_tokens(model):
        raise ValueError(
            f"model has adapters of {model.active_peft_config.peft_type.value} that depend on the whole input of a "
            "pass, so a prompt and its answers cannot go through it one after the other; take plain LoRA"
        )
    cache = import_extra("transformers").DynamicCache(config=model.config)
    return model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)


def _common_prefix(ids: Tensor, mask: Tensor) -> int:
    """How many first columns are the same in all rows, without padding."""
    same = ((ids == ids[:1]) & (mask == 1)).all(dim=0)
    return int(same.int().cumprod(dim=0).sum())


def _adapters_are_of_tokens(model: Any) -> bool:
    """Whether adapters do the same to a token in every pass, as those of prompt tuning, aLoRA and X-LoRA do not."""
    config = getattr(model, "active_peft_config", None)
    return config is None or not (
        config.is_prompt_learning or config.peft_type == "XLORA" or getattr(config, "alora_invocation_tokens", None)
    )


def _can_share(model: Any) -> bool:
    from transformers import cache_utils

    if not _adapters_are_of_tokens(model):
        return False
    if model.training:
        if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            return False  # it keeps no keys and values
        options = vars(model.config.get_text_config())  # the dropout of attention is there, not in a module
        if any("dropout" in name and isinstance(p, float) and p > 0.0 for name, p in options.items()):
            return False
        if any(isinstance(module, nn.Dropout) and module.p > 0.0 for module in model.modules()):
            return False
    keys_and_values = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
    layers = cache_utils.DynamicCache(config=model.config).layers
    return len(layers) > 0 and all(type(layer) in keys_and_values for layer in layers)


@torch.no_grad()
def losses_of_texts(model: Any, texts: PromptedTexts, *, batch_size: int = 16, progress: bool = False) -> Tensor:
    """Return :func:`answer_losses` of all texts, ``(n,)`` float32 on the CPU, without gradients and in eval mode.

    Texts of similar length share a batch. ``batch_size`` is halved when memory runs out.
    """
    size = check_positive_int(batch_size, "batch_size")
    rows = np.argsort([len(tokens) for tokens in texts.tokens], kind="stable")
    losses = torch.empty(len(texts))
    done = 0
    with evaluating(model), tqdm(total=len(rows), unit="text", leave=False, disable=not progress) as bar:
        while done < len(rows):
            part = rows[done : done + size]
            with out_of_memory() as failed:
                losses[part] = answer_losses(model, _to(_collate(texts, part), device_of(model))).cpu()
            if failed:
                size = halve(size, "batch_size", failed[0])
                continue
            done += len(part)
            bar.update(len(part))
    return losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageRun(RunCounts):
    """What :func:`train_language_model` returns."""

    micro_batch: int
    """Texts at once in the end: as asked for, or fewer after running out of memory."""
    log: pd.DataFrame
    """One row per step: ``step``, ``loss`` (mean over the batch), ``objective`` (value of the strategy), and for each
    group a ``n_<a>`` (texts in the batch), ``loss_<a>`` (their mean loss; NaN without any) and ``average_<a>``
    (``group_losses`` after the step)."""


def train_language_model(
    model: Any,
    texts: PromptedTexts,
    loss: GroupLoss,
    *,
    n_epochs: int = 6,
    n_steps: int | None = None,
    batch_size: int = 64,
    micro_batch: int = 16,
    learning_rate: float = 1e-4,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    random_state: int = 0,
    progress: bool = False,
) -> LanguageRun:
    r"""Fine-tune a language model with AdamW under a strategy, as the paper does LLaMA.

    Each epoch is a permutation of the texts, cut into batches, of which the last may be smaller. A batch goes through
    the model in parts whose gradients add up to one optimizer step on

    .. math:: \mathcal L = \text{loss}\bigl((\ell_i)_i, (a_i)_i\bigr), \quad \ell_i \text{ of } \texttt{answer\_losses}.

    The strategy weights the groups once per step, by the averages of the steps before, see
    :meth:`GroupLoss.accumulate`; so the result does not depend on the size of the parts. In Algorithm 2 the averages
    include the current step, which would take a second pass through the model.

    Parameters
    ----------
    model
        Any causal language model of transformers, with or without adapters of peft: whatever requires a gradient is
        trained, in place. It is trained on its own device, where ``loss`` must be, too.
    texts
        Of :func:`tokenise`.
    loss
        The strategy, with ``n_bins=1``; its averages are updated.
    n_epochs
        Passes over the texts; the paper has 6.
    n_steps
        Optimizer steps, instead of ``n_epochs``.
    batch_size
        Texts of a step; the paper has 64.
    micro_batch
        Texts at once, halved when memory runs out. Within a batch, texts are ordered by length, so that the parts need
        little padding.
    learning_rate
        The paper has 1e-4. It is constant; weight decay is torch's default of 0.01.
    checkpoint
        File to write to, and to resume from if it exists. It holds the trained weights, not the base model, and is
        replaced as a whole, so a kill leaves the one before. After the last step it restores the trained model.
    checkpoint_every
        Steps between checkpoints; one is always written at the end.
    random_state
        Seed of the order of texts and of dropout. The global generators are left as they were.
    progress
        Show a progress bar, which counts steps.

    Returns
    -------
    LanguageRun
        Counts and the log. The model is left in eval mode.

    Raises
    ------
    ValueError
        Nothing to train, options that do not fit; a checkpoint that is cut off, has more steps, or comes from another
        training: the error names what differs.
    FloatingPointError
        From the loss: NaN or infinite losses in more steps in a row than it allows.
    MemoryError
        Not even one text fits.

    Notes
    -----
    A resumed run equals an uninterrupted one bit for bit on one machine with one number of threads. It runs in one
    process; for several, :class:`GroupLossTrainerMixin` does the same in the Trainer of transformers.

    The loss leaves out losses that are not finite, and counts them. If they make the gradient NaN, the step is skipped
    and counted in ``n_skipped``.

    References
    ----------
    The paper, section 5, appendices B.3.2 and B.4.1.

    Examples
    --------
    >>> from egtmetrics.training import MinMaxLoss
    >>> from egtmetrics.training.language import train_language_model
    >>> from egtmetrics.training.prompts import tokenise
    >>> rows = tokenise(tokenizer, prompts, answers, groups)  # doctest: +SKIP
    >>> model = peft.get_peft_model(model, lora_config).cuda()  # doctest: +SKIP
    >>> run = train_language_model(model, rows, MinMaxLoss(2).cuda(), checkpoint="min-max.pt")  # doctest: +SKIP
    """
    batch_size = check_positive_int(batch_size, "batch_size")
    micro_batch = check_positive_int(micro_batch, "micro_batch")
    checkpoint_every = check_positive_int(checkpoint_every, "checkpoint_every")
    seed = check_positive_int(random_state, "random_state", minimum=0)
    learning_rate = check_number(learning_rate, "learning_rate", above=0.0)
    n_epochs = check_positive_int(n_epochs, "n_epochs")
    steps_per_epoch = math.ceil(len(texts) / batch_size)
    n_steps = n_epochs * steps_per_epoch if n_steps is None else check_positive_int(n_steps, "n_steps")
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    _check_training(texts, loss, trained)
    settings = {
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "random_state": seed,
        "device": device_of(model).type,
        **describe_loss(loss),
        **describe_weights(trained),
        "texts": fingerprint(torch.tensor(tokens) for tokens in texts.tokens),
        "prompts": fingerprint([torch.tensor(texts.prompt_lengths)]),
        "groups": fingerprint([texts.groups]),
        "date": texts.date,
        "adapters": describe_adapters(model),
        "first weights": fingerprint(model.state_dict().values()),
    }
    training = _LanguageTraining(model, trained, texts, loss, batch_size, micro_batch, learning_rate, seed)
    model.train()
    resumed_at = training.run(
        settings, n_steps=n_steps, checkpoint=checkpoint, checkpoint_every=checkpoint_every, progress=progress
    )
    model.eval()
    epochs, rest = divmod(training.step, steps_per_epoch)
    return LanguageRun(
        n_steps=training.step,
        n_samples_seen=epochs * len(texts) + rest * batch_size,
        n_skipped=training.n_skipped,
        resumed_at=resumed_at,
        micro_batch=training.micro_batch,
        log=training.log,
    )


def train_language_specialists(
    model: Any,
    texts: PromptedTexts,
    held_out: PromptedTexts,
    *,
    n_steps: int,
    look_every: int = 20,
    patience: int = 3,
    folder: str | Path | None = None,
    random_state: int = 0,
    **options: Any,
) -> tuple[EarlyStop, ...]:
    """Fine-tune a language model once for every group, on its texts alone, until its own held-out loss rises.

    Every group starts from the same weights. So no group costs another one anything; what a small group could learn
    from a large one is lost. With adapters, such as LoRA, a specialist is a set of adapters on one base.

    Parameters
    ----------
    model
        See :func:`train_language_model`. It ends with the weights it had before.
    texts
        Of :func:`tokenise`; training texts of every group.
    held_out
        Texts to stop by, of every group; no training texts among them.
    n_steps
        Most optimizer steps of each group.
    look_every, patience
        See :func:`egtmetrics.training.stop_early`.
    folder
        For checkpoints, made if missing; a run that was killed goes on from there. By default nothing is kept.
    random_state
        Seed of all trainings.
    options
        Of :func:`train_language_model`: ``batch_size``, ``micro_batch``, ``learning_rate``, ``progress``.

    Returns
    -------
    tuple of EarlyStop
        For every group the trained weights with the lowest mean of :func:`losses_of_texts`, and the losses at all
        looks. ``model.load_state_dict(specialists[a].weights, strict=False)`` makes the model that of group a.

    Raises
    ------
    ValueError
        A group without texts or without held-out texts; and as :func:`train_language_model` raises it.
    FloatingPointError
        No look at a group had a finite held-out loss.

    References
    ----------
    The paper, section 4.1, conditional closure.

    Examples
    --------
    >>> from egtmetrics.training.language import train_language_specialists
    >>> model = peft.get_peft_model(model, lora_config).cuda()  # doctest: +SKIP
    >>> specialists = train_language_specialists(model, texts, held_out, n_steps=200)  # doctest: +SKIP
    >>> model.load_state_dict(specialists[1].weights, strict=False)  # doctest: +SKIP
    """
    counts, held_out_counts = torch.bincount(texts.groups), torch.bincount(held_out.groups)
    if len(counts) != len(held_out_counts) or not (counts.all() and held_out_counts.all()):
        raise ValueError(
            f"texts has {counts.tolist()} rows of groups 0, 1, ..., held_out {held_out_counts.tolist()}; expected some "
            "of every group in both"
        )
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    first = {name: weight.detach().clone() for name, weight in trained.items()}

    def look(own: PromptedTexts, own_held_out: PromptedTexts, run: Path, step: int) -> tuple[dict[str, Any], float]:
        _load(trained, first)
        if step > 0:
            loss = MeanLoss(1).to(device_of(model))
            train_language_model(model, own, loss, n_steps=step, checkpoint=run, random_state=random_state, **options)
        return trained, float(losses_of_texts(model, own_held_out).double().mean())

    stops = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary if folder is None else folder)
        place.mkdir(parents=True, exist_ok=True)
        try:
            for group in range(len(counts)):
                own, own_held_out = _of_group(texts, group), _of_group(held_out, group)
                settings = {
                    "random_state": random_state,
                    **{f"train.{name}": value for name, value in options.items() if name != "progress"},
                    "texts": fingerprint(torch.tensor(tokens) for tokens in own.tokens),
                    "held-out texts": fingerprint(torch.tensor(tokens) for tokens in own_held_out.tokens),
                    "first weights": fingerprint(first.values()),
                }
                stops.append(
                    stop_early(
                        functools.partial(look, own, own_held_out, place / f"group{group}.train.pt"),
                        n_steps=n_steps,
                        look_every=look_every,
                        patience=patience,
                        checkpoint=place / f"group{group}.pt",
                        settings=settings,
                    )
                )
        finally:
            _load(trained, first)
    return tuple(stops)


def _of_group(texts: PromptedTexts, group: int) -> PromptedTexts:
    """Return the texts of one group, as the only group there is."""
    rows = (texts.groups == group).nonzero().flatten().tolist()
    return dataclasses.replace(
        texts,
        tokens=tuple(texts.tokens[row] for row in rows),
        prompt_lengths=tuple(texts.prompt_lengths[row] for row in rows),
        groups=torch.zeros(len(rows), dtype=torch.int64),
    )


@torch.no_grad()
def _load(trained: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, weight in trained.items():
        weight.copy_(weights[name])


class _LanguageTraining(ResumableTraining):
    """AdamW on the weights that require a gradient, the size of the parts that fit into memory, and the log."""

    def __init__(
        self,
        model: Any,
        trained: Mapping[str, nn.Parameter],
        texts: PromptedTexts,
        loss: GroupLoss,
        batch_size: int,
        micro_batch: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        super().__init__(loss, torch.optim.AdamW(trained.values(), lr=learning_rate), device_of(model))
        self.model, self.trained, self.texts, self.seed = model, trained, texts, seed
        self.batch_size, self.micro_batch = batch_size, micro_batch
        self._rows: list[list[float]] = []

    def take_step(self) -> None:
        rows = self._next_rows()
        while True:
            with out_of_memory() as failed:
                losses, objective = self._backward(rows)
            if not failed:
                break
            self.micro_batch = halve(min(self.micro_batch, len(rows)), "micro_batch", failed[0])
        self.descend()
        self._rows.append([self.step, float(losses.nanmean()), objective, *self._by_group(rows, losses)])

    def _next_rows(self) -> NDArray[np.int64]:
        """Return the texts of the next batch, the shortest first."""
        epoch, place = divmod(self.step, math.ceil(len(self.texts) / self.batch_size))
        order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.texts))
        rows = order[place * self.batch_size : (place + 1) * self.batch_size]
        return rows[np.argsort([len(self.texts.tokens[row]) for row in rows], kind="stable")]

    def _backward(self, rows: NDArray[np.int64]) -> tuple[Tensor, float]:
        """Compute the gradients of a batch; return its losses ``(n,)`` and the value of the strategy."""
        self.optimizer.zero_grad()
        groups = self.texts.groups[rows].to(self.device)
        parts, objective = [], 0.0
        # A seed for every step, so that dropout is the same after an interruption and after running out of memory.
        seed = int(np.random.SeedSequence([self.seed, _DROPOUT, self.step]).generate_state(1)[0])
        with seeded(seed, self.device), self.loss.accumulate(groups):
            for start in range(0, len(rows), self.micro_batch):
                batch = _to(_collate(self.texts, rows[start : start + self.micro_batch]), self.device)
                per_sample = answer_losses(self.model, batch)
                value = self.loss(per_sample, batch["groups"])
                value.backward()
                objective += float(value.detach())
                parts.append(per_sample.detach())
        return torch.cat(parts).cpu().double(), objective

    def _by_group(self, rows: NDArray[np.int64], losses: Tensor) -> list[float]:
        members = [losses[self.texts.groups[rows] == group] for group in range(self.loss.n_groups)]
        averages = self.loss.group_losses.flatten().tolist()
        return [*(float(len(m)) for m in members), *(float(m.nanmean()) for m in members), *averages]

    @property
    def log(self) -> pd.DataFrame:
        groups = range(self.loss.n_groups)
        columns = ["step", "loss", "objective", *(f"{what}_{a}" for what in ("n", "loss", "average") for a in groups)]
        frame = pd.DataFrame(self._rows, columns=columns)
        return frame.astype({"step": int, **{f"n_{a}": int for a in groups}})

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "micro_batch": self.micro_batch,
            "weights": {name: weight.detach() for name, weight in self.trained.items()},
            "log": self._rows,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.micro_batch = state["micro_batch"]
        _load(self.trained, state["weights"])
        self._rows = [list(row) for row in state["log"]]


def halve(size: int, name: str, reason: str) -> int:
    """Return half the size of a batch that did not fit, or raise if it was one row."""
    if size == 1:
        raise MemoryError(
            f"not even one text fits into memory, with {name}=1 ({reason}); take shorter texts (max_length), a smaller "
            "model, dtype=torch.bfloat16, or a device with more memory"
        )
    return size // 2


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model into eval mode, and restore its mode at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def import_extra(name: str) -> Any:
    """Import a module of the extra ``[language]``; if it is missing, say what to install."""
    with extra("language", f"language models need {name}"):
        return importlib.import_module(name)


def device_of(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def describe_adapters(model: Any) -> str | None:
    """Describe scale, dropout and targets of the adapters, which do not follow from the shapes of weights."""
    config = getattr(model, "peft_config", None)
    if config is None:
        return None
    return "; ".join(
        f"{name}: r={c.r}, alpha={c.lora_alpha}, dropout={c.lora_dropout}, targets={sorted(c.target_modules)}"
        for name, c in config.items()
    )


def _collate(texts: PromptedTexts, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    return texts.collate([texts[int(row)] for row in rows])


def _to(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device) for name, values in batch.items()}


def _check_training(texts: PromptedTexts, loss: GroupLoss, trained: Mapping[str, nn.Parameter]) -> None:
    empty = [row for row, tokens in enumerate(texts.tokens) if len(tokens) <= texts.prompt_lengths[row]]
    if empty:
        raise ValueError(f"texts has no answer in rows {listed(empty)}; leave such rows out, groups too")
    if not trained:
        raise ValueError("model has no weight that requires a gradient; give it adapters, or make weights require one")
    if loss.n_bins != 1:
        raise ValueError(f"loss has n_bins={loss.n_bins}, but texts have no noise levels; build it with n_bins=1")
    if int(texts.groups.max()) >= loss.n_groups:
        raise ValueError(
            f"texts has groups up to {int(texts.groups.max())}, but loss n_groups={loss.n_groups}; build the loss with "
            f"n_groups={int(texts.groups.max()) + 1}"
        )
