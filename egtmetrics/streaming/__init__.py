"""A frame whose samples come in batches, from one process or several.

``stream`` collects the rows and makes the frame. ``egtmetrics.integrations`` feeds it from other libraries.
"""

from egtmetrics.streaming._ranks import merge_ranks
from egtmetrics.streaming.stream import GenerativeMetricStream

__all__ = ["GenerativeMetricStream", "merge_ranks"]
