"""Runs the demo and writes what it shows: `docs/demo.md`, the README's picture and `results/demo.json`.

python -m benchmarks.demo
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import save_results

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "demo.md"
PICTURE = ROOT / "docs" / "images" / "demo.png"
PROGRESS = re.compile(r"step \d+/\d+ ")
HEAD = """# The demo

`make demo` pre-trains a small language model on 1.2 Mb of human chromosome 20, fine-tunes it to tell human DNA from
that of four bacteria, and classifies 80 fragments that neither step has read. Both trainings hold the same sections of
the human DNA out. All of it ships with the repository.
This page is the output of one run, written by `python -m benchmarks.demo`; progress lines between the first and the
last are left out.

![What the demo draws](images/demo.png)

Left, bits per base on held-out human DNA while the model reads; right, the probabilities that each fragment was given.

```text
"""


def main() -> None:
    """Run the demo in a temporary folder and write the three files."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        command = [sys.executable, "-m", "genomamba.demo", "--out", str(out)]
        done = subprocess.run(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        )
        text = done.stdout.replace(str(out), "runs/demo")
        PICTURE.parent.mkdir(exist_ok=True)
        shutil.copyfile(out / "predictions.png", PICTURE)
        language_model = json.loads((out / "pretrain" / "model" / "config.json").read_text())
        report = json.loads((out / "species" / "report.json").read_text().replace(f"{ROOT}/", ""))
    PAGE.write_text(HEAD + without_progress(text).strip() + "\n```\n")
    save_results(
        "demo",
        {"pretrain": language_model["training"]["result"], "species": report},
        data=sorted((ROOT / "genomamba" / "demo" / "data").glob("*.fa.gz")),
    )


def without_progress(text: str) -> str:
    """The output with only the first and the last progress line of each command."""
    lines, kept = text.splitlines(), []
    for index, line in enumerate(lines):
        middle = all(0 <= index + step < len(lines) and PROGRESS.match(lines[index + step]) for step in (-1, 0, 1))
        if not middle:
            kept.append(line.rstrip())
    return "\n".join(kept)


if __name__ == "__main__":
    main()
