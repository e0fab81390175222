"""The names that a layer pattern may use, known before any mixer is built."""

_NAMES: set[str] = set()


def add_mixer_name(name: str) -> None:
    """Let layer patterns use `name`; `register_mixer` calls this."""
    _NAMES.add(name)


def mixer_names() -> tuple[str, ...]:
    """The names that a layer pattern may use, sorted."""
    return tuple(sorted(_NAMES))
