"""Writes `constraints.txt` from what is installed: run it after the tests have passed with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_HEADING = (
    "# What is tested: every version of the test environment, pinned. Made by `make constraints`.\n"
)


def main() -> None:
    """Pin all packages but this one; local version labels (`+cpu`) would bind to one machine."""
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--exclude", "rewarm"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    lines = sorted(line.split("+", 1)[0] for line in frozen if "==" in line)
    target = Path(__file__).resolve().parent.parent / "constraints.txt"
    target.write_text(_HEADING + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} versions pinned in {target}")


if __name__ == "__main__":
    main()
