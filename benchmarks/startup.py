"""How long the command line takes to answer: `--help`, and `plan` on prepared facts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from record import Figure, median_s, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.road import make_reader_folder

FLAGS = "--base my-model --text my-text --replay my-old-text --budget 20k --peak-lr 1e-2"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = make_reader_folder(Path(name) / "reader")

        # As users have it: compiled modules are kept from one call to the next.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(Path(name) / "compiled")

        def rewarm(*arguments: str) -> None:
            command = [sys.executable, "-m", "rewarm", *arguments]
            subprocess.run(
                command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment
            )

        rewarm("init", "r.toml", *FLAGS.split())
        rewarm("prepare", "r.toml")
        rewarm("plan", "r.toml")
        bare = median_s(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
        figures = [
            Figure("rewarm --help", median_s(lambda: rewarm("--help")), "s", "lower", 0.4),
            Figure(
                "rewarm plan, prepared",
                median_s(lambda: rewarm("plan", "r.toml")),
                "s",
                "lower",
                0.7,
            ),
            Figure("python -c pass", bare, "s", "lower", versus="the limit of both"),
        ]
    write_results("startup", figures)


if __name__ == "__main__":
    main()
