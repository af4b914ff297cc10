"""Metrics of features that are spread over the processes of ``torch.distributed``: the same numbers as in one process.

Every rank passes its rows through :func:`shard_features` and its labels through :func:`gather_labels`, and calls
metrics or frames as in one process, with the same arguments on every rank::

    torch.distributed.init_process_group("gloo")  # or "nccl" for CUDA tensors; under torchrun
    real, fake = shard_features(my_real, "real"), shard_features(my_fake, "fake")
    frame = GenerativeMetricFrame(
        metrics="topp,fid", real=real, fake=fake,
        real_sensitive_features=gather_labels(my_real_labels),
        fake_sensitive_features=gather_labels(my_fake_labels),
        random_state=0,  # an integer: every rank must draw the same
    )

Every rank gets the result of one process that has the rows of rank 0, then those of rank 1, and so on. What depends on
counts (precision and recall, density, coverage, bandwidths, group proportions) is the same to the last bit. Kernel
densities, soft balls and Fréchet distances add up in another order, and are equal up to the rounding that they always
have.

Features stay on their ranks: shards are passed around a ring, so a rank has at most two others in memory beside its
own. O(n) numbers (radii, counts, densities, labels) are sent to every rank; so are the bootstrap draws of TopP&R,
2 B n bytes, and, for the Fréchet distance, all rows of a set with fewer rows than features. ``frame.interval()`` and
``frame.test()`` bring the rows of one group at a time to every rank, which computes the intervals of one process. If a
rank ends, fails or hangs, all others raise :class:`RankError`, which names it.

A process may hang at its very end, after all results, inside PyTorch: its destructor of a gloo group waits for a thread
that may want the interpreter's lock. ``os._exit(0)`` as the last line, after all output is flushed, avoids it.
"""

from egtmetrics.distributed._processes import RankError
from egtmetrics.distributed._sharding import gather_labels, shard_features

__all__ = ["RankError", "gather_labels", "shard_features"]
