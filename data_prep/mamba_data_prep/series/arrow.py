"""Arrow's functions on columns, under a type that a checker accepts: pyarrow makes them at run time."""

from __future__ import annotations

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
