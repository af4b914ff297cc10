"""From images and texts to what the metrics take: features, by an encoder, and groups, by an oracle.

Importing this loads no framework: the encoders import torch when they are made.
"""

from egtmetrics.features._cache import CacheWarning
from egtmetrics.features.images import ImageEncoder, ImageFiles
from egtmetrics.features.oracles import (
    ABSTAINED,
    ClassifierOracle,
    GroupOracle,
    LabelOracle,
    OracleErrorWarning,
    call_oracle,
)
from egtmetrics.features.pronouns import NameOracle, PronounOracle
from egtmetrics.features.text import TextEncoder, TruncationWarning

__all__ = [
    "ABSTAINED",
    "CacheWarning",
    "ClassifierOracle",
    "GroupOracle",
    "ImageEncoder",
    "ImageFiles",
    "LabelOracle",
    "NameOracle",
    "OracleErrorWarning",
    "PronounOracle",
    "TextEncoder",
    "TruncationWarning",
    "call_oracle",
]
