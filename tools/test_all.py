"""All tests, the slow ones too, those against peers, and the fast ones on the lowest versions.

Writes what came of it to `tests/last-test-all.json`, which is committed before an issue closes.
`--skip-lowest` leaves the second environment out. `--failed` runs, of each part, what failed the
last time, and adds what came of it, with its commit, to what is on record. `--part`, with how its
name begins, runs one part again and puts it, with its commit, in the place of what is on record,
or beside it where the whole was cut off before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
LOWEST_FOLDER = REPOSITORY / ".venv-lowest"
RESULT = REPOSITORY / "tests" / "last-test-all.json"
# In the order of folders, as the longest files, which have few tests, are not in the last one.
_SHARED_OUT = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
# What these packages need of each other narrows the bounds of pyproject.toml.
_TEST_TOOLS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist", "psutil", "tensorboard")


def main() -> int:
    """Run everything, or what failed the last time; return 0 where all passed."""
    parser = argparse.ArgumentParser(description="All tests; it takes more than an hour.")
    parser.add_argument("--skip-lowest", action="store_true")
    parser.add_argument("--failed", action="store_true")
    parser.add_argument("--part", metavar="WORD", help="one of: " + "; ".join(_PARTS))
    options = parser.parse_args()
    if options.part is not None:
        names = [name for name in _PARTS if name.startswith(options.part)]
        if len(names) != 1:
            parser.error(f"--part: {len(names)} names of parts begin with {options.part!r}")
        (name,) = names
        value = json.loads(RESULT.read_text(encoding="utf-8"))
        again = {"commit": _commit(), **_run_part(name)}
        value["results"] = with_part(value["results"], again)
    elif options.failed:
        value = json.loads(RESULT.read_text(encoding="utf-8"))
        for result in value["results"]:
            if not _passed(result):
                found = _run_part(result["name"], "--last-failed", "--last-failed-no-failures=none")
                result["failed_again"] = {"commit": _commit(), **found}
    else:
        names = [name for name in _PARTS if name != _LOWEST or not options.skip_lowest]
        value = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "clean": _git("status", "--porcelain", "--untracked-files=no") == "",
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "results": [],
        }
        for name in names:
            value["results"].append(_run_part(name))
            _keep(value)  # what was run stays, should the rest not come to its end
    _keep(value)
    return 0 if all(_passed(result) for result in value["results"]) else 1


def with_part(results: list[dict[str, Any]], again: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results with one part's in its place, in the order of the parts."""
    known = {result["name"]: result for result in (*results, again)}
    return [known[name] for name in _PARTS if name in known]


def _keep(value: dict[str, Any]) -> None:
    RESULT.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _passed(result: dict[str, Any]) -> bool:
    return bool(result.get("failed_again", result)["exit_code"] == 0)


_ALL, _BROKEN = "all tests but the broken lines", "broken lines"
_PEERS, _LOWEST = "tests against peers", "fast tests on the lowest versions"
_STREAMS = "streams against Avalanche"
_PARTS = (_ALL, _PEERS, _STREAMS, _LOWEST, _BROKEN)


def _run_part(name: str, *more: str) -> dict[str, object]:
    if name == _ALL:
        thorough = ("-m", "", "--hypothesis-profile", "thorough", "--ignore", "tests/mutation")
        return _pytest(name, sys.executable, *thorough, *more)
    if name == _BROKEN:
        # Hundreds of tests in one file that share nothing: each goes to whoever is free.
        alone = ("-m", "", "--dist", "load", "tests/mutation")
        return _pytest(name, sys.executable, *alone, *more)
    if name == _PEERS:
        # Of the matrix, too, what needs them.
        with_peers = ("-m", "", "tests/peers", "tests/matrix", "-k", "peers or 8-bit")
        return _pytest(name, sys.executable, *with_peers, *more, beside=_peers(".peers"))
    if name == _STREAMS:
        beside = _peers(".peers-stream")
        return _pytest(name, sys.executable, "tests/peers/test_avalanche.py", *more, beside=beside)
    # Old packages meet newer ones below them: what those deprecate is not ours to mend.
    quiet = ("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning")
    return _pytest(name, str(_lowest_python()), *quiet, *more)


def _pytest(
    name: str, python: str, *arguments: str, beside: Path | None = None
) -> dict[str, object]:
    cache = f"cache_dir=.pytest_cache/{name.replace(' ', '-')}"  # what failed is known by part
    print(f"== {name}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        [python, "-m", "pytest", *_SHARED_OUT, "-o", cache, *arguments],
        cwd=REPOSITORY,
        env=os.environ | ({} if beside is None else {"PYTHONPATH": str(beside)}),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        sys.stdout.write(line)
        last = line.strip() or last
    return {
        "name": name,
        "exit_code": process.wait(),
        "summary": re.sub(r"\x1b\[[0-9;]*m|=+", "", last).strip(),
        "seconds": round(time.monotonic() - started),
    }


def _peers(folder: str) -> Path:
    """Return a folder with the libraries of a group of peers, and nothing that they need."""
    subprocess.run(["make", f"{folder}/.ready"], cwd=REPOSITORY, check=True)
    return REPOSITORY / folder


def _lowest_python() -> Path:
    """Return the interpreter of an environment with the lowest versions that are promised."""
    python = LOWEST_FOLDER / "bin" / "python"
    if not python.exists():
        venv.create(LOWEST_FOLDER, with_pip=True)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["classifier"]
    pinned = [requirement.replace(">=", "==") + ".*" for requirement in wanted]
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *pinned, *_TEST_TOOLS], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", str(REPOSITORY)], check=True)
    return python


def _commit() -> str:
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str:
    finished = subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return finished.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
