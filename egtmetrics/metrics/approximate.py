"""Precision, recall, density and coverage of sets too large for all pairs, with the error measured on checked rows."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, stdtrit

from egtmetrics._errors import TooFewSamplesError
from egtmetrics._extras import extra
from egtmetrics._faiss import find_gpu, on_gpu
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_n_neighbors, check_number, check_positive_int, check_real_fake
from egtmetrics.metrics.prdc import Ties, coverage_share, density_score, precision_share, recall_share
from egtmetrics.ops import (
    Backend,
    BackendName,
    BallCounts,
    Features,
    available_threads,
    select_backend,
    take_rows,
    to_host,
)
from egtmetrics.registry import metric
from egtmetrics.results import MetricResult, setting

Counts = NDArray[np.int64]

_EXACT_BELOW = 200_000
"""A set with fewer rows is searched in full, which is about as fast as an index."""
_CELLS_PER_ROOT = 4
_TRAINING_ROWS_PER_CELL = 64
_TRAINING_ROUNDS = 5
_BLOCK_ROWS = 4096
_FARTHEST = 1e6
"""Largest coordinate passed to faiss, in units in which half of all rows lie within 1: its square fits into float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApproximatePRDCResult(MetricResult):
    """What :func:`approximate_precision_recall_density_coverage` returns."""

    precision: float = precision_share()
    recall: float = recall_share()
    density: float = density_score()
    coverage: float = coverage_share()
    precision_error: float = setting()
    """With confidence ``level``, the exact precision lies within this of ``precision``; so for the other scores."""
    recall_error: float = setting()
    density_error: float = setting()
    coverage_error: float = setting()
    level: float = setting()
    n_neighbors: int = setting()
    ties: Ties = setting()
    real_index: str = setting()
    """The index of the real rows, as faiss names it: ``"IVF1265,Flat"`` has 1265 cells, ``"Flat"`` none."""
    fake_index: str = setting()
    n_probes: int = setting()
    """Cells that were searched for each row, where there are as many."""
    n_real_checked: int = setting()
    n_fake_checked: int = setting()
    exact_radii: float
    """Share of the checked rows whose radius in the index was the exact one."""
    largest_radius_error: float
    """Largest of (radius in the index / exact radius) - 1 over the checked rows; infinite over a radius of 0."""

    def errors(self) -> dict[str, float]:
        """How far, with confidence ``level`` each, the exact scores may be from ``scores()``."""
        return {name: float(getattr(self, f"{name}_error")) for name in self.describe()}

    def _repr_html_(self) -> str:
        bounds = ", ".join(f"{name} {error:.2g}" for name, error in self.errors().items())
        note = f"Largest error at level {self.level:g}: {bounds}; index {self.real_index}, {self.n_probes} probes."
        return f"{super()._repr_html_()}<p>{html.escape(note)}</p>"


@metric("approximate-prdc", title="Approximate precision, recall, density, coverage")
def approximate_precision_recall_density_coverage(
    real: Any,
    fake: Any,
    *,
    n_neighbors: int = 5,
    ties: Ties = "exclude",
    n_cells: int | None = None,
    n_probes: int = 16,
    n_checked: int = 1000,
    level: float = 0.95,
    random_state: RandomState = None,
    backend: BackendName = "auto",
    n_threads: int | None = None,
) -> ApproximatePRDCResult:
    r"""Estimate what :func:`precision_recall_density_coverage` would return, and say how far off that may be.

    Each set is cut into cells by k-means (an inverted file, IVF). The neighbours of a row are searched in the
    ``n_probes`` cells nearest to it only, so radii are never too small. Then each fake row is tested against the real
    rows in the ``n_probes`` cells nearest to it, and against no others. Radii that are too large raise the scores and
    pairs that are not tested lower them, so the sign of the error is unknown. Its size is measured: c rows of each set
    are drawn and their memberships computed exactly. With a_j the approximate and e_j the exact contribution of row j,
    and S the rows drawn,

    .. math::

        \text{score} = \frac1m \sum_j a_j + \frac1c \sum_{j \in S} (e_j - a_j),

    clipped to the range of the score. Without the clipping this is unbiased over the draw of S, whatever the index
    missed: a poor index gives wider error bounds, not a wrong score. On data without any structure, where
    ``exact_radii`` is near 0, the bounds are even wider than those that the c rows alone would give.

    Parameters
    ----------
    real, fake
        Features ``(n, d)`` and ``(m, d)`` from one encoder, in memory or memory-mapped.
    n_neighbors, ties
        As in :func:`precision_recall_density_coverage`.
    n_cells
        Cells of each set, at most its number of rows. None means 1 below 200,000 rows, where a search of all rows is
        about as fast, and four times the root of the number of rows from there on.
    n_probes
        Cells searched for each row. With at least ``n_cells`` of them for both sets the scores are the exact ones,
        every error is 0, and nothing is checked.
    n_checked
        How many rows are also scored exactly (c), 2 or more; a smaller set is checked in full. The errors fall with its
        root, and are 0 where all rows are checked.
    level
        Confidence of each error bound separately, over the draw of the checked rows.
    random_state
        Seed or Generator for the checked rows and for k-means.
    backend, n_threads
        See :func:`egtmetrics.ops.select_backend`. Features on a CUDA device stay there for the kernels. faiss gets
        copies of a few thousand rows at a time. It trains and searches on that device where its build for GPUs is
        installed (``egtmetrics[gpu]``) and ``n_probes`` and ``n_neighbors`` are below 2048, else on the host. No GPU
        has run this yet; the calls are those that are tested on the host.

    Raises
    ------
    ImportError
        If faiss is needed and not installed: ``pip install 'egtmetrics[approximate]'``.
    TypeError, ValueError
        Features that are not a finite ``(n, d)`` array, too few rows for ``n_neighbors`` or ``n_cells``, an unknown
        option; features that are spread over ranks, if faiss is needed.

    Notes
    -----
    The bounds are for the distance to the exact score *of these samples*. They say nothing about other samples; for
    those see :meth:`egtmetrics.GenerativeMetricFrame.interval`. For precision, recall and coverage they hold at every
    sample size: the numbers of rows with e = 1, a = 0 and with e = 0, a = 1 lie between exact hypergeometric limits,
    each of the four at a quarter of the error rate. For density, where e - a has no known range, the bound is that of
    Student's interval, an approximation that fails where large errors are rare. It is at least as wide as if a kind of
    row that was never drawn had the largest difference seen, in as many rows as the hypergeometric limit allows.

    faiss trains the cells and proposes neighbours in float32. The kernels compute the distances that decide in float64,
    so ties count as in the exact metric. Results are the same for any number of threads. They depend on the order of
    the rows, since rows are drawn by position. The index is trained on 64 rows a cell in 5 rounds.

    Time, with C cells and p probes: O((n + m) (C + p n / C) d) for the index, O(k c (n + m) d) for the check. Memory
    O((n + m) (d + p)). Measured times and errors: ``benchmarks/results/approximate.md``.

    References
    ----------
    The scores: see :func:`precision_recall_density_coverage`. Inverted file: Sivic and Zisserman, Video Google,
    ICCV 2003, as in faiss. Difference estimator: Särndal, Swensson, Wretman, Model Assisted Survey Sampling, 1992,
    section 6.3.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics import precision_recall_density_coverage
    >>> real, fake = np.random.default_rng(0).normal(size=(2, 2000, 4))
    >>> result = approximate_precision_recall_density_coverage(
    ...     real, fake, n_cells=40, n_probes=3, n_checked=500, random_state=0)
    >>> result.real_index, result.n_probes
    ('IVF40,Flat', 3)
    >>> exact = precision_recall_density_coverage(real, fake)
    >>> abs(result.recall - exact.recall) <= result.recall_error < 0.05
    True
    """
    if ties not in get_args(Ties):
        raise ValueError(f"ties={ties!r} is unknown; choose one of {', '.join(map(repr, get_args(Ties)))}")
    kernels = select_backend(backend, n_threads=n_threads, features=(real, fake))
    real, fake = check_real_fake(real, fake, device=kernels.device)
    k = check_n_neighbors(n_neighbors, len(real), "real")
    check_n_neighbors(k, len(fake), "fake")
    n_real_cells, n_fake_cells = _check_cells(n_cells, real, "real"), _check_cells(n_cells, fake, "fake")
    n_probes = check_positive_int(n_probes, "n_probes")
    n_checked = check_positive_int(n_checked, "n_checked", minimum=2)
    level = check_number(level, "level", above=0.0, below=1.0)
    rng = check_random_state(random_state)
    closed = ties == "include"
    n, m = len(real), len(fake)

    # Drawn first, so that the same rows are checked for any index.
    real_rows, fake_rows = (np.sort(rng.choice(rows, min(n_checked, rows), replace=False)) for rows in (n, m))
    seeds = rng.integers(2**31, size=2)
    n_workers = n_threads or available_threads()
    kernels_of_cells = select_backend(backend, n_threads=1, features=(real, fake))  # cells are too small for more
    with ThreadPoolExecutor(n_workers, initializer=_use_one_openmp_thread) as pool:
        real_index, fake_index = (
            _Index(kernels_of_cells, points, n_cells, n_probes, k, int(seed), pool) if n_probes < n_cells else None
            for points, n_cells, seed in ((real, n_real_cells, seeds[0]), (fake, n_fake_cells, seeds[1]))
        )
        real_sq_radii, fake_sq_radii = (
            kernels.kth_neighbor(points, n_neighbors=k) if index is None else index.sq_radii()
            for points, index in ((real, real_index), (fake, fake_index))
        )
        if real_index is None:
            found = kernels.ball_counts(real, fake, x_sq_radii=real_sq_radii, y_sq_radii=fake_sq_radii, closed=closed)
        else:
            found = real_index.ball_counts(fake, real_sq_radii, fake_sq_radii, closed=closed)

    if real_index is None and fake_index is None:
        real_rows, fake_rows = np.arange(n), np.arange(m)
        check = _Check(found, exact_radii=1.0, largest_radius_error=0.0)
    else:
        check = _check(kernels, real, fake, real_sq_radii, fake_sq_radii, real_rows, fake_rows, k, closed=closed)
    exact = check.counts
    precision, precision_error = _share(found.y_in_x_balls > 0, fake_rows, exact.y_in_x_balls > 0, level)
    recall, recall_error = _share(found.x_in_y_balls > 0, real_rows, exact.x_in_y_balls > 0, level)
    density, density_error = _density(found.y_in_x_balls, fake_rows, exact.y_in_x_balls, k, level)
    coverage, coverage_error = _share(found.x_ball_sizes > 0, real_rows, exact.x_ball_sizes > 0, level)
    return ApproximatePRDCResult(
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        precision_error=precision_error,
        recall_error=recall_error,
        density_error=density_error,
        coverage_error=coverage_error,
        level=level,
        n_neighbors=k,
        ties=ties,
        real_index="Flat" if real_index is None else real_index.name,
        fake_index="Flat" if fake_index is None else fake_index.name,
        n_probes=n_probes,
        n_real_checked=len(real_rows),
        n_fake_checked=len(fake_rows),
        exact_radii=check.exact_radii,
        largest_radius_error=check.largest_radius_error,
        backend=kernels.name,
        n_real=n,
        n_fake=m,
    )


def _check_cells(n_cells: Any, points: Features, name: str) -> int:
    n = len(points)
    if n_cells is None:
        return 1 if n < _EXACT_BELOW else round(_CELLS_PER_ROOT * math.sqrt(n))
    checked = check_positive_int(n_cells, "n_cells")
    if checked > n:
        message = f"n_cells={checked}, but {name} has {n} rows; pass at most as many, or None"
        raise TooFewSamplesError(message, needed=checked)
    return checked


def _use_one_openmp_thread() -> None:
    """Keep faiss from starting threads of its own. OpenMP keeps this setting for the calling thread only."""
    import faiss

    faiss.omp_set_num_threads(1)


class _Index:
    """The rows of one set in the cells of an inverted file that faiss trains and searches.

    On the host, faiss and the kernels run in the threads of ``pool``, on blocks and cells that do not depend on their
    number. On a device, where one thread may call them at a time, they run in the calling thread.
    """

    def __init__(
        self,
        kernels: Backend,
        points: Features,
        n_cells: int,
        n_probes: int,
        k: int,
        seed: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        with extra(
            "approximate", f"cells of {len(points)} rows need faiss", otherwise="pass n_cells=1 to search all rows"
        ):
            import faiss
            from faiss.contrib import ivf_tools
        n, d = points.shape
        self.name = f"IVF{n_cells},Flat"
        self._kernels, self._points, self._n_cells, self._n_probes, self._k = kernels, points, n_cells, n_probes, k
        self._tools, self._pool = ivf_tools, pool
        self._gpu = find_gpu(kernels.device, largest_k=max(n_probes, k + 1))
        self._map_blocks = pool.map if self._gpu is None else map
        self._map_cells = pool.map if kernels.device is None else map
        n_training = min(n, _TRAINING_ROWS_PER_CELL * n_cells)
        rows = np.sort(np.random.default_rng(seed).choice(n, n_training, replace=False))
        training = np.asarray(to_host(take_rows(points, rows)), dtype=np.float64)
        # Medians, or one outlier would leave all other rows in one cell.
        self._center = np.median(training, axis=0)
        reach = np.abs(training - self._center).max(axis=1)
        self._scale = float(np.median(reach)) or float(reach.max()) or 1.0

        self._index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, n_cells)
        self._index.nprobe = n_probes
        self._index.cp.seed = seed
        self._index.cp.niter = _TRAINING_ROUNDS
        self._index.cp.min_points_per_centroid = 1
        self._index.cp.max_points_per_centroid = _TRAINING_ROWS_PER_CELL
        self._clustering = on_gpu(faiss.IndexFlatL2(d), self._gpu)  # kept: faiss holds no reference to it
        self._index.clustering_index = self._clustering
        self._run(self._index.train, self._for_faiss(training))
        self._quantizer = on_gpu(self._index.quantizer, self._gpu)
        self._probes = self._probe(points)
        self._members = _rows_by_cell(self._probes[:, :1], n_cells)
        for start in range(0, n, _BLOCK_ROWS):
            cells = np.ascontiguousarray(self._probes[start : start + _BLOCK_ROWS, 0])
            self._run(ivf_tools.add_preassigned, self._index, self._block(points, start), cells)

    def sq_radii(self) -> NDArray[np.float64]:
        """Squared distance of every row to the k-th nearest other one that was found, by the kernels: never too small.

        The rows of a cell look among all that was found for any of them, and among themselves.
        """

        k = self._k
        index = on_gpu(self._index, self._gpu)

        def search(start: int) -> Any:
            probes = np.ascontiguousarray(self._probes[start : start + _BLOCK_ROWS])
            block = self._block(self._points, start)
            return self._tools.search_preassigned(index, block, k + 1, probes)[1]

        def among_found(rows: Counts) -> Any:
            candidates = np.union1d(rows, neighbors[rows])
            candidates = candidates[candidates >= 0]  # faiss: -1 for what it has not found
            if len(candidates) <= k:
                return np.nan
            return _nearest(self._kernels, self._points, rows, take_rows(self._points, candidates), k)

        def among_all(rows: Counts) -> Any:
            return _nearest(self._kernels, self._points, rows, self._points, k)

        neighbors = self._by_block(search, self._points)
        sq_radii = np.empty(len(neighbors))
        cells = [rows for rows in self._members if len(rows)]
        for rows, found in zip(cells, self._map_cells(among_found, cells), strict=True):
            sq_radii[rows] = found
        lonely = np.flatnonzero(np.isnan(sq_radii))
        blocks = [lonely[start : start + _BLOCK_ROWS] for start in range(0, len(lonely), _BLOCK_ROWS)]
        for rows, found in zip(blocks, self._map_cells(among_all, blocks), strict=True):
            sq_radii[rows] = found
        return sq_radii

    def ball_counts(
        self, y: Features, x_sq_radii: NDArray[np.float64], y_sq_radii: NDArray[np.float64], *, closed: bool
    ) -> BallCounts:
        """``Backend.ball_counts`` of the rows of this index and y, over those pairs whose cell y probes."""

        def count(cell: tuple[Counts, Counts]) -> BallCounts:
            xs, ys = cell
            return self._kernels.ball_counts(
                take_rows(self._points, xs),
                take_rows(y, ys),
                x_sq_radii=x_sq_radii[xs],
                y_sq_radii=y_sq_radii[ys],
                closed=closed,
            )

        x_ball_sizes, x_in_y_balls = (np.zeros(len(self._points), dtype=np.int64) for _ in range(2))
        y_in_x_balls, y_ball_sizes = (np.zeros(len(y), dtype=np.int64) for _ in range(2))
        visitors = _rows_by_cell(self._probe(y), self._n_cells)
        cells = [(xs, ys) for xs, ys in zip(self._members, visitors, strict=True) if len(xs) and len(ys)]
        for (xs, ys), found in zip(cells, self._map_cells(count, cells), strict=True):
            x_ball_sizes[xs] += found.x_ball_sizes
            y_in_x_balls[ys] += found.y_in_x_balls
            y_ball_sizes[ys] += found.y_ball_sizes
            x_in_y_balls[xs] += found.x_in_y_balls
        return BallCounts(x_ball_sizes, y_in_x_balls, y_ball_sizes, x_in_y_balls)

    def _probe(self, points: Features) -> Counts:
        """The cells nearest to each row, nearest first, ``(n, n_probes)``."""

        def search(start: int) -> Any:
            return self._quantizer.search(self._block(points, start), self._n_probes)[1]

        return self._by_block(search, points)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> None:
        if self._gpu is None:
            self._pool.submit(function, *arguments).result()
        else:
            function(*arguments)

    def _by_block(self, search: Callable[[int], Any], points: Features) -> Counts:
        return np.concatenate(list(self._map_blocks(search, range(0, len(points), _BLOCK_ROWS))))

    def _block(self, points: Features, start: int) -> NDArray[np.float32]:
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(points)))
        return self._for_faiss(np.asarray(to_host(take_rows(points, rows)), dtype=np.float64))

    def _for_faiss(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        """Centre and scale: float32 has few digits left far from the origin."""
        scaled: NDArray[np.float64] = (rows - self._center) / self._scale
        return scaled.clip(-_FARTHEST, _FARTHEST).astype(np.float32)


def _rows_by_cell(cells: Counts, n_cells: int) -> list[Counts]:
    """For every cell the rows, ascending, of ``cells (n, p)`` that name it."""
    order = np.argsort(cells, axis=None, kind="stable")
    bounds = np.searchsorted(cells.ravel()[order], np.arange(1, n_cells))
    return np.split(order // cells.shape[1], bounds)


def _nearest(kernels: Backend, points: Features, rows: Counts, among: Features, k: int) -> NDArray[np.float64]:
    """Squared distance of some rows to the k-th nearest other one in ``among``, which holds them too, at distance 0."""
    return kernels.kth_neighbor(take_rows(points, rows), among, n_neighbors=k + 1)


class _Check(NamedTuple):
    """Exact counts of the checked rows, and how exact the radii in the index are."""

    counts: BallCounts
    exact_radii: float
    largest_radius_error: float


def _check(
    kernels: Backend,
    real: Features,
    fake: Features,
    real_sq_radii: NDArray[np.float64],
    fake_sq_radii: NDArray[np.float64],
    real_rows: Counts,
    fake_rows: Counts,
    k: int,
    *,
    closed: bool,
) -> _Check:
    real_sample, fake_sample = take_rows(real, real_rows), take_rows(fake, fake_rows)
    real_exact = _nearest(kernels, real, real_rows, real, k)
    fake_exact = _nearest(kernels, fake, fake_rows, fake, k)
    exact = np.concatenate([real_exact, fake_exact])
    found = np.concatenate([real_sq_radii[real_rows], fake_sq_radii[fake_rows]])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(found == exact, 1.0, np.sqrt(found / exact))
    return _Check(
        BallCounts(
            x_ball_sizes=kernels.ball_counts(real_sample, fake, x_sq_radii=real_exact, closed=closed).x_ball_sizes,
            y_in_x_balls=_exact_memberships(kernels, fake_sample, real, real_sq_radii, k, closed=closed),
            y_ball_sizes=np.empty(0, dtype=np.int64),
            x_in_y_balls=_exact_memberships(kernels, real_sample, fake, fake_sq_radii, k, closed=closed),
        ),
        exact_radii=float(np.mean(found == exact)),
        largest_radius_error=float(ratios.max()) - 1.0,
    )


def _exact_memberships(
    kernels: Backend, rows: Features, centers: Features, sq_radii: NDArray[np.float64], k: int, *, closed: bool
) -> Counts:
    """In how many k-nearest-neighbour balls of ``centers`` each row lies, given radii that are nowhere too small.

    A ball that holds no row with such a radius holds none with its own, so few exact radii are needed.
    """
    reaching = kernels.ball_counts(centers, rows, x_sq_radii=sq_radii, closed=closed).x_ball_sizes
    needed = np.flatnonzero(reaching)
    if not len(needed):
        return np.zeros(len(rows), dtype=np.int64)
    exact = _nearest(kernels, centers, needed, centers, k)
    return kernels.ball_counts(take_rows(centers, needed), rows, x_sq_radii=exact, closed=closed).y_in_x_balls


def _share(approximate: NDArray[np.bool_], rows: Counts, exact: NDArray[np.bool_], level: float) -> tuple[float, float]:
    """Estimate the mean of a property of all rows that is known exactly for some; return it and its error bound."""
    n, n_checked, total = len(approximate), len(rows), int(approximate.sum())
    gained = int(np.sum(exact & ~approximate[rows]))
    lost = int(np.sum(~exact & approximate[rows]))
    estimate = min(max(total + n * (gained - lost) / n_checked, 0.0), float(n))
    tail = (1.0 - level) / 4.0
    most_gained = min(_most(gained, n_checked, n, tail), n - total)
    most_lost = min(_most(lost, n_checked, n, tail), total)
    least_gained = n - _most(n_checked - gained, n_checked, n, tail)
    least_lost = n - _most(n_checked - lost, n_checked, n, tail)
    above = total + most_gained - least_lost - estimate
    below = estimate - (total + least_gained - most_lost)
    return estimate / n, max(above, below) / n


def _density(approximate: Counts, rows: Counts, exact: Counts, k: int, level: float) -> tuple[float, float]:
    """Estimate the mean of counts / k that are known exactly for some rows; return it and its error bound."""
    n, n_checked = len(approximate), len(rows)
    differences = exact - approximate[rows]
    estimate = max(int(approximate.sum()) + n * int(differences.sum()) / n_checked, 0.0)
    deviation = float(differences.std(ddof=1)) * math.sqrt(1.0 / n_checked - 1.0 / n)
    sampled = float(stdtrit(n_checked - 1, (1.0 + level) / 2.0)) * deviation
    unseen = _most(0, n_checked, n, (1.0 - level) / 2.0) / n * max(1, int(np.abs(differences).max()))
    return estimate / (k * n), max(sampled, unseen) / k


def _most(seen: int, n_drawn: int, n: int, tail: float) -> int:
    """Upper confidence limit for how many of n rows are of a kind that was seen ``seen`` times in ``n_drawn`` of them.

    If they are more, so few are seen with a chance of at most ``tail``.
    """
    low, high = seen, n - (n_drawn - seen)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _chance_of_at_most(seen, n_drawn, middle, n) > tail else (low, middle - 1)
    return low


def _chance_of_at_most(seen: int, n_drawn: int, n_kind: int, n: int) -> float:
    """Hypergeometric distribution function: of ``n_drawn`` rows out of n, at most ``seen`` of the kind."""
    counts = np.arange(max(0, n_drawn - (n - n_kind)), seen + 1)
    if not len(counts):
        return 0.0
    log_ways = _log_binomial(n_kind, counts) + _log_binomial(n - n_kind, n_drawn - counts)
    return math.exp(float(logsumexp(log_ways - _log_binomial(n, np.array(n_drawn)))))


def _log_binomial(total: int, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    logarithm: NDArray[np.float64] = gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)
    return logarithm
