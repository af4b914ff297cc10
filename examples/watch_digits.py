"""Watch a generator of digits by group while it is trained, in a loop of your own; and what the other examples share.

The digits 0 to 4 are three in four of the training data. Every 100 steps the generator is compared with real digits
that it has not seen, the checkpoint whose worse group is best is kept, and training stops when none was better for a
while. At the end the kept checkpoint is scored again on fresh samples: it won, so its score was partly luck. Run it
with ``python examples/watch_digits.py``; it takes half a minute.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from egtmetrics import GenerativeMetricFrame, Reference
from egtmetrics.groups import CheckpointSelection, DisparityMonitor
from egtmetrics.integrations import GroupWatch

GROUPS = ("digits 0 to 4", "digits 5 to 9")
N_STEPS = 800
BATCH = 64


def group_of(digits: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.where(digits < 5, *GROUPS)


def load(seed: int = 0) -> tuple[torch.utils.data.TensorDataset, Reference]:
    """Return images and digits to train on, three below five for one from five up, and real ones to compare with."""
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    below, above = (rng.permutation(np.flatnonzero(group_of(digits) == group)) for group in GROUPS)
    rows = np.concatenate([below[:450], above[:150]])
    held_out = np.concatenate([below[450:890], above[150:590]])  # as many of both, since scores depend on the number
    pixels = torch.tensor(images / 8.0 - 1.0, dtype=torch.float32)
    data = torch.utils.data.TensorDataset(pixels[rows], torch.tensor(digits[rows]))
    reference = Reference(
        pixels[held_out].numpy(), sensitive_features=group_of(digits[held_out]), metrics="prdc", random_state=0
    )
    return data, reference


class DigitGenerator(nn.Module):
    """A small variational autoencoder that knows the digit."""

    def __init__(self, width: int = 128, latent: int = 8) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(nn.Linear(74, width), nn.SiLU(), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent + 10, width), nn.SiLU(), nn.Linear(width, 64), nn.Tanh())

    def forward(self, images: Tensor, digits: Tensor) -> dict[str, Tensor]:
        """Return the loss under the name under which the Trainer of transformers looks for it."""
        known = nn.functional.one_hot(digits, 10).float()
        mean, log_variance = self.encoder(torch.cat([images, known], 1)).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        error = ((self.decoder(torch.cat([z, known], 1)) - images) ** 2).sum(1)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(1)
        return {"loss": (10.0 * error + divergence).mean()}

    def sample(self, digits: Tensor, generator: torch.Generator) -> Tensor:
        z = torch.randn(len(digits), self.latent, generator=generator)
        known = nn.functional.one_hot(digits, 10).float()
        images: Tensor = self.decoder(torch.cat([z, known], 1))
        return images


class Evaluation:
    """Generate as many digits of each kind, and compare them with the reference by group."""

    def __init__(self, reference: Reference, n_samples: int = 600) -> None:
        self.reference, self.n_samples = reference, n_samples

    def __call__(self, model: Any, seed: int) -> GenerativeMetricFrame:
        digits = torch.arange(self.n_samples) % 10
        images = model.sample(digits, torch.Generator().manual_seed(seed))
        return GenerativeMetricFrame(
            metrics="prdc",
            real=self.reference,
            fake=images.numpy(),
            fake_sensitive_features=group_of(digits.numpy()),
            random_state=0,
        )


def make_watch(folder: Path, reference: Reference, *, every: int = 100, n_samples: int = 600) -> GroupWatch:
    """Keep the checkpoint with the best lower bound of the worse group's coverage."""
    return GroupWatch(
        Evaluation(reference, n_samples),
        CheckpointSelection("prdc_coverage", patience=4),
        folder=folder,
        every=every,
        monitor=DisparityMonitor("prdc", "delta_coverage", n_looks=20),
        loggers=[show],
    )


def show(scalars: Any, step: int) -> None:
    names = ("prdc_coverage/worst", "prdc/delta_coverage", "monitor/alarm", "rescored/value")
    found = {name: scalars[f"groups/{name}"] for name in names if f"groups/{name}" in scalars}
    print(f"step {step}:", ", ".join(f"{name} {value:.3f}" for name, value in found.items()))


def train(model: DigitGenerator, data: torch.utils.data.TensorDataset, watch: GroupWatch, n_steps: int) -> None:
    """Train until the watch says stop."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    step = 0
    while True:
        for images, digits in loader:
            optimizer.zero_grad()
            model(images, digits)["loss"].backward()
            optimizer.step()
            step += 1
            if watch.step(model, step) or step == n_steps:
                return


def main(folder: Path | None = None, *, n_steps: int = N_STEPS, n_samples: int = 600) -> GroupWatch:
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    torch.manual_seed(0)
    data, reference = load()
    watch = make_watch(folder, reference, every=n_steps // 8, n_samples=n_samples)
    model = DigitGenerator()
    train(model, data, watch, n_steps)
    frame = watch.rescore(model)
    print(f"\n{watch.selection.text(watch.rescored)}.")
    print(f"{watch.monitor.text if watch.monitor else ''}.\n")
    print(frame.by_group.round(3))
    print(f"\nThe best checkpoint and what was found are in {folder}.")
    return watch


if __name__ == "__main__":
    main()
