"""Runs every benchmark, each in a process of its own, so that none inherits another's memory and threads.

Then writes the documentation's tables from what was measured.
"""

import pkgutil
import subprocess
import sys
from pathlib import Path

from benchmarks import documents

HELPERS = ("aot_kernels", "common", "documents", "memory", "yardstick", "__main__")


def main() -> int:
    """Return the number of benchmarks that failed."""
    names = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in HELPERS)
    failed = 0
    for name in names:
        print(f"benchmarks.{name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0
    documents.main()
    return failed


if __name__ == "__main__":
    sys.exit(main())
