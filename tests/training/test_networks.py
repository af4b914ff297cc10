"""Networks of diffusers in a denoiser: stand-ins with their signatures and outputs, and the real ones where installed.

The stand-ins return what they were called with, so that a test sees what reaches a model.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from egtmetrics.training import (
    Denoiser,
    DiffusersNetwork,
    EDMPreconditioning,
    MinMaxLoss,
    NoiseLevels,
    VPPreconditioning,
    denoising_losses,
    heun_sample,
    train,
)

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
GROUPS = torch.arange(8) % 2


class Echo(nn.Module):
    """Predicts a convolution of its input, and remembers how it was called."""

    def __init__(self, *, n_outputs: int = 3, **config: Any) -> None:
        super().__init__()
        self.config, self.calls = config, []
        self.convolution = nn.Conv2d(3, n_outputs, 1)
        self.class_embedding = nn.Embedding(config.get("num_class_embeds") or 1, n_outputs)

    @classmethod
    def from_config(cls, config: Any, **changes: Any) -> Echo:
        return cls(**{**config, **changes})

    def answer(self, sample: Tensor, return_dict: bool, **call: Any) -> Any:
        self.calls.append({"sample": sample, **call})
        output = self.convolution(sample)
        if self.config.get("num_class_embeds"):
            output = output + self.class_embedding(call["class_labels"])[:, :, None, None]
        return SimpleNamespace(sample=output) if return_dict else (output,)


class UNet2D(Echo):
    def forward(self, sample: Tensor, timestep: Tensor, class_labels: Any = None, return_dict: bool = True) -> Any:
        return self.answer(sample, return_dict, timestep=timestep, class_labels=class_labels)


class UNet2DCondition(Echo):
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        class_labels: Any = None,
        timestep_cond: Any = None,
        return_dict: bool = True,
    ) -> Any:
        call = {"timestep": timestep, "class_labels": class_labels, "encoder_hidden_states": encoder_hidden_states}
        return self.answer(sample, return_dict, **call)


class DiT(Echo):
    def forward(
        self, hidden_states: Tensor, timestep: Any = None, class_labels: Any = None, return_dict: bool = True
    ) -> Any:
        return self.answer(hidden_states, return_dict, timestep=timestep, class_labels=class_labels)


STATES = torch.arange(12.0).reshape(4, 3)
CONDITIONAL = {
    "UNet2DModel": lambda: DiffusersNetwork(UNet2D(num_class_embeds=2)),
    "UNet2DConditionModel": lambda: DiffusersNetwork(
        UNet2DCondition(num_class_embeds=2, cross_attention_dim=3), encoder_hidden_states=STATES
    ),
    "DiT": lambda: DiffusersNetwork(DiT(num_embeds_ada_norm=2, n_outputs=6)),
}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_model_is_called_with_its_own_arguments(name: str) -> None:
    """Each stand-in has the order of arguments of the real one, which differ."""
    network = CONDITIONAL[name]()
    c_noise = torch.linspace(-1.0, 1.0, 8)
    output = network(IMAGES, c_noise, GROUPS)
    (call,) = network.model.calls
    torch.testing.assert_close(call["sample"], IMAGES, rtol=0, atol=0)
    torch.testing.assert_close(call["timestep"], c_noise, rtol=0, atol=0)
    assert torch.equal(call["class_labels"], GROUPS)
    if name == "UNet2DConditionModel":
        torch.testing.assert_close(call["encoder_hidden_states"], STATES.expand(8, 4, 3), rtol=0, atol=0)
    expected = network.model.convolution(IMAGES)[:, :3]
    if name != "DiT":
        expected = expected + network.model.class_embedding(GROUPS)[:, :, None, None]
    torch.testing.assert_close(output, expected)


def test_fourier_features_of_a_logarithm_get_its_exponential() -> None:
    """c_noise is negative for little noise, where a logarithm would be NaN."""
    model = UNet2D()
    model.time_proj = nn.Identity()
    model.time_proj.log = True
    c_noise = torch.tensor([-1.0, 0.5])
    DiffusersNetwork(model)(IMAGES[:2], c_noise)
    torch.testing.assert_close(model.calls[0]["timestep"].log(), c_noise)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_strategies_train_it(name: str) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(CONDITIONAL[name](), EDMPreconditioning())
    levels = NoiseLevels(denoiser.preconditioning.law, n_bins=1)
    before = denoiser.network.model.convolution.weight.detach().clone()
    run = train(denoiser, IMAGES, GROUPS, MinMaxLoss(2), levels, n_steps=3, labels=GROUPS, batch_size=8)
    assert (denoiser.network.model.convolution.weight != before).any()
    samples = heun_sample(run.ema, torch.randn(4, 3, 8, 8), labels=torch.arange(4) % 2, n_steps=2)
    assert samples.shape == (4, 3, 8, 8)
    assert samples.isfinite().all()


def unconditional() -> DiffusersNetwork:
    return DiffusersNetwork(UNet2D())


def unconditional_on_texts() -> DiffusersNetwork:
    return DiffusersNetwork(UNet2DCondition(cross_attention_dim=3), encoder_hidden_states=STATES)


@pytest.mark.parametrize("make", [unconditional, unconditional_on_texts])
def test_conditional_training_starts_from_unconditional_weights(make: Any) -> None:
    network = make().eval()
    del network.model.class_embedding  # which an unconditional model of diffusers has not
    conditional = network.with_classes(2)
    c_noise = torch.linspace(-1.0, 1.0, 8)
    torch.testing.assert_close(conditional(IMAGES, c_noise, GROUPS), network(IMAGES, c_noise), rtol=0, atol=0)
    assert (conditional.n_classes, network.n_classes, conditional.training) == (2, None, False)
    conditional(IMAGES, c_noise, GROUPS).square().sum().backward()
    assert conditional.model.class_embedding.weight.grad.abs().min() > 0.0
    assert network.model.convolution.weight.grad is None
    with pytest.raises(ValueError, match="the model is conditioned on 2 classes already"):
        conditional.with_classes(2)


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: SimpleNamespace(sample=x), lambda x: (x,), lambda x: [x, None]]
)
def test_a_denoiser_takes_any_output_with_a_tensor_in_it(wrap: Any) -> None:
    x, sigma = torch.ones(2, 3), torch.tensor([1.0, 2.0])
    plain = Denoiser(lambda x, c_noise, labels: 2.0 * x, EDMPreconditioning())
    wrapped = Denoiser(lambda x, c_noise, labels: wrap(2.0 * x), EDMPreconditioning())
    torch.testing.assert_close(wrapped(x, sigma), plain(x, sigma), rtol=0, atol=0)


def test_outputs_without_a_tensor_or_of_another_shape_are_refused() -> None:
    x, sigma = torch.ones(2, 3), torch.ones(2)
    with pytest.raises(TypeError, match="network returned dict, expected a tensor, an object with a tensor named"):
        Denoiser(lambda *_: {"x": x}, EDMPreconditioning())(x, sigma)
    with pytest.raises(ValueError, match=r"network returned shape \(2, 1\), expected that of its input, \(2, 3\)"):
        Denoiser(lambda *_: x[:, :1], EDMPreconditioning())(x, sigma)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TypeError, match="model is Linear without the config of a model of diffusers"):
        DiffusersNetwork(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="class_embed_type='timestep', which takes no numbers of classes"):
        DiffusersNetwork(UNet2D(class_embed_type="timestep"))
    with pytest.raises(ValueError, match="encoder_hidden_states is missing, but UNet2DCondition needs it"):
        DiffusersNetwork(UNet2DCondition(cross_attention_dim=3))
    with pytest.raises(ValueError, match="encoder_hidden_states is given, but UNet2D takes none; leave it out"):
        DiffusersNetwork(UNet2D(), encoder_hidden_states=STATES)
    with pytest.raises(ValueError, match=r"encoder_hidden_states has shape \(1, 4, 3\), expected \(length, d\)"):
        DiffusersNetwork(UNet2DCondition(cross_attention_dim=3), encoder_hidden_states=STATES[None])
    c_noise = torch.zeros(8)
    with pytest.raises(ValueError, match="labels were given to an unconditional UNet2D; build it with num_class_emb"):
        DiffusersNetwork(UNet2D())(IMAGES, c_noise, GROUPS)
    with pytest.raises(ValueError, match="labels are missing, but the model is conditioned on 2 classes"):
        CONDITIONAL["DiT"]()(IMAGES, c_noise)
    with pytest.raises(ValueError, match="expected integers from 0 to 1"):
        CONDITIONAL["UNet2DModel"]()(IMAGES, c_noise, GROUPS + 1)


def real(name: str) -> DiffusersNetwork:
    diffusers = pytest.importorskip("diffusers")
    blocks = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    if name == "fourier":
        return DiffusersNetwork(diffusers.UNet2DModel(**blocks, **plain, time_embedding_type="fourier"))
    if name == "UNet2DModel":
        return DiffusersNetwork(diffusers.UNet2DModel(**blocks, **plain, num_class_embeds=2))
    if name == "UNet2DConditionModel":
        crossed = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
        crossed["up_block_types"] = ("UpBlock2D", "CrossAttnUpBlock2D")
        model = diffusers.UNet2DConditionModel(
            **blocks, **crossed, in_channels=3, out_channels=3, num_class_embeds=2, cross_attention_dim=3,
            attention_head_dim=4,
        )  # fmt: skip
        return DiffusersNetwork(model, encoder_hidden_states=STATES)
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=3, out_channels=6, num_layers=1, sample_size=8,
        norm_num_groups=4, num_embeds_ada_norm=2,
    )  # fmt: skip
    return DiffusersNetwork(model)


def test_the_real_model_takes_classes_later() -> None:
    network = real("fourier").eval()
    conditional = network.with_classes(2)
    c_noise = torch.linspace(-1.0, 1.0, 8)
    torch.testing.assert_close(conditional(IMAGES, c_noise, GROUPS), network(IMAGES, c_noise))


EDM, VP = EDMPreconditioning(), VPPreconditioning()
REAL = [(name, chosen) for name in ("UNet2DModel", "UNet2DConditionModel", "DiT") for chosen in (EDM, VP)]


@pytest.mark.parametrize(("name", "preconditioning"), [*REAL, ("fourier", EDM)])
def test_the_real_models_train(name: str, preconditioning: Any) -> None:
    network = real(name)
    denoiser = Denoiser(network, preconditioning)
    labels = None if network.n_classes is None else GROUPS
    sigma = preconditioning.law.quantile(torch.linspace(0.01, 0.99, 8)).float()
    losses = denoising_losses(denoiser, IMAGES, sigma, labels=labels)
    assert losses.isfinite().all()
    losses.mean().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.grad is not None)


def test_fourier_features_refuse_steps_whose_exponential_is_infinite() -> None:
    """The first version trained on with losses that were NaN."""
    denoiser = Denoiser(real("fourier"), VPPreconditioning())
    with pytest.raises(ValueError, match=r"c_noise can be 88 at most in float32, and \d+ came; use EDMPreconditioning"):
        denoising_losses(denoiser, IMAGES, torch.full((8,), 50.0))
