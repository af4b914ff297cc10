"""Is a generative model equally good for every sensitive group?

The public names are listed in ``__init__.pyi`` and imported on first use. So importing the package loads no kernel and
no framework, and a training script pays only for what it calls. Less common names are in the subpackages:

- ``egtmetrics.metrics`` and ``egtmetrics.divergences`` score one real and one fake set; they know nothing of groups;
- ``egtmetrics.groups`` compares groups and models, with intervals and tests; ``egtmetrics.streaming`` does so batch by
  batch, ``egtmetrics.integrations`` within other libraries, ``egtmetrics.distributed`` over several processes;
- ``egtmetrics.encoders``, ``oracles`` and ``data`` turn images, texts and files into features and groups;
- ``egtmetrics.report`` writes tables, figures and the page; ``egtmetrics.cli`` is the command line;
- ``egtmetrics.training`` has the training strategies, ``egtmetrics.paper`` repeats the paper's experiments;
- ``egtmetrics.ops`` has the array primitives, compiled (``csrc/``) or in NumPy.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
