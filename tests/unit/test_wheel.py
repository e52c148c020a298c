"""The wheel installs into an empty environment and runs, templates and all."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_installs_and_runs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(REPOSITORY)], check=True)
    (wheel,) = tmp_path.glob("rewarm-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "rewarm/py.typed" in names
    assert any(name.endswith("templates/run.html") for name in names)
    assert any(name.startswith("rewarm/export") and name.endswith(".md.j2") for name in names)
    assert not any(name.startswith("tests/") for name in names)

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    constraints = REPOSITORY / "constraints.txt"
    subprocess.run([*pip, "-c", str(constraints), str(wheel)], check=True)
    for code in (
        "import rewarm.cli, sys; sys.exit(rewarm.cli.main(['--version']))",
        "from rewarm.reporting.page import _environment; _environment().get_template('run.html')",
    ):
        subprocess.run([str(python), "-c", code], cwd=tmp_path, check=True)
    shown = subprocess.run(
        [str(environment / "bin" / "rewarm"), "--help"], check=True, capture_output=True, text=True
    )
    assert "demo" in shown.stdout
