from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from egtmetrics.paper.unet import UNet, _Block, _ResampledConv
from egtmetrics.training import Denoiser, EDMPreconditioning, heun_sample

Architecture = Literal["ddpmpp", "ncsnpp"]
ARCHITECTURES: tuple[Architecture, ...] = ("ddpmpp", "ncsnpp")
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
TAPS = ((1, 1), (1, 3, 3, 1))


def small(architecture: Architecture = "ddpmpp", *, seed: int = 0, **options: Any) -> UNet:
    """A network with no weight at zero, for 8 x 8 images."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "n_blocks": 1, "attention": (8,), "dropout": 0.0}
    network = UNet(8, architecture=architecture, **{**sizes, **options})
    for weight in network.parameters():
        if not weight.detach().any():
            nn.init.normal_(weight, std=0.3)
    return network


# The checkpoints for FFHQ, block by block: name, channels in and out, "s" for a skip with weights, "f" where filters
# are stored too, "a" for attention.
ENCODER = """
64x64_block0 128 128 -|64x64_block1 128 128 -|64x64_block2 128 128 -|64x64_block3 128 128 -
32x32_down 128 128 sf|32x32_block0 128 256 s|32x32_block1 256 256 -|32x32_block2 256 256 -|32x32_block3 256 256 -
16x16_down 256 256 sf|16x16_block0 256 256 a|16x16_block1 256 256 a|16x16_block2 256 256 a|16x16_block3 256 256 a
8x8_down 256 256 sf|8x8_block0 256 256 -|8x8_block1 256 256 -|8x8_block2 256 256 -|8x8_block3 256 256 -
"""
DECODER = """
8x8_in0 256 256 a|8x8_in1 256 256 -
8x8_block0 512 256 s|8x8_block1 512 256 s|8x8_block2 512 256 s|8x8_block3 512 256 s|8x8_block4 512 256 s
16x16_up 256 256 sf|16x16_block0 512 256 s|16x16_block1 512 256 s|16x16_block2 512 256 s|16x16_block3 512 256 s
16x16_block4 512 256 sa
32x32_up 256 256 sf|32x32_block0 512 256 s|32x32_block1 512 256 s|32x32_block2 512 256 s|32x32_block3 512 256 s
32x32_block4 384 256 s
64x64_up 256 256 sf|64x64_block0 384 128 s|64x64_block1 256 128 s|64x64_block2 256 128 s|64x64_block3 256 128 s
64x64_block4 256 128 s
"""


def published(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the checkpoints' parameters and buffers, but for the input of augmentations."""
    n_noise, taps = (128, 2) if architecture == "ddpmpp" else (256, 4)
    shapes: dict[str, tuple[int, ...]] = {
        "map_layer0.weight": (512, n_noise),
        "map_layer0.bias": (512,),
        "map_layer1.weight": (512, 512),
        "map_layer1.bias": (512,),
    }

    def layer(name: str, n_out: int, n_in: int, size: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in, size, size), (n_out,)

    def norm(name: str, n: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (n,)

    for part, text in (("enc", ENCODER), ("dec", DECODER)):
        for line in text.replace("|", "\n").split("\n"):
            if not line:
                continue
            name, n_in, n_out, marks = line.split()
            name, n_in, n_out = f"{part}.{name}", int(n_in), int(n_out)
            norm(f"{name}.norm0", n_in)
            norm(f"{name}.norm1", n_out)
            layer(f"{name}.conv0", n_out, n_in, 3)
            layer(f"{name}.conv1", n_out, n_out, 3)
            shapes[f"{name}.affine.weight"], shapes[f"{name}.affine.bias"] = (n_out, 512), (n_out,)
            if "s" in marks:
                layer(f"{name}.skip", n_out, n_in, 1)
            if "f" in marks:
                shapes[f"{name}.conv0.resample_filter"] = shapes[f"{name}.skip.resample_filter"] = (1, 1, taps, taps)
            if "a" in marks:
                norm(f"{name}.norm2", n_out)
                layer(f"{name}.qkv", 3 * n_out, n_out, 1)
                layer(f"{name}.proj", n_out, n_out, 1)
    layer("enc.64x64_conv", 128, 3, 3)
    norm("dec.64x64_aux_norm", 128)
    layer("dec.64x64_aux_conv", 3, 128, 3)
    if architecture == "ncsnpp":
        shapes["map_noise.freqs"] = (128,)
        for name, n_in, n_out in (("32x32", 3, 128), ("16x16", 128, 256), ("8x8", 256, 256)):
            layer(f"enc.{name}_aux_residual", n_out, n_in, 3)
            shapes[f"enc.{name}_aux_residual.resample_filter"] = (1, 1, 4, 4)
    return shapes


@pytest.mark.parametrize(("architecture", "millions"), [("ddpmpp", 61.8), ("ncsnpp", 62.8)])
def test_names_shapes_and_number_of_parameters_of_the_checkpoints(architecture: Architecture, millions: float) -> None:
    with torch.device("meta"):
        network = UNet(64, architecture=architecture)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == published(architecture)
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6, 1) == millions


def halving(n: int, line: Tensor) -> Tensor:
    """The matrix of y_i = sum_k f_k x_(2 i + k - p), with zeros outside."""
    p = (len(line) - 1) // 2
    matrix = torch.zeros(n // 2, n, dtype=torch.float64)
    for i in range(n // 2):
        for k, tap in enumerate(line):
            if 0 <= 2 * i + k - p < n:
                matrix[i, 2 * i + k - p] += tap
    return matrix


@pytest.mark.parametrize("taps", TAPS)
def test_halving_and_doubling_against_sums(taps: tuple[int, ...]) -> None:
    """Doubling is the transpose times 4, a factor of 2 in each direction."""
    n = 6
    halve = halving(n, torch.tensor(taps, dtype=torch.float64) / sum(taps))
    x = torch.randn(2, 3, n, n, dtype=torch.float64)
    weight = torch.randn(4, 3, dtype=torch.float64)
    for resample, matrix in (("down", halve), ("up", 2.0 * halve.mT)):
        n_in = matrix.shape[1]
        layer = _ResampledConv(3, 4, 1, resample, taps).double()  # type: ignore[arg-type]
        with torch.no_grad():
            layer.weight.copy_(weight[:, :, None, None])
            layer.bias.fill_(0.5)  # type: ignore[union-attr]
        small_x = x[:, :, :n_in, :n_in]
        expected = torch.einsum("oc,ih,jw,nchw->noij", weight, matrix, matrix, small_x) + 0.5
        torch.testing.assert_close(layer(small_x), expected)


@pytest.mark.parametrize("taps", TAPS)
def test_convolution_before_halving_sees_beyond_the_edge(taps: tuple[int, ...]) -> None:
    """As halving without padding, after a convolution of the image with a frame of p + 1 zeros."""
    p = (len(taps) - 1) // 2
    layer = _ResampledConv(2, 3, 3, "filtered", taps).double()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    framed = nn.functional.pad(x, [p + 1] * 4)
    convolved = nn.functional.conv2d(framed, layer.weight, layer.bias)
    line = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    windows = convolved.unfold(2, len(taps), 2).unfold(3, len(taps), 2)
    torch.testing.assert_close(layer(x), torch.einsum("ncijhw,h,w->ncij", windows, line, line))
    assert layer(x).shape == (2, 3, 3, 3)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("resample", ["down", "up", "filtered"])
def test_gradients_of_resampling(resample: Any, taps: tuple[int, ...]) -> None:
    layer = _ResampledConv(2, 2, 3, resample, taps).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: torch.func.functional_call(layer, {"weight": w}, x), (x, layer.weight))


@pytest.mark.parametrize("taps", TAPS)
def test_resampling_keeps_constants_mirrors_and_shifts(taps: tuple[int, ...]) -> None:
    def identity(resample: Any) -> _ResampledConv:
        layer = _ResampledConv(1, 1, 1, resample, taps).double()
        nn.init.ones_(layer.weight)
        return layer

    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    for layer, factor in ((identity("down"), 0.5), (identity("up"), 2.0)):
        constant = layer(torch.full_like(x, 3.0))[:, :, 1:-1, 1:-1]
        torch.testing.assert_close(constant, torch.full_like(constant, 3.0))
        torch.testing.assert_close(layer(x.flip(3)), layer(x).flip(3))
        moved = int(2 * factor)
        inside = slice(moved + 2, -2)  # beyond the reach of the edges
        torch.testing.assert_close(layer(x.roll(2, 3))[..., inside], layer(x).roll(moved, 3)[..., inside])


def silu(h: Tensor) -> Tensor:
    return h / (1.0 + torch.exp(-h))


class ByHand:
    """The parts of a network in sums, from the names and values of its state; convolutions and norms are torch's."""

    def __init__(self, state: dict[str, Tensor], taps: tuple[int, ...]) -> None:
        self.state = state
        self.line = torch.tensor(taps, dtype=torch.float64) / sum(taps)

    def conv(self, name: str, x: Tensor, padding: int | None = None) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return nn.functional.conv2d(x, weight, self.state[f"{name}.bias"], padding=padding)

    def norm(self, name: str, x: Tensor) -> Tensor:
        groups, state = min(32, x.shape[1] // 4), self.state
        return nn.functional.group_norm(x, groups, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def resize(self, x: Tensor, how: str) -> Tensor:
        if how == "same":
            return x
        n = 2 * x.shape[-1] if how == "up" else x.shape[-1]
        matrix = halving(n, self.line)
        matrix = 2.0 * matrix.mT if how == "up" else matrix
        return torch.einsum("ih,jw,nchw->ncij", matrix, matrix, x)

    def image(self, name: str, x: Tensor) -> Tensor:
        """Convolved with a wider frame, then halved without one."""
        p = (len(self.line) - 1) // 2
        windows = self.conv(name, x, 1 + p).unfold(2, len(self.line), 2).unfold(3, len(self.line), 2)
        return torch.einsum("ncijhw,h,w->ncij", windows, self.line, self.line)

    def block(self, name: str, x: Tensor, e: Tensor, how: str = "same") -> Tensor:
        state = self.state
        h = self.conv(f"{name}.conv0", self.resize(silu(self.norm(f"{name}.norm0", x)), how))
        h = h + (e @ state[f"{name}.affine.weight"].T + state[f"{name}.affine.bias"])[:, :, None, None]
        h = self.conv(f"{name}.conv1", silu(self.norm(f"{name}.norm1", h)))
        skip = self.conv(f"{name}.skip", self.resize(x, how)) if f"{name}.skip.weight" in state else x
        y = (skip + h) / math.sqrt(2.0)
        if f"{name}.qkv.weight" not in state:
            return y
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", y)).flatten(2)
        q, k, v = qkv[:, 0::3], qkv[:, 1::3], qkv[:, 2::3]
        weights = torch.exp(torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(q.shape[1]))
        weights = weights / weights.sum(2, keepdim=True)
        attended = torch.einsum("nqk,nck->ncq", weights, v).reshape(y.shape)
        return (y + self.conv(f"{name}.proj", attended)) / math.sqrt(2.0)


def test_block_against_sums() -> None:
    torch.manual_seed(0)
    block = _Block(8, 12, 5, attend=True, resample=None, taps=(1, 1), dropout=0.5).double().eval()
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.5)
    x, e = torch.randn(2, 8, 4, 4, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    by_hand = ByHand({f"b.{name}": tensor for name, tensor in block.state_dict().items()}, (1, 1))
    torch.testing.assert_close(block(x, e), by_hand.block("b", x, e))
    assert not torch.allclose(block.train()(x, e), block.eval()(x, e))  # dropout
    small_x = x[:1, :, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: block(x, e[:1]), small_x)


@every_architecture
def test_network_against_its_parts_in_order(architecture: Architecture) -> None:
    network = small(architecture, multipliers=(1, 2, 2), attention=(4,)).double()
    x, c_noise = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    e = network._embed(torch.float64, c_noise, None).detach()
    p = ByHand(network.state_dict(), (1, 1) if architecture == "ddpmpp" else (1, 3, 3, 1))

    def down(name: str, h: Tensor, image: Tensor) -> Tensor:
        h = p.block(f"enc.{name}_down", h, e, "down")
        return h if architecture == "ddpmpp" else (h + p.image(f"enc.{name}_aux_residual", image)) / math.sqrt(2.0)

    first = p.conv("enc.8x8_conv", x)
    second = p.block("enc.8x8_block0", first, e)
    third = down("4x4", second, x)
    fourth = p.block("enc.4x4_block0", third, e)
    fifth = down("2x2", fourth, third)
    sixth = p.block("enc.2x2_block0", fifth, e)
    h = p.block("dec.2x2_in1", p.block("dec.2x2_in0", sixth, e), e)
    for name, skips in (("2x2", (sixth, fifth)), ("4x4", (fourth, third)), ("8x8", (second, first))):
        h = h if name == "2x2" else p.block(f"dec.{name}_up", h, e, "up")
        for i, skip in enumerate(skips):
            h = p.block(f"dec.{name}_block{i}", torch.cat([h, skip], 1), e)
    expected = p.conv("dec.8x8_aux_conv", silu(p.norm("dec.8x8_aux_norm", h)))
    torch.testing.assert_close(network(x, c_noise), expected)


def test_scaled_skips_keep_the_size_of_activations() -> None:
    """Through 40 blocks, whose plain sums would grow by a factor of about 4."""
    torch.manual_seed(0)
    h, e = torch.randn(4, 32, 8, 8), torch.randn(4, 16)
    for _ in range(40):
        block = _Block(32, 32, 16, attend=False, resample=None, taps=(1, 1), dropout=0.0)
        nn.init.xavier_uniform_(block.conv1.weight)
        h = block(h, e).detach()
        assert 0.4 < float(h.std()) < 1.2


def test_noise_embedding() -> None:
    """Sines, then cosines: of a geometric sequence of frequencies from 1 to 1e-4, or of the stored ones times 2 pi."""
    c_noise = torch.tensor([-1.5, 0.25, 999.0])
    n = 8
    positional = c_noise[:, None] * 10_000.0 ** (-torch.arange(n // 2) / (n // 2 - 1))
    plain = small("ddpmpp").map_noise
    torch.testing.assert_close(plain(c_noise), torch.cat([positional.sin(), positional.cos()], 1), atol=1e-4, rtol=0)
    fourier = small("ncsnpp").map_noise
    angles = 2.0 * math.pi * c_noise[:2, None] * fourier.freqs
    torch.testing.assert_close(fourier(c_noise[:2]), torch.cat([angles.sin(), angles.cos()], 1), atol=1e-4, rtol=0)
    with torch.device("cpu"):
        freqs = UNet(8, architecture="ncsnpp", multipliers=(1,), n_blocks=1).map_noise.freqs
    assert 12.0 < float(freqs.std()) < 20.0


def test_classes_are_scaled_one_hot_vectors() -> None:
    network = small(n_classes=3, seed=1)
    assert network.map_label is not None
    c_noise, labels = torch.randn(2), torch.tensor([2, 0])
    e = network.map_noise(c_noise) + math.sqrt(3.0) * network.map_label.weight.T[labels] + network.map_label.bias
    for layer in (network.map_layer0, network.map_layer1):
        e = nn.functional.silu(layer(e))
    torch.testing.assert_close(network._embed(torch.float32, c_noise, labels), e)


@every_architecture
def test_untrained_network_is_zero_and_depends_on_nothing(architecture: Architecture) -> None:
    network = UNet(8, architecture=architecture, width=8, multipliers=(1, 2), n_blocks=1)
    assert not network(torch.randn(2, 3, 8, 8), torch.randn(2)).any()


@every_architecture
def test_every_parameter_has_a_gradient(architecture: Architecture) -> None:
    network = small(architecture, n_classes=2, multipliers=(1, 2, 2))
    output = network(torch.randn(2, 3, 8, 8), torch.randn(2), torch.tensor([0, 1]))
    output.square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


def test_the_image_reaches_every_level_of_ncsnpp() -> None:
    """Without its main path the encoder still sees the image."""
    network = small("ncsnpp", multipliers=(1, 2, 2))
    with torch.no_grad():
        network.enc["8x8_conv"].weight.zero_()  # type: ignore[union-attr]
    seen: list[Tensor] = []
    network.enc["2x2_block0"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for x in torch.randn(2, 1, 3, 8, 8):
        network(x, torch.zeros(1))
    assert not torch.allclose(*seen)


@every_architecture
def test_conditioning_changes_no_output_at_first(architecture: Architecture) -> None:
    network = small(architecture)
    conditional = network.with_classes(4)
    x, c_noise, labels = torch.randn(4, 3, 8, 8), torch.randn(4), torch.arange(4)
    assert torch.equal(conditional(x, c_noise, labels), network(x, c_noise))
    assert (network.n_classes, conditional.n_classes) == (None, 4)
    assert set(conditional.state_dict()) - set(network.state_dict()) == {"map_label.weight", "map_label.bias"}
    conditional(x, c_noise, labels).sum().backward()
    assert conditional.map_label is not None
    assert conditional.map_label.weight.grad is not None
    assert conditional.map_label.weight.grad.any()  # zero, but not stuck there
    assert network.map_layer0.weight.grad is None  # a copy
    assert network.double().with_classes(2)(x.double(), c_noise.double(), labels % 2).dtype == torch.float64


def test_untrained_sampling_follows_the_closed_flow() -> None:
    """F = 0 is optimal for N(0, 1/4), whose flow multiplies noise by 80 / sqrt(1 + 4 * 80^2)."""
    denoiser = Denoiser(UNet(8, width=8, multipliers=(1, 2), n_blocks=1, n_classes=2), EDMPreconditioning()).eval()
    latents = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = heun_sample(denoiser, latents, labels=torch.tensor([0, 1, 1]), n_steps=60)
    torch.testing.assert_close(samples, latents * 80.0 / math.sqrt(1.0 + 4.0 * 80.0**2), rtol=0.02, atol=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "adm"}, "architecture='adm' is unknown; pass one of ddpmpp, ncsnpp"),
        ({"resolution": 6, "multipliers": (1, 1, 1)}, "resolution=6 cannot be halved 2 times"),
        ({"multipliers": ()}, "cannot be halved -1 times"),
        ({"multipliers": (1, 0)}, "multipliers=0"),
        ({"width": 4}, "width=4"),
        ({"width": 36, "multipliers": (1, 2, 4)}, "a layer of 144 channels, which 32 groups cannot share"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"n_blocks": 0}, "n_blocks=0"),
        ({"n_classes": 0}, "n_classes=0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{"resolution": 8, "width": 8, "multipliers": (1,), "n_blocks": 1, **options})


def test_bad_calls() -> None:
    plain, conditional = small(), small(n_classes=2)
    x, c_noise = torch.zeros(2, 3, 8, 8), torch.zeros(2)
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 4, 8\), expected \(n, 3, 8, 8\)"):
        plain(x[:, :, :4], c_noise)
    with pytest.raises(ValueError, match="labels were given to an unconditional UNet"):
        plain(x, c_noise, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels are missing"):
        conditional(x, c_noise)
    for wrong in ([0, 2], [-1, 0], [0]):
        with pytest.raises(ValueError, match="integers from 0 to 1"):
            conditional(x, c_noise, torch.tensor(wrong))
    with pytest.raises(ValueError, match="conditioned on 2 classes already"):
        conditional.with_classes(2)
