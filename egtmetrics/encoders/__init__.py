"""From images and texts to features, the arrays ``(n, d)`` that the metrics compare.

An encoder is called with samples and returns their features; it can store them in a folder, see ``cache=``. Importing
this package loads no framework: an encoder imports what it needs when it is made.
"""

from egtmetrics.encoders._cache import CacheWarning
from egtmetrics.encoders.images import ImageEncoder
from egtmetrics.encoders.texts import TextEncoder, TruncationWarning

__all__ = ["CacheWarning", "ImageEncoder", "TextEncoder", "TruncationWarning"]
