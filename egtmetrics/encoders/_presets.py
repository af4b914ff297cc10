"""Encoders by a short name: which model it is, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Preset(NamedTuple):
    """A model that people use, and what to know before taking it."""

    model: str
    """What the encoder loads: a name on the hub, or a kind of network with its file."""
    features: int
    licence: str
    good_for: str
    used_by: str


IMAGE_PRESETS: dict[str, Preset] = {
    "efficientnet": Preset(
        "efficientnet:",
        1280,
        "Apache-2.0",
        "a first look, with nothing to fetch",
        "the default; the packages of the extra models carry its weights",
    ),
    "dinov2": Preset(
        "facebook/dinov2-base",
        768,
        "Apache-2.0",
        "photographs; agrees best with people's judgement of quality",
        "Stein et al. 2023 (the large one, facebook/dinov2-large); the paper, fine-tuned",
    ),
    "clip": Preset(
        "openai/clip-vit-base-patch32",
        512,
        "MIT",
        "content that captions name",
        "Kynkäänniemi et al. 2023, clean-fid's CLIP-FID; CMMD (openai/clip-vit-large-patch14-336)",
    ),
    "siglip": Preset(
        "google/siglip-base-patch16-224",
        768,
        "Apache-2.0",
        "content that captions name, as CLIP",
        "practice; Zhai et al. 2023",
    ),
    "inception": Preset(
        "inception:",
        2048,
        "Apache-2.0",
        "FIDs to set beside published ones; you give the file",
        "Heusel et al. 2017 and most FIDs since",
    ),
}

TEXT_PRESETS: dict[str, Preset] = {
    "minilm": Preset(
        "minilm:",
        384,
        "Apache-2.0",
        "a first look, with nothing to fetch",
        "the default; a package of the extra models carries its weights",
    ),
    "mpnet": Preset(
        "sentence-transformers/all-mpnet-base-v2",
        768,
        "Apache-2.0",
        "sentences and short paragraphs",
        "practice; Reimers and Gurevych 2019",
    ),
    "qwen3": Preset(
        "Qwen/Qwen3-Embedding-4B",
        2560,
        "Apache-2.0",
        "long texts, many languages; needs an accelerator",
        "the paper, section 5",
    ),
}


def preset_rows(presets: Mapping[str, Preset]) -> list[list[str]]:
    """Return the rows of a table of presets: name, model, features, licence, good for, used by."""
    return [
        [name, preset.model if "/" in preset.model else "", str(preset.features), *preset[2:]]
        for name, preset in presets.items()
    ]


def preset_help(presets: Mapping[str, Preset]) -> str:
    """Return the presets as lines for ``--help``."""
    width = max(map(len, presets))
    return "\n".join(
        f"  {name:<{width}}  {preset.features:>4} features; {preset.good_for}" for name, preset in presets.items()
    )
