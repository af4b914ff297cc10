"""Sample texts from a causal language model into a file, one line each; an interruption neither repeats nor loses any.

All texts of a batch answer the same prompt. It passes through the model once, and its keys and values are repeated. All
rows have the same length, so there is no padding; rows that have ended leave the batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egtmetrics._atomic import write_whole
from egtmetrics._errors import out_of_memory
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_number, check_positive_int
from egtmetrics.data._reading import parsed_json
from egtmetrics.paper.prompts import ANSWER_START, messages
from egtmetrics.training._precision import exact, exact_dtype
from egtmetrics.training.language import describe_adapters, device_of, evaluating, halve, prompt_states
from egtmetrics.training.prompts import DATE, prompt_tokens
from egtmetrics.training.resumable import differences, fingerprint

_HEADING = ANSWER_START.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. The paper does not say; the default draws from the model's own distribution.

    A lower temperature or ``top_p`` makes texts more likely and less diverse: more precision, less recall.
    """

    temperature: float = 1.0
    """Logits are divided by it."""
    top_p: float = 1.0
    """Draw from the most probable tokens with this total probability; ties go to the lower token. 1 takes all."""
    max_new_tokens: int = 128
    """Longest answer; a longer one is cut off."""

    def __post_init__(self) -> None:
        check_number(self.temperature, "temperature", above=0.0)
        if check_number(self.top_p, "top_p", above=0.0) > 1.0:
            raise ValueError(f"top_p={self.top_p} is more than 1; pass a probability")
        check_positive_int(self.max_new_tokens, "max_new_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedTexts:
    """What :func:`generate_texts` returns; texts in the order of ``attributes``."""

    texts: list[str]
    """Stripped, without the initial "Biography:"."""
    n_tokens: list[int]
    """Tokens of each text, including the one that ends it."""
    n_empty: int
    """Empty texts."""
    n_unfinished: int
    """Texts cut off by ``max_new_tokens``."""
    n_without_heading: int
    """Answers that did not begin with "Biography:"."""
    n_resumed: int
    """Texts that were already in the file."""


def generate_texts(
    model: Any,
    tokenizer: Any,
    attributes: Sequence[str | None],
    *,
    path: str | Path,
    sampling: Sampling | None = None,
    batch_size: int = 64,
    date: str = DATE,
    random_state: int = 0,
    progress: bool = False,
) -> GeneratedTexts:
    """Sample answers to the paper's prompt, or resume where that stopped.

    Parameters
    ----------
    model, tokenizer
        Of :func:`load_causal_lm`, with or without adapters.
    attributes
        Whom each text is about, see :func:`messages`: ``[None] * n`` for n texts about anybody, or ``["female"] * n``.
    path
        JSONL file, one object per text: ``index`` (into ``attributes``), ``attribute``, ``text``, ``n_tokens``,
        ``finished``, ``heading``; one attribute after the other. It is written batch by batch. Beside it,
        ``<path>.settings.json`` holds the settings, which must agree when an interrupted generation resumes. A finished
        file is only read.
    sampling
        Temperature, nucleus and length.
    batch_size
        Texts at once, halved when memory runs out.
    date
        Today's date for the chat template, see :func:`prompt_tokens`; pass the one of training.
    random_state
        Seed. Every text has its own random numbers, so the other texts of a batch affect it only through rounding.
    progress
        Show a progress bar, which counts texts.

    Returns
    -------
    GeneratedTexts
        Texts and counts.

    Raises
    ------
    ValueError
        Options that do not fit; a file from another model, prompt or setting: the error names it.
    MemoryError
        Not even one text fits.

    Notes
    -----
    If it is killed at any point and called again, the file is the same as without, on one machine with one number of
    threads. An answer ends with any token that the model's generation settings or the tokenizer name as an end.

    Examples
    --------
    >>> from egtmetrics.paper.generation import Sampling, generate_texts
    >>> from egtmetrics.paper.causal_lm import load_causal_lm, packaged_model
    >>> model, tokenizer = load_causal_lm(packaged_model())  # doctest: +SKIP
    >>> made = generate_texts(model, tokenizer, ["female"] * 100, path="women.jsonl")  # doctest: +SKIP
    >>> Sampling(temperature=0.0)
    Traceback (most recent call last):
    ValueError: temperature=0.0 is not a number above 0; pass one
    """
    sampling = sampling or Sampling()
    batch_size = check_positive_int(batch_size, "batch_size")
    seed = check_positive_int(random_state, "random_state", minimum=0)
    given = list(attributes)
    if isinstance(attributes, str) or not all(a is None or isinstance(a, str) for a in given) or not given:
        raise ValueError(
            "attributes must be a sequence with an attribute or None for each text; pass for example [None] * 100"
        )
    prompts = {
        attribute: prompt_tokens(tokenizer, messages(attribute), date=date) for attribute in dict.fromkeys(given)
    }
    batches = [
        rows[start : start + batch_size]
        for attribute in prompts
        for rows in [[i for i, a in enumerate(given) if a == attribute]]
        for start in range(0, len(rows), batch_size)
    ]
    target = Path(path)
    settings = {
        "model": fingerprint(model.state_dict().values()),
        "adapters": describe_adapters(model),
        "prompts": {str(attribute): _digest(tokens) for attribute, tokens in prompts.items()},
        "date": date,
        "attributes": _digest(given),
        **dataclasses.asdict(sampling),
        "batch_size": batch_size,
        "random_state": seed,
    }
    records = _claim(target, settings, batches)
    n_resumed = n_done = len(records)
    ends = _end_tokens(model, tokenizer)
    size = batch_size
    with (
        evaluating(model),
        target.open("ab") as file,
        tqdm(total=len(given), initial=n_resumed, unit="text", leave=False, disable=not progress) as bar,
    ):
        for batch in batches:
            if n_done > 0:
                n_done -= len(batch)
                continue
            made: list[dict[str, Any]] = []
            while len(made) < len(batch):
                part = batch[len(made) : len(made) + size]
                uniforms = _uniforms(seed, part, sampling.max_new_tokens)
                attribute = given[part[0]]
                with out_of_memory() as failed:
                    answers = _sample(model, prompts[attribute], uniforms, sampling, ends)
                if failed:
                    size = halve(min(size, len(part)), "batch_size", failed[0])
                    continue
                made += [
                    {"index": i, "attribute": attribute, **_record(tokenizer, answer, ends)}
                    for i, answer in zip(part, answers, strict=True)
                ]
                bar.update(len(part))
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in made).encode())
            file.flush()
            os.fsync(file.fileno())
            records += made
    records.sort(key=lambda record: int(record["index"]))
    return GeneratedTexts(
        texts=[record["text"] for record in records],
        n_tokens=[record["n_tokens"] for record in records],
        n_empty=sum(record["text"] == "" for record in records),
        n_unfinished=sum(not record["finished"] for record in records),
        n_without_heading=sum(not record["heading"] for record in records),
        n_resumed=n_resumed,
    )


@torch.no_grad()
def _sample(
    model: Any, prompt: Sequence[int], uniforms: Tensor, sampling: Sampling, ends: Sequence[int]
) -> list[list[int]]:
    """Return one answer per row of ``uniforms`` ``(n, longest)``, whose numbers choose its tokens one by one."""
    device = device_of(model)
    uniforms = uniforms.to(exact_dtype(device)).to(device)
    stops = torch.tensor(ends, device=device)
    start = prompt_states(model, torch.tensor([list(prompt)], device=device))
    states, logits = start.cache, start.logits[:, -1].expand(len(uniforms), -1)
    states.batch_repeat_interleave(len(uniforms))
    _reserve(states, uniforms.shape[1])
    answers: list[list[int]] = [[] for _ in uniforms]
    going = torch.arange(len(uniforms), device=device)
    for place in range(uniforms.shape[1]):
        tokens = _draw(logits, uniforms[going, place], sampling)
        for row, token in zip(going.tolist(), tokens.tolist(), strict=True):
            answers[row].append(token)
        kept = torch.nonzero(~torch.isin(tokens, stops)).flatten()
        if len(kept) == 0 or place == uniforms.shape[1] - 1:
            break
        if len(kept) < len(going):
            going, tokens = going[kept], tokens[kept]
            states.batch_select_indices(kept)
        logits = model(input_ids=tokens[:, None], cache=states, use_cache=True).logits[:, -1]
    return answers


def _reserve(states: Any, n_tokens: int) -> None:
    """Reserve memory for ``n_tokens`` more in a cache, so that it is not copied for each; not for sliding windows."""
    from transformers.cache_utils import DynamicLayer

    class ReservedLayer(DynamicLayer):  # type: ignore[misc]
        """Keeps keys and values in the first columns of longer arrays."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.lazy_initialization(layer.keys, layer.values)
            self.keys, self.values = layer.keys, layer.values
            self.capacity = layer.keys.shape[-2] + n_tokens
            self.batch_select_indices(slice(None))

        def batch_select_indices(self, indices: Any) -> None:
            self.keys, self.values = self._with_capacity(self.keys[indices]), self._with_capacity(self.values[indices])

        def _with_capacity(self, used: Tensor) -> Tensor:
            n, heads, length, width = used.shape
            whole = used.new_empty(n, heads, self.capacity, width)
            whole[..., :length, :] = used
            return whole[..., :length, :]

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            self.keys, self.values = self._appended(self.keys, key_states), self._appended(self.values, value_states)
            return self.keys, self.values

        def _appended(self, used: Tensor, new: Tensor) -> Tensor:
            length = used.shape[-2] + new.shape[-2]
            longer = used.as_strided((*used.shape[:-2], length, used.shape[-1]), used.stride())
            longer[..., used.shape[-2] :, :] = new
            return longer

    states.layers = [ReservedLayer(layer) if type(layer) is DynamicLayer else layer for layer in states.layers]


def _draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Return tokens ``(n,)`` by inversion of the distribution function, with one uniform number per row of logits."""
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = torch.where(before < sampling.top_p, ordered, 0.0)
        probabilities = torch.zeros_like(ordered).scatter_(-1, tokens, ordered)
    cumulated = exact(probabilities).cumsum(dim=-1)
    points = uniforms[:, None] * cumulated[:, -1:]
    # right: a token of probability zero is never drawn, not even by the number zero
    return torch.searchsorted(cumulated, points, right=True).flatten().clamp(max=logits.shape[-1] - 1)


def _uniforms(seed: int, rows: Sequence[int], length: int) -> Tensor:
    return torch.as_tensor(np.stack([np.random.default_rng([seed, row]).random(length) for row in rows]))


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id} - {None}
    if not ends:
        raise ValueError(
            "neither model.generation_config nor tokenizer names a token that ends an answer; set tokenizer.eos_token"
        )
    return sorted(ends)


def _record(tokenizer: Any, tokens: list[int], ends: Sequence[int]) -> dict[str, Any]:
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return {
        "text": text.removeprefix(_HEADING).strip(),
        "n_tokens": len(tokens),
        "finished": tokens[-1] in ends,
        "heading": text.startswith(_HEADING),
    }


def _claim(path: Path, settings: dict[str, Any], batches: list[list[int]]) -> list[dict[str, Any]]:
    """Return the records of an interrupted run with the same settings, up to its last complete batch."""
    description = Path(f"{path}.settings.json")
    if not description.exists():
        if path.exists():
            raise ValueError(
                f"path={path} exists, but no {description.name} beside it; delete it, or name another file"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(description, json.dumps(settings, indent=1))
    try:
        listed = differences(parsed_json(description.read_bytes()), settings)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{description} cannot be read ({error}); delete it and {path} to start again") from error
    if listed:
        raise ValueError(
            f"path={path} comes from another generation: {listed}; pass the same again, or name another file"
        )
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith(b"\n"):
        del lines[-1]
    n_kept = 0
    for batch in batches:
        if n_kept + len(batch) > len(lines):
            break
        n_kept += len(batch)
    expected = [i for batch in batches for i in batch][:n_kept]
    try:
        records = [parsed_json(line) for line in lines[:n_kept]]
        intact = [record["index"] for record in records] == expected
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact or len(lines) > sum(map(len, batches)):
        raise ValueError(f"path={path} holds lines that generate_texts did not write; delete it to start again")
    write_whole(path, b"".join(lines[:n_kept]))
    return records


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
