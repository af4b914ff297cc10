"""From images and texts to what the metrics take: features, by an encoder, and groups, by an oracle."""

from egtmetrics.features.oracles import (
    ABSTAINED,
    ClassifierOracle,
    GroupOracle,
    LabelOracle,
    OracleErrorWarning,
    call_oracle,
)

__all__ = ["ABSTAINED", "ClassifierOracle", "GroupOracle", "LabelOracle", "OracleErrorWarning", "call_oracle"]
