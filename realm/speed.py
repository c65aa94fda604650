"""How fast the scan is: the published network with only its scan exchanged, transformers' block, and long sequences."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from realmbench.bench import Bench, BenchResult, BenchTable, ratio, time_in_turns

from .encoder import PRESETS, EncoderConfig, RealmEncoder, RealmNetwork
from .fused import kernels, scan
from .mamba2 import Mamba2Mixer, Mixer
from .sizes import CHANNELS, RATE, TARGETS
from .ssd import ssd_chunked, ssd_quadratic

# Windows x steps: the published training windows, one long record, and what shows how time grows.
SHORT, LONG = (4, 500), (1, 2000)
GROWTH = ((1, 1000), (1, 4000))
SIDE = 1024  # of the square matrices whose product is taken for the machine's peak


class SsdBench(Bench):
    """The published network with our scan and with the dual form, transformers' block and ours, long records."""

    def measure(self, device: str, rounds: int, on_progress: Callable[[str, float], None]) -> BenchResult:
        torch.manual_seed(0)
        finish = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else lambda: None
        network, half = paper_network().to(device), paper_network("bfloat16").to(device)
        half.load_state_dict(network.state_dict())
        seconds: dict[str, dict[str, list[float]]] = {}
        shares, stages = {}, [SHORT, LONG, *GROWTH]
        peak = _peak(device, rounds, finish)
        for number, shape in enumerate(stages):
            windows, steps = shape
            on_progress(f"{windows} x {steps} steps", number / (len(stages) + 1))
            frames = torch.randn(windows, steps, CHANNELS, 1, device=device)
            passes = {"chunked": partial(_both_ways, network, frames, ssd_chunked)}
            if device.startswith("cuda") and kernels() is not None:
                passes["Triton"] = partial(_both_ways, network, frames, scan)
            if shape in (SHORT, LONG):
                passes["dual form"] = partial(_both_ways, network, frames, _dual_form)
                passes["no scan"] = partial(_both_ways, network, frames, _no_scan)
                passes["bfloat16"] = partial(_both_ways, half, frames, ssd_chunked)
            name = f"{windows} x {steps}"
            seconds[name] = time_in_turns(passes, rounds, finish)
            with FlopCounterMode(display=False) as counter:
                passes["chunked"]()
            shares[name] = counter.get_total_flops() / statistics.median(seconds[name]["chunked"]) / peak
        on_progress("transformers' block", len(stages) / (len(stages) + 1))
        seconds["block"] = time_in_turns(_blocks(device), rounds, finish)
        return BenchResult(
            tables=_tables(seconds, shares), sentences=_sentences(seconds, shares, peak), seconds=seconds
        )


def paper_network(precision: Literal["float32", "bfloat16"] = "float32") -> RealmNetwork:
    """Make the published causal network for 96 channels of amplitude, without dropout; precision is of training."""
    config = EncoderConfig(
        channels=CHANNELS, features=1, rate=RATE, causal=True, variant="paper", expand=2, dropout=0.0, energy_s=None,
        memory_s=None, precision=precision,
        **PRESETS["paper"],
    )  # fmt: skip
    return RealmNetwork(RealmEncoder(config), len(TARGETS))


def _dual_form(
    x: torch.Tensor, rates: torch.Tensor, B: torch.Tensor, C: torch.Tensor, _chunk: int, angles: torch.Tensor | None
) -> tuple[torch.Tensor, None]:
    return ssd_quadratic(x, rates, B, C, angles), None


def _no_scan(
    x: torch.Tensor, rates: torch.Tensor, B: torch.Tensor, C: torch.Tensor, _chunk: int, _angles: torch.Tensor | None
) -> tuple[torch.Tensor, None]:
    """Give the scan's output without its memory: what the rest of the network costs, all gradients included."""
    now = (B * C).sum(-1).repeat_interleave(x.shape[2] // B.shape[2], dim=-1)  # (B, T, H)
    return x * (now * rates)[..., None], None


def _both_ways(network: RealmNetwork, frames: torch.Tensor, chosen: Callable[..., object]) -> None:
    for mixer in (module for module in network.modules() if isinstance(module, Mixer)):
        mixer.scan = chosen  # type: ignore[assignment]
    mask = torch.ones(len(frames), CHANNELS, dtype=torch.bool, device=frames.device)
    network.zero_grad(set_to_none=True)
    network(frames, mask).square().sum().backward()


def _blocks(device: str) -> dict[str, Callable[[], object]]:
    """Return both standard blocks, of the published size and with the same weights, forward and backward."""
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer as Reference

    size = PRESETS["paper"]
    width = size["d_model"]
    config = Mamba2Config(
        hidden_size=width, num_heads=2 * width // size["headdim"], head_dim=size["headdim"],
        state_size=size["d_state"], expand=2, n_groups=1, conv_kernel=4, use_conv_bias=True, use_bias=False,
        num_hidden_layers=1,
    )  # fmt: skip
    theirs = Reference(config, layer_idx=0).to(device)
    if importlib.util.find_spec("causal_conv1d") is None:
        theirs.eval()  # beside mamba-ssm its path for training needs that package too, and fails without it
    ours = Mamba2Mixer(width, size["d_state"], 2, size["headdim"]).to(device)
    ours.load_state_dict(theirs.state_dict())
    u = torch.randn(*SHORT, width, device=device)

    def call(block: nn.Module) -> None:
        block.zero_grad(set_to_none=True)
        block(u).square().sum().backward()

    return {"ours": partial(call, ours), "transformers": partial(call, theirs)}


def _peak(device: str, rounds: int, finish: Callable[[], None]) -> float:
    """Return operations per second of large products of single precision: a multiply-add is two."""
    a, b = (torch.randn(SIDE, SIDE, device=device) for _ in range(2))
    [seconds] = time_in_turns({"product": lambda: a @ b}, max(5, rounds), finish).values()
    return 2 * SIDE**3 / min(seconds)


def _tables(seconds: dict[str, dict[str, list[float]]], shares: dict[str, float]) -> list[BenchTable]:
    rows: list[list[str | float]] = []
    for name, share in shares.items():
        times = seconds[name]
        dual = "dual form" in times
        rows.append(
            [
                name,
                round(1e3 * statistics.median(times["chunked"]), 1),
                round(1e3 * statistics.median(times["dual form"]), 1) if dual else "",
                round(ratio(times, "dual form", "chunked"), 2) if dual else "",
                round(1e3 * statistics.median(times["Triton"]), 1) if "Triton" in times else "",
                round(1e3 * statistics.median(times["no scan"]), 1) if dual else "",
                round(1e3 * statistics.median(times["bfloat16"]), 1) if dual else "",
                f"{share:.0%}",
            ]
        )
    block = seconds["block"]
    ours, theirs = (round(1e3 * statistics.median(block[name]), 1) for name in ("ours", "transformers"))
    return [
        BenchTable(
            title="The published causal network, forward and backward",
            columns=[
                "windows x steps",
                "chunked, ms",
                "dual form, ms",
                "ratio",
                "Triton, ms",
                "no scan, ms",
                "bfloat16, ms",
                "share of peak",
            ],
            rows=rows,
        ),
        BenchTable(
            title="One standard block at equal weights, forward and backward",
            columns=["windows x steps", "ours, ms", "transformers, ms", "ratio"],
            rows=[[f"{SHORT[0]} x {SHORT[1]}", ours, theirs, round(ratio(block, "transformers", "ours"), 2)]],
        ),
    ]


def _sentences(seconds: dict[str, dict[str, list[float]]], shares: dict[str, float], peak: float) -> list[str]:
    short, long, few, many = (f"{windows} x {steps}" for windows, steps in (SHORT, LONG, *GROWTH))
    growth = statistics.median(seconds[many]["chunked"]) / statistics.median(seconds[few]["chunked"])
    gains = {name: ratio(seconds[name], "dual form", "chunked") for name in (short, long)}
    limits = {name: ratio(seconds[name], "dual form", "no scan") for name in (short, long)}
    halves = {name: ratio(seconds[name], "bfloat16", "chunked") for name in (short, long)}
    return [
        "With only the scan exchanged, the network is "
        f"{gains[short]:.1f} times as fast at {short} and {gains[long]:.1f} times at {long}.",
        f"Were the scan free, it would be {limits[short]:.1f} and {limits[long]:.1f} times: the most that is possible.",
        f"Trained with decoder.precision=bfloat16 it takes {halves[short]:.2f} and {halves[long]:.2f} of its own time.",
        f"Four times the steps ({few} to {many}) take {growth:.2f} times as long.",
        f"Our block is {ratio(seconds['block'], 'transformers', 'ours'):.2f} times as fast as transformers'.",
        f"Large matrix products reach {peak / 1e9:,.0f} GFLOP/s here; those of the network keep {shares[short]:.0%} of "
        f"that at {short}.",
    ]
