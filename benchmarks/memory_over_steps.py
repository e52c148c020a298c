"""Memory that a run on a CPU holds, over its steps; documents are short and of all lengths.

A 5.8M Llama trains on functions and classes of the standard library, kept apart, eight windows of
512 tokens a step; bf16 where the processor has units for it. Held are the process's own pages at
the end of a step, less what it had once all was imported. In half precision torch keeps compiled
kernels for each shape that attention meets: lengths that differ at every step would add up.

    python benchmarks/memory_over_steps.py [--steps 120]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from record import Figure, write_results
from train_peers import Loop, prepare, texts

EARLY = 20
MODEL = "6M"


def write_short_text(folder: Path) -> None:
    """Write what stands between two empty lines in modules, as two sources."""
    parts = [part.strip() for text in texts() for part in text.split("\n\n\n") if part.strip()]
    for name, some in (("new", parts[::2]), ("old", parts[1::2])):
        lines = "".join(json.dumps({"text": part}) + "\n" for part in some)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory over the steps taken.")
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    if options.steps <= EARLY:
        parser.error(f"--steps: more than {EARLY}")
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_short_text(folder)
        settings = prepare(folder, MODEL, options.steps, shared=False)
        # One turn of all steps: nothing is timed here.
        settings |= {"num_warmups": 0, "turn": options.steps}
        for name in ("rewarm", "rewarm, compiled", "bare"):
            held = [b / 2**20 for b in Loop(name, settings, folder).told()["held_bytes"]]
            print(f"{name}: MiB {[round(value) for value in held[:: EARLY // 2]]}", flush=True)
            growth = held[-1] / held[EARLY - 1]
            figures += [
                Figure(
                    f"{name}: held after {options.steps} steps",
                    growth,
                    "",
                    "lower",
                    1.1 if name == "rewarm" else None,
                    f"after {EARLY}",
                ),
                Figure(f"{name}: held at the end", held[-1], "MiB", "lower"),
            ]
    write_results("memory_over_steps", figures)


if __name__ == "__main__":
    main()
