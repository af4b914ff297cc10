"""The classes for other libraries give the numbers of the frame, in one process and on several ranks."""

from __future__ import annotations

import copy
import doctest
import pickle
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics.groups import GenerativeMetricFrame, Reference, flat_scores
from egtmetrics.streaming import GenerativeMetricStream, merge_ranks
from tests._ranks import on_ranks

NAMES = ["f", "m"]
GROUPS = np.tile([0, 1], 20)
LABELS = np.array(NAMES)[GROUPS]


def samples() -> dict[bool, Any]:
    rng = np.random.default_rng(0)
    return {real: rng.normal(size=(40, 3)).astype(np.float32) for real in (True, False)}


def expected() -> dict[str, float]:
    stream = GenerativeMetricStream(metrics="fid", random_state=0)
    for real, features in samples().items():
        stream.update(features, real=real, sensitive_features=LABELS)
    return flat_scores(stream.compute())


def numbers(scores: Any) -> dict[str, float]:
    return {name: pytest.approx(float(value), rel=1e-6) for name, value in scores.items()}


def on_rank(rank: int, size: int) -> list[dict[str, float]]:
    """Only rank 0 has fake rows, and the last one has none at all, only empty batches."""
    import torch

    none = np.arange(0)
    real_rows = none if rank == size - 1 else np.arange(rank, 40, size - 1)
    parts = {True: real_rows, False: np.arange(40) if rank == 0 else none}
    stream = GenerativeMetricStream(metrics="fid", random_state=0)
    metrics = []
    if find_spec("torchmetrics"):
        kind = import_module("egtmetrics.integrations").GroupMetric
        reference = Reference(samples()[True], sensitive_features=LABELS)
        metrics = [kind("fid", group_names=NAMES), kind("fid", group_names=NAMES, reference=reference)]
    for real, rows in parts.items():
        features = samples()[real][rows]
        stream.update(features, real=real, sensitive_features=LABELS[rows])
        for metric in metrics[: 1 if real else None]:
            metric.update(torch.tensor(features), real=real, groups=torch.tensor(GROUPS[rows]))
    merge_ranks(stream)
    return [flat_scores(stream.compute()), *(metric.compute() for metric in metrics)]


def test_ranks_equal_one_process(tmp_path: Path) -> None:
    """Streams that are merged, and with torchmetrics metrics whose states it gathers, one of them with a reference."""
    pytest.importorskip("torch")
    for outcome in on_ranks(on_rank, 3, tmp_path):
        assert not isinstance(outcome, Exception), outcome
        assert len(outcome) == (3 if find_spec("torchmetrics") else 1)
        for scores in outcome:
            assert numbers(scores) == expected()


class TestTorchmetrics:
    @pytest.fixture
    def torch(self) -> Any:
        pytest.importorskip("torchmetrics")
        return import_module("torch")

    @pytest.fixture
    def metric(self, torch: Any) -> Any:
        from egtmetrics.integrations import GroupMetric

        metric = GroupMetric("fid", group_names=NAMES, reset_real_features=False)
        for real, features in samples().items():
            assert metric(torch.tensor(features), real=real, groups=torch.tensor(GROUPS)) is None
        return metric

    def test_equals_the_frame_and_survives_copies(self, metric: Any) -> None:
        for this in (metric, copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.to("cpu")):
            assert numbers(this.compute()) == expected()

    def test_reset_keeps_the_real_samples(self, torch: Any, metric: Any) -> None:
        metric.reset()
        metric.update(torch.tensor(samples()[False]), real=False, groups=torch.tensor(GROUPS))
        assert numbers(metric.compute()) == expected()

    def test_minus_one_is_no_group(self, torch: Any, metric: Any) -> None:
        metric.update(torch.ones(3, 3), real=True, groups=torch.full((3,), -1))
        frame = metric.frame()
        assert frame.unassigned == {"real": 3, "fake": 0}
        assert list(frame.by_group.index) == NAMES

    def test_a_batch_without_rows_changes_nothing(self, torch: Any, metric: Any) -> None:
        for features in (torch.empty(0, 3), torch.empty(0), []):
            metric.update(features, real=True, groups=torch.empty(0, dtype=torch.long))
        type(metric)("fid", group_names=NAMES).update(torch.empty(0, 5), real=True, groups=[])
        assert numbers(metric.compute()) == expected()
        with pytest.raises(ValueError, match="features has 4 features where there were 3 before"):
            metric.update(torch.empty(0, 4), real=True, groups=[])
        with pytest.raises(ValueError, match="groups has 1 numbers for 0 samples"):
            metric.update(torch.empty(0, 3), real=True, groups=torch.tensor([1]))

    @pytest.mark.parametrize("name", ["group", "sex"])
    def test_a_reference_is_the_real_side(self, torch: Any, name: str) -> None:
        from egtmetrics.integrations import GroupMetric

        real, fake = samples()[True], torch.tensor(samples()[False])
        reference = Reference(real, sensitive_features={name: LABELS})
        metric = GroupMetric("fid,ipr", group_names=NAMES, reference=reference)
        with_rows = GroupMetric("fid,ipr", group_names=NAMES)
        with_rows.update(torch.tensor(real), real=True, groups=torch.tensor(GROUPS))
        for this in (metric, with_rows):
            this.update(fake, real=False, groups=torch.tensor(GROUPS))
        scores = with_rows.compute()
        for this in (metric, pickle.loads(pickle.dumps(metric))):
            assert this.compute() == scores
        metric.reset()
        metric.update(fake + 1.0, real=False, groups=torch.tensor(GROUPS))
        assert metric.compute() != scores

    def test_a_reference_that_does_not_fit_is_refused(self, torch: Any) -> None:
        from egtmetrics.integrations import GroupMetric

        real, groups = samples()[True], torch.tensor(GROUPS)
        reference = Reference(real, sensitive_features=LABELS)
        metric = GroupMetric("fid", group_names=NAMES, reference=reference)
        with pytest.raises(ValueError, match="are those of its reference; add fake ones only"):
            metric.update(torch.tensor(real), real=True, groups=groups)
        with pytest.raises(ValueError, match="features has 4 features where there were 3 before"):
            metric.update(torch.ones(40, 4), real=False, groups=groups)
        metric.set_dtype(torch.float64)
        with pytest.raises(TypeError, match=r"has float32 features, and this metric keeps torch.float64; call set_dty"):
            metric.update(torch.ones(40, 3), real=False, groups=groups)
        for labels, message in (
            (GROUPS, "group_names=f, m lacks groups of the reference: 0, 1; name all"),
            ({"a": LABELS, "b": LABELS}, "has the sensitive features a, b, expected one"),
            (None, "reference has no labels"),
        ):
            with pytest.raises(ValueError, match=message):
                GroupMetric("fid", group_names=NAMES, reference=Reference(real, sensitive_features=labels))

    @pytest.mark.parametrize("with_reference", [False, True])
    def test_peeks_are_what_compute_would_return(self, torch: Any, with_reference: bool) -> None:
        from egtmetrics.integrations import GroupMetric

        real, fake = (torch.tensor(features) for features in samples().values())
        groups = torch.tensor(GROUPS)
        reference = Reference(samples()[True], sensitive_features=LABELS) if with_reference else None
        metric = GroupMetric("ipr", group_names=NAMES, reference=reference, reset_real_features=False)
        if reference is None:
            metric.update(real, real=True, groups=groups)
        for first, last in ((0, 20), (20, 30), (30, 40)):
            metric.update(fake[first:last], real=False, groups=groups[first:last])
            assert metric.peek() == metric.compute()
        assert metric._peeking.peek().group_counts["n_fake"].sum() == 40  # each batch came once
        metric = copy.deepcopy(metric)
        metric.merge_state(copy.deepcopy(metric))
        assert metric.peek() == numbers(flat_scores(metric.frame()))  # compute would return what it did before
        assert metric.frame().group_counts["n_fake"].sum() == 80
        metric.reset()
        for part in (fake, fake + 0.5):
            metric.update(part, real=False, groups=groups)
            assert metric.peek() == metric.compute()

    def test_in_a_collection(self, torch: Any) -> None:
        from torchmetrics import MetricCollection

        from egtmetrics.integrations import GroupMetric

        collection = MetricCollection({"a": GroupMetric("fid", group_names=NAMES)}, prefix="val/")
        for real, features in samples().items():
            collection.update(torch.tensor(features), real=real, groups=torch.tensor(GROUPS))
        assert numbers(collection.compute()) == {f"val/{name}": value for name, value in expected().items()}

    def test_refuses(self, torch: Any, metric: Any) -> None:
        with pytest.raises(ValueError, match="4 features where there were 3"):
            metric.update(torch.ones(2, 4), real=True, groups=torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="one integer per sample"):
            metric.update(torch.ones(2, 3), real=True, groups=torch.tensor([0.0, 1.0]))
        for numbers_of_groups in ([-2, 1], [0, 2]):
            with pytest.raises(ValueError, match="expected 0 to 1, as group_names has 2 names, or -1 for no group"):
                metric.update(torch.ones(2, 3), real=True, groups=torch.tensor(numbers_of_groups))
        assert numbers(metric.compute()) == expected()
        with pytest.raises(ValueError, match="has a name twice"):
            type(metric)("fid", group_names=["f", "f"])

    def test_example(self, torch: Any) -> None:
        outcome = doctest.testmod(import_module("egtmetrics.integrations._torchmetrics"))
        assert (outcome.failed, outcome.attempted > 0) == (0, True)


def test_evaluate_equals_the_frame(tmp_path: Path) -> None:
    pytest.importorskip("evaluate")
    from egtmetrics.integrations import GroupEvaluationModule

    module = GroupEvaluationModule("fid", cache_dir=str(tmp_path))
    for real, features in samples().items():
        for rows in np.array_split(np.arange(40), 3):
            module.add_batch(features=features[rows], real=[real] * len(rows), group=LABELS[rows].tolist())
        module.add_batch(features=np.ones((2, 3)), real=[real] * 2, group=["", ""])
    scores = module.compute()
    assert scores.pop("fid/overall") != expected()["fid/overall"]
    assert numbers(scores) == {name: value for name, value in expected().items() if name != "fid/overall"}


class TestFairlearn:
    @pytest.mark.parametrize("n_columns", [1, 2])
    def test_equals_the_frame(self, n_columns: int) -> None:
        metrics = pytest.importorskip("fairlearn.metrics")
        from egtmetrics.integrations import fairlearn_metric, pair_by_group

        real, fake = (features[:, :n_columns] for features in samples().values())
        labels: dict[str, Any] = {"real_sensitive_features": LABELS, "fake_sensitive_features": LABELS[::-1]}
        paired = pair_by_group(real, fake, **labels, random_state=0)
        theirs = metrics.MetricFrame(metrics={"recall": fairlearn_metric("prdc", "recall")}, **paired)
        ours = GenerativeMetricFrame(metrics="prdc", real=real, fake=fake, **labels)
        assert theirs.by_group["recall"].tolist() == ours.by_group["prdc_recall"].tolist()

    def test_refuses_an_unclear_score(self) -> None:
        from egtmetrics.integrations import fairlearn_metric

        with pytest.raises(ValueError, match="score=None is not a score of metric 'prdc'; choose one of"):
            fairlearn_metric("prdc")(*samples().values())
        with pytest.raises(ValueError, match="names 2 metrics"):
            fairlearn_metric("prdc,fid")

    def test_example(self) -> None:
        outcome = doctest.testmod(import_module("egtmetrics.integrations._fairlearn"))
        assert (outcome.failed, outcome.attempted > 0) == (0, True)


def test_lightning_logs_the_scores_of_every_epoch(tmp_path: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    import torch

    from egtmetrics.integrations import GroupMetricsCallback

    class Model(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.weight.sum()

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return {"fake": batch[1]}

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def read(outputs: Any, batch: Any) -> Any:
        labels = [NAMES[group] for group in batch[2]]
        yield {"features": batch[0], "real": True, "sensitive_features": labels}
        yield {"features": outputs["fake"], "real": False, "sensitive_features": labels}

    data = samples()
    rows = torch.utils.data.TensorDataset(torch.tensor(data[True]), torch.tensor(data[False]), torch.tensor(GROUPS))
    loader = torch.utils.data.DataLoader(rows, batch_size=7)
    callback = GroupMetricsCallback(GenerativeMetricStream(metrics="fid", random_state=0), read)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Model(), loader, loader)
    logged = {name.removeprefix("val/"): value for name, value in trainer.callback_metrics.items()}
    assert numbers(logged) == expected()
