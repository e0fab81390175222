"""The model that a training goes on with: its weights, not its counts, which are those of the new training bases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from genomamba.config import PretrainConfig
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from mamba_configs.settings import validated
from mamba_data_prep.errors import UserError
from mamba_training.bundle import Bundle, load_bundle

_COUNTED: Final = ("table.codes", "table.codebook", "table.long_keys", "table.long_codes", "table.long_codebook")


@dataclass(frozen=True)
class Beginning:
    """What a run begins with.

    Attributes:
        bundle: the model to go on with; None where the network starts from nothing.
    """

    bundle: Bundle | None = None

    @classmethod
    def of(cls, settings: PretrainConfig) -> Beginning:
        """Reads the model that the settings name, if they name one.

        Raises:
            UserError: it is damaged, or no language model.
        """
        if settings.from_model is None:
            return cls()
        bundle = load_bundle(settings.from_model)
        if bundle.config.get("kind") != BUNDLE_KIND:
            raise UserError(
                "pre-training goes on with a language model", path=settings.from_model,
                found=bundle.config.get("kind"), accepted=BUNDLE_KIND,
            )  # fmt: skip
        return cls(bundle)

    @property
    def record(self) -> dict[str, Any] | None:
        """What is to be known of the model that was gone on with; plain values for JSON."""
        if self.bundle is None:
            return None
        made = self.bundle.config.get("training", {})
        earlier = made.get("from") or {}
        before = earlier.get("tokens", 0)
        return {
            "name": self.bundle.path.parent.name if self.bundle.path.name == "model" else self.bundle.path.name,
            "sha256": self.bundle.sha256,
            "tokens": before + made.get("result", {}).get("tokens", 0),
            "commands": [*earlier.get("commands", []), made.get("command", "")],
            "read": made.get("read"),
        }

    def shaped(self, settings: PretrainConfig) -> PretrainConfig:
        """The settings with the network, its objective, and whether it has counts, as the model has them.

        Raises:
            UserError: the model has counts and the settings none.
        """
        if self.bundle is None:
            return settings
        config = self.bundle.config
        if config.get("table") is None:
            counts = None
        elif settings.counts is None:
            raise UserError(
                "the model has counts in it and cannot go on without them", path=self.bundle.path,
                found="counts=null", fix="leave counts=null out",
            )  # fmt: skip
        else:
            counts = settings.counts.model_dump()
        decided = {"model": config["model"], "objective": config.get("objective") or {}, "counts": counts}
        return validated(PretrainConfig, {**settings.model_dump(), **decided}, path=self.bundle.path)

    @property
    def content(self) -> dict[str, str]:
        """The hash of the weights, by which a resumed run knows them again."""
        return {} if self.bundle is None else {"from": self.bundle.sha256}

    def give(self, model: GenomeLM) -> None:
        """Gives a network the model's weights; the table keeps what has been counted for it.

        Raises:
            UserError: the weights do not fit.
        """
        if self.bundle is None:
            return
        own = model.state_dict()
        taken = {name: value for name, value in self.bundle.state.items() if name not in _COUNTED}
        if odd := sorted(taken.keys() ^ (own.keys() - set(_COUNTED))):
            raise UserError("the model's weights do not fit this network", path=self.bundle.path, found=odd[0])
        if odd := [name for name, value in taken.items() if own[name].shape != value.shape]:
            raise UserError("the model's weights do not fit this network", path=self.bundle.path, found=odd[0])
        model.load_state_dict({**own, **taken})
