"""From files to arrays: features with group labels, columns of text, images.

Importing this package loads no framework and no pandas: each reader imports what it needs when it is called.
"""

from egtmetrics.data.files import (
    LabelledFeatures,
    column_names,
    read_confusion,
    read_labelled_features,
    read_text_columns,
    write_labelled_features,
)
from egtmetrics.data.images import ImageFiles, LeftOutWarning

__all__ = [
    "ImageFiles",
    "LabelledFeatures",
    "LeftOutWarning",
    "column_names",
    "read_confusion",
    "read_labelled_features",
    "read_text_columns",
    "write_labelled_features",
]
