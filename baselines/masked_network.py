"""The masked-autoencoding Transformer over (time, channel patch) tokens, in the manner of Erturk et al. (2025).

Electrodes are grouped into patches of neighbours in the order of the channels; every patch and frame is one token. A
bidirectional Transformer with rotary time reads the tokens; the tokens of one frame are averaged to its representation.
What a patch means is told by an embedding of the session's own, the only part of the encoder that knows the session.

Shapes: B batch, T time, C channels, F features, S patches, W values of a patch, d width.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.nn import functional

from realmbench.networks.attention import TransformerLayer
from realmbench.networks.windows import overlapping
from realmbench.training.multi_session import SessionTable


class MaskedOptions(BaseModel):
    """Size of the network.

    Attributes
    ----------
    patch : channels of a token.
    width, heads, layers : of the encoder; its perceptrons are ``expand`` times as wide.
    predictor_layers : of the predictor, which exists during pretraining only.
    window_s : what the encoder sees at once; longer records are decoded in overlapping windows.
    dropout : on what every layer adds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patch: int = Field(32, ge=1)
    width: int = Field(64, ge=4)
    heads: int = Field(4, ge=1)
    layers: int = Field(2, ge=1)
    expand: float = Field(4.0, gt=0)
    predictor_layers: int = Field(1, ge=1)
    window_s: float = Field(5.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_fit(self) -> MaskedOptions:
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be a multiple of twice heads={self.heads}")
        return self


class PatchEncoder(nn.Module):
    """Frames to one representation per frame.

    Parameters
    ----------
    channels, features : C and F.
    rate : frames per second, which turns the window into frames.
    sessions : rows of the table of patch embeddings; 1 once deployed.
    """

    def __init__(self, channels: int, features: int, rate: int, sessions: int, options: MaskedOptions) -> None:
        super().__init__()
        self.patch = min(options.patch, channels)
        self.patches = -(-channels // self.patch)
        self.window = max(2, round(options.window_s * rate))
        self.embed = nn.Linear(self.patch * features, options.width)
        self.place = SessionTable(sessions, self.patches, options.width)
        self.layers = _layers(options.layers, options.width, options)
        self.norm = nn.RMSNorm(options.width)

    def forward(self, x: torch.Tensor, session: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, T, C, F) frames of any length to (B, T, d)."""
        if x.shape[1] <= self.window:
            return self._window(x, session)
        rows = [None] * len(x) if session is None else list(session[:, None])
        return torch.stack([self._long(record, row) for record, row in zip(x, rows)])

    def patched(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) to (B, T, S, W): the values of every patch, the last one filled up with zeros."""
        missing = self.patches * self.patch - x.shape[2]
        return functional.pad(x, (0, 0, 0, missing)).unflatten(2, (self.patches, self.patch)).flatten(3)

    def tokens(self, x: torch.Tensor, session: torch.Tensor | None) -> torch.Tensor:
        """Map (B, T, C, F) to tokens (B, T, S, d)."""
        return self.embed(self.patched(x)) + self.place(session, len(x))[:, None]

    def encode(self, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, N, d) at frames (B, N) to (B, N, d)."""
        for layer in self.layers:
            tokens = layer(tokens, places)
        return self.norm(tokens)

    def _window(self, x: torch.Tensor, session: torch.Tensor | None) -> torch.Tensor:
        tokens = self.tokens(x, session)  # (B, T, S, d)
        places = torch.arange(x.shape[1], device=x.device).repeat_interleave(self.patches)[None]  # (1, T S)
        code = self.encode(tokens.flatten(1, 2), places)  # (B, T S, d)
        return code.unflatten(1, tokens.shape[1:3]).mean(2)  # (B, T, d)

    def _long(self, record: torch.Tensor, row: torch.Tensor | None) -> torch.Tensor:
        def windows(part: torch.Tensor) -> torch.Tensor:
            return self._window(part, None if row is None else row.expand(len(part)))

        return overlapping(windows, record, self.window)


class MaskedAutoencoder(nn.Module):
    """Encoder of the visible tokens, and a narrower predictor of the values of the masked ones (He et al. 2022)."""

    def __init__(self, encoder: PatchEncoder, options: MaskedOptions) -> None:
        super().__init__()
        self.encoder = encoder
        # Three quarters of the width (192 of 256 in the paper), cut to what the heads can share.
        width = max(1, round(0.75 * options.width / (2 * options.heads))) * 2 * options.heads
        self.project = nn.Linear(options.width, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.layers = _layers(options.predictor_layers, width, options)
        self.norm = nn.RMSNorm(width)
        self.output = nn.Linear(width, encoder.embed.in_features)

    def forward(self, x: torch.Tensor, session: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor:
        """Predict the values (B, T, S, W) of all tokens from those not in ``hidden``.

        Parameters
        ----------
        x : (B, T, C, F) frames.
        hidden : (B, T, S) bool, the same number of them in every row of the batch.
        """
        encoder = self.encoder
        tokens = encoder.tokens(x, session).flatten(1, 2)  # (B, N, d) with N = T S
        batch, count, _ = tokens.shape
        frames = torch.arange(x.shape[1], device=x.device).repeat_interleave(encoder.patches).expand(batch, -1)
        order = hidden.flatten(1).to(torch.uint8).argsort(dim=1, stable=True)  # visible ones first
        visible = order[:, : count - int(hidden[0].sum())]  # (B, V)
        kept = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))  # (B, V, d)
        code = self.project(encoder.encode(kept, frames.gather(1, visible)))  # (B, V, d')
        # Every masked token is asked for by its time and by its patch's own embedding.
        asked = self.mask_token + self.project(encoder.place(session, batch))  # (B, S, d')
        filled = asked.repeat(1, x.shape[1], 1)  # (B, N, d')
        filled = filled.scatter(1, visible[..., None].expand(-1, -1, filled.shape[2]), code)
        for layer in self.layers:
            filled = layer(filled, frames)
        return self.output(self.norm(filled)).unflatten(1, hidden.shape[1:])  # (B, T, S, W)


class MaskedNetwork(nn.Module):
    """Encoder and linear read-out: what is deployed."""

    def __init__(self, encoder: PatchEncoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.norm.weight.numel(), outputs)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, T, C, F) to (B, T, D); masked channels arrive as zeros and need no further treatment."""
        return self.head(self.encoder(x))


def _layers(count: int, width: int, options: MaskedOptions) -> nn.ModuleList:
    hidden = round(options.expand * width)
    return nn.ModuleList(TransformerLayer(width, options.heads, hidden, None, options.dropout) for _ in range(count))
