"""From files to arrays: features with group labels, columns of text, images.

Importing this package loads no framework and no pandas: each reader imports what it needs when it is called.
"""

from egtmetrics.data.files import LabelledFeatures, read_confusion, read_labelled_features, read_text_columns
from egtmetrics.data.images import ImageFiles, LeftOutWarning

__all__ = [
    "ImageFiles",
    "LabelledFeatures",
    "LeftOutWarning",
    "read_confusion",
    "read_labelled_features",
    "read_text_columns",
]
