"""`python -m mamba_kernels.compat SCRIPT [ARGUMENT]...`: run a program that imports mamba_ssm or causal_conv1d on ours.

`-m MODULE` in place of a script runs a module, as Python's own option does. Without either, says what would be used.
"""

import runpy
import sys
from pathlib import Path

from mamba_kernels.compat.installing import install


def main(arguments: list[str]) -> int:
    """Install, say on standard error what was, then run the program with its arguments; its exit code is ours."""
    print(*install(), sep="\n", file=sys.stderr if arguments else sys.stdout)
    if not arguments:
        return 0
    if arguments[0] == "-m":
        if len(arguments) == 1:
            print("-m needs the name of a module", file=sys.stderr)
            return 2
        sys.argv = arguments[1:]
        sys.path.insert(0, "")
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    script = Path(arguments[0])
    if not script.is_file():
        print(f"{script}: no such script; -m MODULE runs a module", file=sys.stderr)
        return 2
    sys.argv = arguments
    sys.path.insert(0, str(script.resolve().parent))
    runpy.run_path(str(script), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
