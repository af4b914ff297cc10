"""Which group a sample belongs to, where no label says so.

An oracle is called with samples and returns the name of each one's group, or None where it cannot tell. These names go
into ``real_sensitive_features=`` and ``fake_sensitive_features=`` as they are. Importing this package loads neither
pandas nor scikit-learn nor torch.
"""

from egtmetrics.confusion import Confusion
from egtmetrics.oracles.classifier import ClassifierOracle
from egtmetrics.oracles.labels import (
    GroupOracle,
    LabelOracle,
    Oracle,
    OracleErrorWarning,
    ProbabilityOracle,
    group_indices,
)
from egtmetrics.oracles.models import FeatureOracle, ModelOracle, PromptOracle
from egtmetrics.oracles.texts import NameOracle, PronounOracle

__all__ = [
    "ClassifierOracle",
    "Confusion",
    "FeatureOracle",
    "GroupOracle",
    "LabelOracle",
    "ModelOracle",
    "NameOracle",
    "Oracle",
    "OracleErrorWarning",
    "ProbabilityOracle",
    "PromptOracle",
    "PronounOracle",
    "group_indices",
]
