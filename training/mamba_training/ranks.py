"""Which of the processes that train together this one is, told from its environment: torch is not imported for it."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process speaks and writes, of those that train together; also true before they are joined."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
