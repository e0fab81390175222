"""Modules that moved and are still found where they were."""

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["keep_former_paths"]


class FormerPaths:
    """Finds a module by the name that it had, and gives the very module that it is today, with a DeprecationWarning."""

    def __init__(self) -> None:
        self.moved: dict[str, str] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by Python's import system for each module that isn't loaded yet."""
        return ModuleSpec(name, self) if name in self.moved else None  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module under its present name."""
        present = self.moved[spec.name]
        warnings.warn(f"{spec.name} is now {present}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(present)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run: the import system only put the former name's spec on the module, which goes back."""
        if module.__spec__ is not None and module.__spec__.loader_state is not None:
            module.__spec__ = module.__spec__.loader_state


_FORMER = FormerPaths()


def keep_former_paths(package: str, moved: Mapping[str, str]) -> None:
    """Let modules of `package` be imported by their former names.

    Args:
        package: the package's name.
        moved: from the former path inside the package to the present one, such as `{"genome": "genomes.genome"}`.
    """
    if _FORMER not in sys.meta_path:
        sys.meta_path.append(_FORMER)  # pyright: ignore[reportArgumentType]
    _FORMER.moved.update({f"{package}.{former}": f"{package}.{present}" for former, present in moved.items()})
