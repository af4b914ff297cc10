"""Groups by a network: ``oracle:MODEL:PROMPT|PROMPT`` of images, and ``oracle:MODEL``, a classifier of images or texts.

A network sees every sample once: where it is an encoder of the command, too, the oracle takes its features.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from egtmetrics.cli._ranks import own_device, shared
from egtmetrics.cli._sides import ORACLE, Side, count_missing, encoder_options

if TYPE_CHECKING:
    from egtmetrics.oracles import ProbabilityOracle

_AT_ONCE = 256
"""Texts between two steps of the progress bar."""


class Caller(NamedTuple):
    """An oracle without the network that sees the images."""

    oracle: ProbabilityOracle
    """Of features, or of texts."""
    network: str | None
    """The encoder that makes the features; None of texts."""


def load_callers(args: argparse.Namespace, sides: Iterable[Side]) -> dict[str, Caller]:
    """Load what calls the groups of sides, by its spelling.

    Raises
    ------
    ValueError
        A model that is not there, or is none of that kind; prompts that name fewer than two groups.
    """
    kinds = {side.called_by: side.kind for side in sides if side.called_by is not None}
    return {spec: _load(args, spec, kind) for spec, kind in kinds.items()}


def call_groups(
    args: argparse.Namespace,
    sides: Mapping[str, Side],
    callers: Mapping[str, Caller],
    encoders: Mapping[str | None, Any],
    *,
    progress: bool,
) -> list[str]:
    """Call the groups of sides, and return their names; ``encoders`` are those of the command, by their names."""
    import pandas as pd

    called = []
    for spec, (oracle, network) in callers.items():
        encoder = None
        if network is not None:
            from egtmetrics.encoders import ImageEncoder

            own = (one for name, one in encoders.items() if name is not None and _model(name) == network)
            encoder = next(own, None)
            if encoder is None:
                encoder = shared(args, ImageEncoder(network, **encoder_options(args, progress=progress)))
        for name, side in sides.items():
            if side.called_by != spec:
                continue
            if encoder is None:
                call = functools.partial(_call_texts, oracle, progress=progress)
                parts = [call(side.contents)] if args.ranks is None else args.ranks.share("calls", call, side.contents)
                labels = list(itertools.chain(*parts))
            else:
                labels = oracle(side.features_by(encoder)).tolist()
            known = {} if encoder is None else encoder.identity
            side.source["called_by"] = {**known, "min_confidence": oracle.min_confidence}
            side.groups = pd.DataFrame({"group": labels}, dtype=object)
            count_missing(side, side.source["file"], spec)
            called.append(name)
    return called


def _call_texts(oracle: ProbabilityOracle, texts: Sequence[str], *, progress: bool) -> list[str | None]:
    from egtmetrics._progress import tqdm

    labels: list[str | None] = []
    with tqdm(total=len(texts), desc="groups", unit="text", disable=not progress) as bar:
        while len(labels) < len(texts):
            some = oracle(texts[len(labels) : len(labels) + _AT_ONCE]).tolist()
            labels += some
            bar.update(len(some))
    return labels


def _load(args: argparse.Namespace, spec: str, kind: str) -> Caller:
    from egtmetrics._extras import extra
    from egtmetrics.oracles import ModelOracle, PromptOracle

    options: dict[str, Any] = {"min_confidence": getattr(args, "min_confidence", 0.0), "device": own_device(args)}
    model, prompts = spec.removeprefix(f"{ORACLE}:"), None
    if "|" in spec:
        if kind != "images":
            raise ValueError(f"{spec}: prompts are compared with images, and these are {kind}; name a classifier")
        model, _, texts = model.partition(":")
        prompts = _prompts(texts, spec)
    model = _model(model)
    if not model or model.endswith(":"):  # the packaged networks and Inception are none
        raise ValueError(
            f"{spec}: names no model of transformers; pass its folder, or its name on the Hugging Face hub"
        )
    with extra("language", "groups by a network need transformers"):
        import transformers  # noqa: F401
    try:
        if prompts is not None:
            return Caller(PromptOracle(model, prompts, **options).head, model)
        oracle = ModelOracle(model, **options)
    except (FileNotFoundError, ValueError) as error:
        text = str(error)
        raise ValueError(
            text.replace(f"model={model}", spec) if f"model={model}" in text else f"{spec}: {text}"
        ) from error
    if oracle.kind != kind:
        raise ValueError(f"{spec}: classifies {oracle.kind}, and these are {kind}; pass a classifier of {kind}")
    return Caller(oracle, None) if kind == "texts" else Caller(oracle.head, f"logits:{model}")


def _model(name: str) -> str:
    """Return the model behind a short name of docs/encoders.md."""
    from egtmetrics.encoders._presets import IMAGE_PRESETS

    return IMAGE_PRESETS[name].model if name in IMAGE_PRESETS else name


def _prompts(texts: str, spec: str) -> dict[str | None, list[str]]:
    """Return the prompts of every group; those of None are for images of no group."""
    prompts: dict[str | None, list[str]] = {}
    for text in texts.split("|"):
        name, named, prompt = text.partition("=")
        group = (name.strip() or None) if named else text.strip()
        if not (prompt if named else text).strip():
            raise ValueError(
                f"{spec}: has an empty prompt; write oracle:MODEL:GROUP=PROMPT|GROUP=PROMPT, as in "
                "oracle:clip:female=a photo of a woman|male=a photo of a man"
            )
        prompts.setdefault(group, []).append((prompt if named else text).strip())
    return prompts
