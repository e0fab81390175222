"""How long fine-tuning takes here, and how much of a pre-trained network learns in that time.

A pre-trained network that is given too few steps ends below a small one trained from nothing. So one step is measured:
if the time is enough, all layers learn; if not, the last quarter of them; else the network stays as it is, and a head
is fitted on its features, which costs one reading of the data.
"""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple

import torch
from torch.nn import functional

from genomamba import tokens
from genomamba.classifier.config import FinetuneConfig
from genomamba.classifier.examples import LabelledData
from genomamba.classifier.network import SequenceClassifier
from mamba_data_prep.errors import UserError
from mamba_training.devices import device_count, scoring_device
from mamba_training.settings import parse_duration

DEFAULT_TIME: Final = "15m"
"""The longest training where neither a time nor a number of steps is given."""
_ENOUGH_STEPS: Final = 500
_ENOUGH_EPOCHS: Final = 2
_MEASURED_BASES: Final = 1 << 14


class Pace(NamedTuple):
    """What is decided, and what is said of it.

    Attributes:
        settings: with `train.layers` as a number or `all`, or `train.freeze`.
        steps: optimizer steps that the run has time for.
        text: how long the run takes, for people.
    """

    settings: FinetuneConfig
    steps: int
    text: str


def time_limit(settings: FinetuneConfig) -> float | None:
    """Seconds that a run may take; None where steps alone end it."""
    train = settings.train
    if train.max_time is None and train.max_steps is not None:
        return None
    return parse_duration(DEFAULT_TIME if train.max_time is None else train.max_time)


def paced(settings: FinetuneConfig, data: LabelledData, network: SequenceClassifier, size: int, started: bool) -> Pace:
    """Measures a step and decides how much of the network learns, unless the settings say so.

    Args:
        settings: shaped by the pre-trained model.
        data: the splits.
        network: of this shape; its weights do not matter.
        size: sequences a step.
        started: whether it has a pre-trained model's weights.

    Raises:
        UserError: more layers are to learn than there are, or there is no model whose layers could stay.
    """
    train, n_layers = settings.train, settings.model.n_layers
    if isinstance(train.layers, int) and not started:
        raise UserError(
            "without a pre-trained model all layers learn", found=f"train.layers={train.layers}", fix="add --from MODEL"
        )
    if isinstance(train.layers, int) and train.layers > n_layers:
        raise UserError("the model has fewer layers", found=f"train.layers={train.layers}", accepted=f"1 to {n_layers}")
    epoch = math.ceil(len(data.train) / size)
    most = train.max_steps or (epoch * train.epochs if train.epochs is not None else None)
    limit = time_limit(settings)
    if train.freeze:
        return Pace(settings, 0, "the model stays as it is; a head is fitted on its features")
    alone = device_count(train.devices, train.accelerator) == 1  # each process would measure for itself
    asked = train.layers if train.layers != "auto" else None if alone else "all"
    choices = [asked] if asked is not None else ["all", max(1, n_layers // 4)] if started else ["all"]
    enough = min(_ENOUGH_EPOCHS * epoch, _ENOUGH_STEPS, most or _ENOUGH_STEPS)
    seconds, steps = math.inf, 0
    for layers in choices:
        seconds = step_seconds(network, settings, size, data.window, layers)
        steps = min(most or 2**62, 2**62 if limit is None else int(limit / seconds))
        if asked is not None or not started or steps >= enough:
            chosen = settings.model_copy(update={"train": train.model_copy(update={"layers": layers})})
            learn = "all layers learn" if layers == "all" else f"the last {layers} of {n_layers} layers learn"
            return Pace(
                chosen, steps, f"{_told(seconds, size, steps)}; {learn}" if started else _told(seconds, size, steps)
            )
    kept = settings.model_copy(update={"train": train.model_copy(update={"freeze": True})})
    text = (
        f"a step of {size} sequences takes about {seconds:.1f} s even where few layers learn, and {_minutes(limit)} "
        f"are too short for {enough:,} steps: the model stays as it is, and a head is fitted on its features "
        "(--set train.layers=all and a longer --max-time train all of it)"
    )
    return Pace(kept, 0, text)


def step_seconds(
    network: SequenceClassifier, settings: FinetuneConfig, size: int, window: int, layers: int | str = "all"
) -> float:
    """Seconds of a training step of `size` sequences of `window` bases, from one of some thousand bases."""
    device = scoring_device(settings.train.accelerator)
    length = min(window, _MEASURED_BASES)
    rows = max(1, min(size, _MEASURED_BASES // length))
    ids = torch.randint(tokens.FIRST_BASE, tokens.FIRST_BASE + 4, (rows, length), dtype=torch.uint8, device=device)
    lengths = torch.full((rows,), length, device=device)
    network.to(device).train()
    learn_last(network, layers)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        loss = functional.cross_entropy(network(ids, lengths), torch.zeros(rows, dtype=torch.long, device=device))
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - began)
        network.zero_grad(set_to_none=True)
    learn_last(network, "all")
    return min(took[1:]) * (size * window) / (rows * length)


def learn_last(network: SequenceClassifier, layers: int | str) -> None:
    """Lets only the last layers, their norm and the head learn; with `all`, everything."""
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    if layers == "all":
        return
    blocks = list(network.backbone.blocks)
    still = [*blocks[: len(blocks) - int(layers)]]
    still += [part for name in ("embedding", "stem", "table") if (part := getattr(network, name, None)) is not None]
    for part in still:
        for parameter in part.parameters():
            parameter.requires_grad_(False)


def _told(seconds: float, size: int, steps: int) -> str:
    """`a step of 64 sequences takes about 0.41 s: at most 1,540 steps, about 11 minutes`."""
    return (
        f"a step of {size} sequences takes about {seconds:.2g} s: at most {steps:,} steps, {_minutes(steps * seconds)}"
    )


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return "the steps"
    if seconds < 90:
        return f"about {max(1, round(seconds))} seconds"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
