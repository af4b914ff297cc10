from __future__ import annotations

import copy

import pytest
import torch
from sklearn.datasets import load_digits

from egtmetrics.training import Denoiser, EDMPreconditioning, ResidualMLP, denoising_losses


def trained_a_little(**options: int) -> ResidualMLP:
    """With an output that is not zero any more."""
    torch.manual_seed(0)
    model = ResidualMLP(6, width=16, n_blocks=2, **options)
    torch.nn.init.normal_(model.last.weight)
    return model


def test_size_and_first_output() -> None:
    model = ResidualMLP(64)
    assert 1.1e6 < sum(weight.numel() for weight in model.parameters()) < 1.25e6
    assert model(torch.randn(3, 64), torch.randn(3)).abs().max().item() == 0.0


def test_output_depends_on_noise_and_class() -> None:
    model = trained_a_little(n_classes=3)
    x, noise, labels = torch.randn(2, 6), torch.zeros(2), torch.tensor([0, 1])
    output = model(x, noise, labels)
    assert output.shape == (2, 6)
    assert not torch.allclose(output, model(x, noise + 0.1, labels))
    assert not torch.allclose(output, model(x, noise, labels + 1))


def test_conditioning_changes_no_output_at_first() -> None:
    model = trained_a_little()
    before = copy.deepcopy(model.state_dict())
    conditional = model.with_classes(4)
    x, noise = torch.randn(8, 6), torch.randn(8)
    assert torch.equal(conditional(x, noise, torch.arange(8) % 4), model(x, noise))
    assert (model.n_classes, conditional.n_classes) == (None, 4)
    assert conditional.double()(x.double(), noise, torch.arange(8) % 4).dtype == torch.float64
    conditional(x.double(), noise, torch.arange(8) % 4).sum().backward()
    assert conditional.labels is not None
    assert conditional.labels.weight.grad is not None
    assert float(conditional.labels.weight.grad.abs().max()) > 0.0  # zero, but not stuck there
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_conditioning_keeps_the_dtype() -> None:
    conditional = trained_a_little().double().with_classes(2)
    assert conditional(torch.zeros(1, 6).double(), torch.zeros(1), torch.zeros(1).long()).dtype == torch.float64


def test_training_on_digits_reduces_the_loss() -> None:
    """60 steps on 8 x 8 digits; at first F = 0, so the loss is near w E|D - x|^2."""
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data, dtype=torch.float32) / 8.0 - 1.0
    denoiser = Denoiser(ResidualMLP(64, width=64, n_blocks=2), EDMPreconditioning())
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
    values = []
    for _ in range(60):
        rows = torch.randint(len(x), (256,))
        optimizer.zero_grad()
        value = denoising_losses(denoiser, x[rows], denoiser.preconditioning.law.sample(256)).mean()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert sum(values[-10:]) / 10 < 0.7 * sum(values[:2]) / 2


def test_bad_arguments() -> None:
    plain, conditional = trained_a_little(), trained_a_little(n_classes=2)
    x, noise = torch.zeros(2, 6), torch.zeros(2)
    with pytest.raises(ValueError, match="labels were given to an unconditional ResidualMLP"):
        plain(x, noise, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels are missing, but the model is conditioned on 2 classes"):
        conditional(x, noise)
    for wrong in ([0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="expected integers from 0 to 1"):
            conditional(x, noise, torch.tensor(wrong))
    with pytest.raises(ValueError, match="model is conditioned on 2 classes already"):
        conditional.with_classes(2)
    for options in ({"n_features": 0}, {"n_features": 1, "n_classes": 0}, {"n_features": 1, "width": 0}):
        with pytest.raises(ValueError, match="is not an integer of at least 1"):
            ResidualMLP(**options)
