"""The adapters give the numbers of the frame, in one process and in two."""

from __future__ import annotations

import copy
import doctest
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from egtmetrics import frechet_distance  # noqa: E402
from egtmetrics.streaming import GenerativeMetricStream, flat_scores, merge_ranks  # noqa: E402
from tests._ranks import on_ranks  # noqa: E402

METRICS = {"fid": frechet_distance}
GROUPS = np.tile([0, 1], 20)


def samples() -> dict[bool, Any]:
    rng = np.random.default_rng(0)
    return {real: rng.normal(size=(40, 3)).astype(np.float32) for real in (True, False)}


def expected() -> dict[str, float]:
    stream = GenerativeMetricStream(metrics=METRICS, random_state=0)
    for real, features in samples().items():
        stream.update(features, real=real, sensitive_features=GROUPS)
    return flat_scores(stream.compute())


def numbers(scores: Any) -> dict[str, float]:
    return {name: pytest.approx(float(value), rel=1e-6) for name, value in scores.items()}


def parts_of(rank: int, size: int) -> dict[bool, Any]:
    """Only rank 0 has fake rows."""
    return {True: np.arange(rank, 40, size), False: np.arange(40) if rank == 0 else np.arange(0)}


def stream_rank(rank: int, size: int) -> dict[str, float]:
    stream = GenerativeMetricStream(metrics=METRICS, random_state=0)
    for real, rows in parts_of(rank, size).items():
        if len(rows):
            stream.update(samples()[real][rows], real=real, sensitive_features=GROUPS[rows])
    merge_ranks(stream)
    return flat_scores(stream.compute())


def torchmetrics_rank(rank: int, size: int) -> dict[str, float]:
    from egtmetrics.streaming.torchmetrics import GroupMetric

    metric = GroupMetric(METRICS)
    for real, rows in parts_of(rank, size).items():
        if len(rows):
            metric.update(torch.tensor(samples()[real][rows]), real=real, groups=torch.tensor(GROUPS[rows]))
    return {name: float(value) for name, value in metric.compute().items()}


def test_three_ranks_equal_one_process(tmp_path: Path) -> None:
    for scores in on_ranks(stream_rank, 3, tmp_path):
        assert numbers(scores) == expected()


class TestTorchmetrics:
    @pytest.fixture
    def metric(self) -> Any:
        pytest.importorskip("torchmetrics")
        from egtmetrics.streaming.torchmetrics import GroupMetric

        metric = GroupMetric(METRICS, reset_real_features=False)
        for real, features in samples().items():
            assert metric(torch.tensor(features), real=real, groups=torch.tensor(GROUPS)) is None
        return metric

    def test_equals_the_frame_and_survives_copies(self, metric: Any) -> None:
        for this in (metric, copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.to("cpu")):
            assert numbers(this.compute()) == expected()

    def test_reset_keeps_the_real_samples(self, metric: Any) -> None:
        metric.reset()
        metric.update(torch.tensor(samples()[False]), real=False, groups=torch.tensor(GROUPS))
        assert numbers(metric.compute()) == expected()

    def test_two_ranks_equal_one_process(self, tmp_path: Path) -> None:
        pytest.importorskip("torchmetrics")
        for scores in on_ranks(torchmetrics_rank, 2, tmp_path):
            assert numbers(scores) == expected()

    def test_names_groups_and_knows_rows_in_none(self, metric: Any) -> None:
        from egtmetrics.streaming.torchmetrics import GroupMetric

        named = GroupMetric(METRICS, group_names=["f", "m"])
        for real, features in samples().items():
            named.update(torch.tensor(features), real=real, groups=torch.tensor(GROUPS))
        named.update(torch.ones(3, 3), real=True, groups=torch.full((3,), -1))
        frame = named.frame()
        assert frame.unassigned == {"real": 3, "fake": 0}
        assert frame.by_group["fid"].to_dict() == dict(zip("fm", metric.frame().by_group["fid"], strict=True))
        with pytest.raises(ValueError, match="0 to 1, as group_names has 2 names"):
            named.update(torch.ones(1, 3), real=True, groups=torch.tensor([2]))

    def test_in_a_collection(self) -> None:
        torchmetrics = pytest.importorskip("torchmetrics")
        from egtmetrics.streaming.torchmetrics import GroupMetric

        collection = torchmetrics.MetricCollection({"a": GroupMetric(METRICS)}, prefix="val/")
        for real, features in samples().items():
            collection.update(torch.tensor(features), real=real, groups=torch.tensor(GROUPS))
        assert numbers(collection.compute()) == {f"val/{name}": value for name, value in expected().items()}

    def test_refuses(self, metric: Any) -> None:
        with pytest.raises(ValueError, match="4 features where there were 3"):
            metric.update(torch.ones(2, 4), real=True, groups=torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="one integer each"):
            metric.update(torch.ones(2, 3), real=True, groups=torch.tensor([0.0, 1.0]))
        with pytest.raises(ValueError, match="expected -1"):
            metric.update(torch.ones(2, 3), real=True, groups=torch.tensor([-2, 1]))
        assert numbers(metric.compute()) == expected()

    def test_example(self) -> None:
        pytest.importorskip("torchmetrics")
        from egtmetrics.streaming import torchmetrics

        assert doctest.testmod(torchmetrics).failed == 0


def test_evaluate_equals_the_frame(tmp_path: Path) -> None:
    pytest.importorskip("evaluate")
    from egtmetrics.streaming.evaluate import GroupEvaluationModule

    module = GroupEvaluationModule(METRICS, cache_dir=str(tmp_path))
    for real, features in samples().items():
        for rows in np.array_split(np.arange(40), 3):
            group = [str(g) for g in GROUPS[rows]]
            module.add_batch(features=features[rows], real=[real] * len(rows), group=group)
    assert numbers(module.compute()) == expected()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
def test_lightning_logs_the_scores_of_every_epoch(tmp_path: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from egtmetrics.streaming.lightning import GroupMetricsCallback

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
        yield {"features": batch[0], "real": True, "sensitive_features": batch[2]}
        yield {"features": outputs["fake"], "real": False, "sensitive_features": batch[2]}

    data = samples()
    rows = torch.utils.data.TensorDataset(torch.tensor(data[True]), torch.tensor(data[False]), torch.tensor(GROUPS))
    loader = torch.utils.data.DataLoader(rows, batch_size=7)
    callback = GroupMetricsCallback(GenerativeMetricStream(metrics=METRICS, random_state=0), read)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Model(), loader, loader)
    logged = {name.removeprefix("val/"): value for name, value in trainer.callback_metrics.items()}
    assert numbers(logged) == expected()
