"""Is a generative model equally good for every sensitive group?

The public names stand in ``__init__.pyi`` and are imported on first use: importing the package loads no kernel and no
framework, so a training script pays for nothing it does not call. What is not needed every day stands in the packages:

- ``egtmetrics.metrics`` and ``egtmetrics.divergences`` score one real and one fake set, blind to groups;
- ``egtmetrics.groups`` compares groups and models, with intervals and tests; ``egtmetrics.streaming`` does so batch by
  batch, ``egtmetrics.integrations`` within other libraries, ``egtmetrics.distributed`` over several processes;
- ``egtmetrics.encoders``, ``oracles`` and ``data`` make features and groups of images, texts and files;
- ``egtmetrics.report`` writes tables, figures and the page; ``egtmetrics.cli`` is the command line;
- ``egtmetrics.training`` has the training strategies, ``egtmetrics.paper`` repeats the paper;
- ``egtmetrics.ops`` are the array primitives, compiled (``csrc/``) or in NumPy.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
