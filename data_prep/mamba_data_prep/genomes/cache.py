"""Where indexes are kept: the user's cache folder, SEQMAMBA_CACHE, or a temporary folder where those are read-only.

Everything in it can be deleted at any time; it is made again when it is needed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path

VARIABLE = "SEQMAMBA_CACHE"


def cache_root(folder: str | Path | None = None) -> Path:
    """Gives the folder named, or `SEQMAMBA_CACHE`, or the platform's cache folder; it may not exist yet."""
    if folder is not None:
        return Path(folder).expanduser()
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "seqmamba"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "seqmamba"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqmamba"


def writable(folder: Path) -> bool:
    """Tells whether files can be made in `folder`, which is created if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def temporary_root() -> Path:
    """Gives a cache folder of this user's own below the system's temporary folder, for read-only homes."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"seqmamba-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = not folder.is_symlink() and folder.stat().st_uid == user and folder.stat().st_mode & 0o022 == 0
    except OSError:
        mine = False
    return folder if mine else Path(tempfile.mkdtemp(prefix="seqmamba-"))  # someone else made that name first
