"""The POYO-style network (Azabou et al. 2023, arXiv 2310.16046) for a continuous signal instead of spikes.

1. Every patch of every channel is a token: a projection of its values, weighted and shifted by two embeddings of its
   unit, which here is the electrode of a session. A spike is its unit's embedding and nothing more; but what a value
   means depends on the electrode, and a shift alone cannot turn its sign: without the weights the network learns
   nothing from band powers (docs/baselines.md).
2. Learnt latents, repeated along time, attend to the tokens.
3. Latents attend to each other.
4. One query per frame, the session's embedding, attends to the latents and is read out.

All attention knows time through rotations of queries, keys and, in 2 and 3, values.

Shapes: B batch, T frames, C channels, F features, N tokens, L latents, d width, H heads, K head width.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from realmbench.networks.windows import overlapping
from realmbench.training.multi_session import SessionTable

# Shortest and longest period of the rotations, in seconds. POYO's shortest is 0.1 ms, for the timing of spikes; a
# continuous signal's tokens are a tenth of a second apart.
PERIODS_S = (0.02, 4.0)
FEED_FORWARD = 4


class PoyoOptions(BaseModel):
    """Options of the network.

    Attributes
    ----------
    window_s : what the network sees at once; longer records are decoded in overlapping windows.
    patch_s : length of a token.
    latent_step_s, latents : ``latents`` learnt latents at every step.
    width, depth : of the latents, and layers of self-attention on them.
    head_width, cross_heads, self_heads : of the attention layers.
    dropout : inside the feed-forward layers.
    latent_dropout : on what the layers of self-attention add.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_s: float = Field(1.0, gt=0)
    patch_s: float = Field(0.1, gt=0)
    latent_step_s: float = Field(0.125, gt=0)
    latents: int = Field(8, ge=1)
    width: int = Field(64, ge=1)
    depth: int = Field(2, ge=1)
    head_width: int = Field(32, ge=4, multiple_of=4)
    cross_heads: int = Field(1, ge=1)
    self_heads: int = Field(4, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    latent_dropout: float = Field(0.2, ge=0, lt=1)


class Rotation:
    """Cosines and sines of times, for the first half of a head's width; the rest is not turned."""

    def __init__(self, times: torch.Tensor, head_width: int) -> None:
        pairs, turned = head_width // 2, head_width // 4
        shortest, longest = map(math.log10, PERIODS_S)
        periods = torch.logspace(shortest, longest, turned, dtype=torch.float64)
        speeds = functional.pad(2 * torch.pi / periods, (0, pairs - turned))
        angles = times.double()[:, None] * speeds.to(times.device)  # (T, K / 2)
        self.cosine, self.sine = (function(angles).float() for function in (torch.cos, torch.sin))

    def turn(self, x: torch.Tensor, back: bool = False) -> torch.Tensor:
        """Turn (..., T, K) by the angles of its times, or back."""
        first, second = x.chunk(2, dim=-1)
        cosine, sine = self.cosine.to(x.dtype), (-self.sine if back else self.sine).to(x.dtype)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class RotaryAttention(nn.Module):
    """Attention from ``x`` to a context, or to itself, with rotary time; normed first."""

    def __init__(self, options: PoyoOptions, cross: bool, turn_values: bool) -> None:
        super().__init__()
        self.heads = options.cross_heads if cross else options.self_heads
        self.turn_values = turn_values
        inner = self.heads * options.head_width
        self.norm = nn.LayerNorm(options.width)
        self.context_norm = nn.LayerNorm(options.width) if cross else None
        self.query = nn.Linear(options.width, inner, bias=False)
        self.key_value = nn.Linear(options.width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, options.width)

    def forward(
        self,
        x: torch.Tensor,
        times: Rotation,
        context: torch.Tensor | None = None,
        context_times: Rotation | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map (B, L, d) to (B, L, d).

        Parameters
        ----------
        context : (B, N, d); None attends to ``x`` itself.
        mask : (B, N) bool, False for tokens that are not there.
        """
        x = self.norm(x)
        context = x if context is None or self.context_norm is None else self.context_norm(context)
        context_times = context_times or times
        queries = self._heads(self.query(x))  # (B, H, L, K)
        keys, values = map(self._heads, self.key_value(context).chunk(2, dim=-1))  # (B, H, N, K)
        if self.turn_values:
            values = context_times.turn(values)
        attended = functional.scaled_dot_product_attention(
            times.turn(queries),
            context_times.turn(keys),
            values,
            attn_mask=None if mask is None else mask[:, None, None],
        )
        if self.turn_values:
            attended = times.turn(attended, back=True)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Normed, gated by GELU (Shazeer 2020), four times as wide."""

    def __init__(self, options: PoyoOptions) -> None:
        super().__init__()
        hidden = FEED_FORWARD * options.width
        self.norm = nn.LayerNorm(options.width)
        self.widen = nn.Linear(options.width, 2 * hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.narrow = nn.Linear(hidden, options.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.widen(self.norm(x)).chunk(2, dim=-1)
        return self.narrow(self.dropout(value * functional.gelu(gate)))


class PoyoNetwork(nn.Module):
    """Tokens -> latents -> queries -> read-out.

    Parameters
    ----------
    channels, features, outputs : C, F and D.
    rate : frames per second.
    sessions : rows of the embedding tables; 1 once deployed.
    """

    def __init__(
        self, channels: int, features: int, outputs: int, rate: int, sessions: int, options: PoyoOptions
    ) -> None:
        super().__init__()
        self.options, self.rate = options, rate
        self.patch = max(1, round(options.patch_s * rate))
        self.window = max(self.patch, round(options.window_s * rate))
        self.embed = nn.Linear(self.patch * features, options.width)
        self.units = SessionTable(sessions, channels, options.width)
        self.gains = SessionTable(sessions, channels, options.width, deviation=1.0)
        self.session = SessionTable(sessions, options.width)
        self.latents = nn.Parameter(0.02 * torch.randn(options.latents, options.width))
        self.encode = RotaryAttention(options, cross=True, turn_values=True)
        self.encode_feed = FeedForward(options)
        self.attend = nn.ModuleList(RotaryAttention(options, False, True) for _ in range(options.depth))
        self.attend_feed = nn.ModuleList(FeedForward(options) for _ in range(options.depth))
        self.dropout = nn.Dropout(options.latent_dropout)
        self.decode = RotaryAttention(options, cross=True, turn_values=False)
        self.decode_feed = FeedForward(options)
        self.output = nn.Linear(options.width, outputs)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, session: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, T, C, F) frames of any length and the channel mask (B, C) to (B, T, D)."""
        if x.shape[1] <= self.window:
            return self._window(x, mask, session)
        rows = [None] * len(x) if session is None else list(session[:, None])
        return torch.stack([self._long(record, usable, row) for record, usable, row in zip(x, mask[:, None], rows)])

    def _window(self, x: torch.Tensor, mask: torch.Tensor, session: torch.Tensor | None) -> torch.Tensor:
        batch, frames, channels, _ = x.shape
        patches = -(-frames // self.patch)
        padded = functional.pad(x, (0, 0, 0, 0, 0, patches * self.patch - frames))
        values = padded.unflatten(1, (patches, self.patch)).transpose(2, 3).flatten(3)  # (B, N / C, C, P F)
        gains, units = self.gains(session, batch)[:, None], self.units(session, batch)[:, None]  # (B, 1, C, d)
        tokens = (self.embed(values) * gains + units).flatten(1, 2)  # (B, N, d)
        usable = mask[:, None].expand(-1, patches, -1).flatten(1)  # (B, N)

        # In seconds: an eighth of one is not a whole number of frames, and rounding it would add a step past the end.
        steps = math.ceil(frames / self.rate / self.options.latent_step_s - 1e-6)
        at_tokens = self._rotation(patches, 0.5, self.patch / self.rate, channels, x)
        at_latents = self._rotation(steps, 0.5, self.options.latent_step_s, len(self.latents), x)
        at_frames = self._rotation(frames, 1.0, 1 / self.rate, 1, x)

        latents = self.latents.repeat(steps, 1).expand(batch, -1, -1)  # (B, L, d)
        latents = latents + self.encode(latents, at_latents, tokens, at_tokens, usable)
        latents = latents + self.encode_feed(latents)
        for attend, feed in zip(self.attend, self.attend_feed):
            latents = latents + self.dropout(attend(latents, at_latents))
            latents = latents + self.dropout(feed(latents))
        queries = self.session(session, batch)[:, None].expand(-1, frames, -1)  # (B, T, d)
        queries = queries + self.decode(queries, at_frames, latents, at_latents)
        return self.output(queries + self.decode_feed(queries))  # (B, T, D)

    def _long(self, record: torch.Tensor, usable: torch.Tensor, row: torch.Tensor | None) -> torch.Tensor:
        def windows(part: torch.Tensor) -> torch.Tensor:
            return self._window(part, usable.expand(len(part), -1), None if row is None else row.expand(len(part)))

        return overlapping(windows, record, self.window)

    def _rotation(self, count: int, offset: float, spacing: float, repeats: int, like: torch.Tensor) -> Rotation:
        """Rotate by the times ``(n + offset) * spacing``, each of which holds for ``repeats`` tokens."""
        times = (torch.arange(count, dtype=torch.float64, device=like.device) + offset) * spacing
        return Rotation(times.repeat_interleave(repeats), self.options.head_width)
