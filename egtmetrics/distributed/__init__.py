"""Metrics of features that are spread over the processes of ``torch.distributed``, the same numbers as from one.

Every rank passes the rows it has through :func:`shard_features`, its labels through :func:`gather_labels`, and calls
metrics or frames as it would in one process, with the same arguments on every rank::

    torch.distributed.init_process_group("gloo")  # or "nccl" for CUDA tensors; under torchrun
    real, fake = shard_features(my_real, "real"), shard_features(my_fake, "fake")
    frame = GenerativeMetricFrame(
        metrics={"topp": topp_precision_recall, "fid": frechet_distance}, real=real, fake=fake,
        real_sensitive_features=gather_labels(my_real_labels),
        fake_sensitive_features=gather_labels(my_fake_labels),
        random_state=0,  # an integer: every rank must draw alike
    )

The result is that of one process with all rows under each other in the order of the ranks, and every rank gets it.
Where counts decide (precision and recall families, bandwidths, group proportions) it is the same to the last bit;
kernel densities, soft balls and Fréchet distances are sums in another order, equal within the rounding they have
anyway.

Features stay where they are: shards walk a ring, two of them in the memory of a rank at a time beside its own, and O(n)
numbers (radii, counts, densities, labels) go to everyone, as do the bootstrap draws of TopP&R, 2 B n bytes, and, for
the Fréchet distance, all rows of a set that has no more of them than features. ``frame.interval()`` and
``frame.test()`` bring the rows of one group at a time to every rank, which works out the same intervals as one process.
If a rank ends, fails or stands still, all others raise :class:`RankError`, which names it.

A process may hang at its very end, after all results, in PyTorch itself: its destructor of a gloo group waits for a
thread that may want the interpreter's lock. ``os._exit(0)`` as the last line, after all output is flushed, avoids it.
"""

from egtmetrics.distributed._processes import RankError
from egtmetrics.distributed._sharding import gather_labels, shard_features

__all__ = ["RankError", "gather_labels", "shard_features"]
