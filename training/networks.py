"""Networks of diffusers as the network F of a :class:`Denoiser`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from egtmetrics._validation import check_positive_int

from ._checks import check_classes


class DiffusersNetwork(nn.Module):
    r"""A ``UNet2DModel``, ``UNet2DConditionModel`` or ``DiTTransformer2DModel`` of diffusers as the network F.

    Called as ``network(x, c_noise, labels=None)`` with ``x`` ``(n, channels, height, width)``, ``c_noise`` ``(n,)``
    and, for conditional models, ``labels`` ``(n,)`` integers from 0; returns the shape of ``x``. The class goes to the
    model's own argument, ``class_labels``. Of a model that also predicts variances (twice the channels), only the
    prediction is used.

    Parameters
    ----------
    model
        The model. It is conditional if it was built with ``num_class_embeds`` (a U-Net) or is a DiT, whose
        ``num_embeds_ada_norm`` is its number of classes.
    encoder_hidden_states
        What a ``UNet2DConditionModel`` is conditioned on beside the class, the same for every sample, ``(length, d)``:
        for example the encoding of an empty prompt.

    Raises
    ------
    TypeError
        A model without a ``config``, as those of diffusers have.
    ValueError
        ``encoder_hidden_states`` missing, or given to another model; a class embedding that takes no numbers of
        classes. From the call: labels out of range, missing in a conditional model or given to another; ``c_noise``
        above 88, as :class:`VPPreconditioning` has it, for a U-Net with Fourier features.

    Notes
    -----
    The model gets ``c_noise`` of the preconditioning as its ``timestep``. A model that takes the logarithm of that (a
    ``UNet2DModel`` with Fourier features) gets its exponential. To go on from a model that was trained to predict the
    noise at 1000 steps with betas from 1e-4 to 0.02, equally spaced, use :class:`VPPreconditioning`: its ``c_noise`` is
    the position in that chain.

    diffusers is not imported here: the model brings what is needed.

    Examples
    --------
    >>> from egtmetrics.training import Denoiser, DiffusersNetwork, EDMPreconditioning
    >>> from diffusers import UNet2DModel  # doctest: +SKIP
    >>> unet = UNet2DModel(sample_size=32, num_class_embeds=2, block_out_channels=(32, 64),
    ...     down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    ...     up_block_types=("AttnUpBlock2D", "UpBlock2D"))  # doctest: +SKIP
    >>> denoiser = Denoiser(DiffusersNetwork(unet), EDMPreconditioning())  # doctest: +SKIP
    """

    encoder_hidden_states: Tensor | None

    def __init__(self, model: nn.Module, *, encoder_hidden_states: Tensor | None = None) -> None:
        super().__init__()
        config: Any = getattr(model, "config", None)
        if not hasattr(config, "get"):
            raise TypeError(
                f"model is {type(model).__name__} without the config of a model of diffusers; give other networks to "
                "Denoiser directly, which calls them as network(x, c_noise, labels)"
            )
        kind = config.get("class_embed_type")
        if kind is not None:
            raise ValueError(
                f"model has class_embed_type={kind!r}, which takes no numbers of classes; build it with "
                "num_class_embeds alone"
            )
        needs_states = "cross_attention_dim" in config
        if needs_states != (encoder_hidden_states is not None):
            found, remedy = "given", "takes none; leave it out"
            if needs_states:
                found, remedy = "missing", "needs it; pass (length, d), such as the encoding of an empty prompt"
            raise ValueError(f"encoder_hidden_states is {found}, but {type(model).__name__} {remedy}")
        if encoder_hidden_states is not None and encoder_hidden_states.ndim != 2:
            raise ValueError(
                f"encoder_hidden_states has shape {tuple(encoder_hidden_states.shape)}, expected (length, d), without "
                "a batch"
            )
        self.model = model
        self.register_buffer("encoder_hidden_states", encoder_hidden_states)
        self._n_classes: int | None = config.get("num_class_embeds") or config.get("num_embeds_ada_norm")
        self._takes_logarithm = bool(getattr(getattr(model, "time_proj", None), "log", False))

    @property
    def n_classes(self) -> int | None:
        """Number of classes to condition on; None if unconditional."""
        return self._n_classes

    def with_classes(self, n_classes: int) -> DiffusersNetwork:
        """Return a copy of a U-Net that takes labels and ignores them until it is trained further.

        As :meth:`ResidualMLP.with_classes`: conditional training starts from unconditional weights. The class embedding
        is zero. The model is built anew from its ``config``, with ``num_class_embeds``, so it can be saved as others
        are. Its first weights are drawn and then replaced, which advances the global generator.

        Raises
        ------
        ValueError
            If the model is conditional already, as a DiT always is.
        """
        if self._n_classes is not None:
            raise ValueError(f"the model is conditioned on {self._n_classes} classes already; use an unconditional one")
        n_classes = check_positive_int(n_classes, "n_classes")
        unconditional: Any = self.model
        weight = next(unconditional.parameters())
        model = type(unconditional).from_config(unconditional.config, num_class_embeds=n_classes)
        nn.init.zeros_(model.class_embedding.weight)
        model.load_state_dict({**model.state_dict(), **unconditional.state_dict()})
        states = self.encoder_hidden_states
        conditional = DiffusersNetwork(model, encoder_hidden_states=None if states is None else states.clone())
        return conditional.to(device=weight.device, dtype=weight.dtype).train(self.training)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        options: dict[str, Tensor] = {}
        if self.encoder_hidden_states is not None:
            options["encoder_hidden_states"] = self.encoder_hidden_states.expand(len(x), -1, -1)
        if self._n_classes is not None:
            options["class_labels"] = check_classes(labels, self._n_classes)
        elif labels is not None:
            raise ValueError(
                f"labels were given to an unconditional {type(self.model).__name__}; build it with num_class_embeds"
            )
        timestep = c_noise
        if self._takes_logarithm:
            timestep = c_noise.exp()
            if timestep.isinf().any():
                raise ValueError(
                    f"{type(self.model).__name__} takes the logarithm of its timestep, so c_noise can be 88 at most in "
                    f"float32, and {float(c_noise.max()):.0f} came; use EDMPreconditioning or VEPreconditioning, or "
                    'build the model with time_embedding_type="positional"'
                )
        output: Tensor = self.model(x, timestep, **options).sample
        return output[:, : x.shape[1]]
