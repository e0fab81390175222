"""The names of methods: told before anything is read, so nothing heavy is imported for them."""

from __future__ import annotations

from mamba_data_prep.errors import UserError
from tsmamba.config import MODELS

LOCAL = ("naive", "seasonal_naive", "drift", "ets", "theta", "arima", "croston")
"""Methods that work on one series at a time and look at nothing but its history."""

PRETRAINED = ("zero",)
"""Methods that have learnt before they see the series: there is nothing to fit."""

LOG_ENDING = "_log"
LEARNED = ("ridge", "mamba", *(name for name in MODELS if name not in ("auto", "ridge")))
"""Methods that learn one model from all series; with `_log` behind the name, from their logarithms."""

X_ENDING = "_x"
"""Behind a method's name: it forecasts what the linear effects of covariates known ahead leave (see `Effects`)."""

_EVERY = (*LOCAL, *PRETRAINED, *LEARNED)
METHODS = frozenset({*_EVERY, *(name + LOG_ENDING for name in LEARNED), *(name + X_ENDING for name in _EVERY)})
"""Every name that `fit_method` knows."""


def plain_name(name: str) -> str:
    """A method's name without what is said behind it of logarithms or covariates."""
    return name.removesuffix(LOG_ENDING).removesuffix(X_ENDING)


def reads_ahead(name: str) -> bool:
    """Whether a method takes off the linear effects of covariates known ahead."""
    return name.endswith(X_ENDING)


def no_such_method(name: str) -> UserError:
    """The error of a name that is not in `METHODS`."""
    return UserError("there is no such method", found=name, accepted=", ".join(("auto", *_EVERY)))


def check_method(name: str) -> None:
    """Refuse a method's name before anything is read.

    Raises:
        UserError: there is no such method.
    """
    if name != "auto" and name not in METHODS:
        raise no_such_method(name)
