"""What a process may take of the machine's memory, by files of the kernel and of containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewarm.planning import machine
from rewarm.recipe.steps import TrainingRecipe
from rewarm.training import placement as room
from rewarm.training.placement import choose_placement
from tests.support.fake_facts import make_model_facts
from tests.support.tiny_plans import make_plan

MIB = 2**20
UNLIMITED = 9_223_372_036_854_771_712  # version 1's word for it


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 1,000 MiB, 800 of them free, without a cgroup so far."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {1000 * 1024} kB\nMemAvailable: {800 * 1024} kB\n")
    monkeypatch.setattr(machine, "_MEMORY", meminfo)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 250 * 1024, "SC_PAGE_SIZE": 4096}.get)
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def write_group(
    folder: Path, version: int, limit: object, used_mib: int = 0, files_mib: int = 0
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    first, second, cached = machine._GROUP_FILES[0 if version == 2 else 1]
    (folder / first).write_text(f"{limit}\n")
    (folder / second).write_text(f"{used_mib * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{cached} {files_mib * MIB}\n")


def found() -> tuple[int | None, int | None]:
    total, free = machine.total_bytes(), machine.available_bytes()
    return (None if total is None else total // MIB, None if free is None else free // MIB)


def test_without_a_container_the_machine_alone_says(groups: Path) -> None:
    assert found() == (1000, 800)
    write_group(groups, 2, "max", used_mib=900)
    write_group(groups / "memory", 1, UNLIMITED, used_mib=900)
    assert found() == (1000, 800)


def test_a_containers_limit_of_either_version_is_all_that_there_is(groups: Path) -> None:
    write_group(groups / "memory", 1, 400 * MIB, used_mib=300, files_mib=50)
    assert found() == (400, 150)
    write_group(groups, 2, 200 * MIB, used_mib=120, files_mib=20)
    assert found() == (200, 100)


@pytest.mark.parametrize(
    ("version", "line", "root"),
    [(2, "0::/outer/inner", ""), (1, "4:memory:/outer/inner", "memory")],
)
def test_the_groups_that_a_process_is_in_and_those_above_limit_it(
    groups: Path, version: int, line: str, root: str
) -> None:
    machine._OWN_GROUPS.write_text(f"9:name=systemd:/\n{line}\n")
    outer = groups / root / "outer"
    write_group(outer / "inner", version, 600 * MIB, used_mib=100)
    assert found() == (600, 500)
    write_group(outer, version, 300 * MIB, used_mib=100)
    assert found() == (300, 200)


def test_what_others_use_changes_nothing_of_how_a_run_is_laid(groups: Path) -> None:
    write_group(groups, 2, 400 * MIB, used_mib=10)
    before = machine.total_bytes()
    write_group(groups, 2, 400 * MIB, used_mib=399)
    machine._MEMORY.write_text("MemAvailable: 1 kB\n")
    assert machine.total_bytes() == before


def test_a_launch_is_laid_by_the_containers_limit(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are computed again where the container, and not the machine, is too small."""
    monkeypatch.setattr(room, "_device_name", lambda device: "a CPU")
    science = make_plan().science.model_copy(
        update={"sequence_length": 8192, "sequences_per_step": 1, "precision": "float32"}
    )
    training = TrainingRecipe(device="cpu", num_threads=1)
    assert choose_placement(training, science, make_model_facts())[0].checkpointing == "none"
    write_group(groups, 2, 250 * MIB)
    placement, warnings = choose_placement(training, science, make_model_facts())
    assert placement.checkpointing != "none"
    assert "there are 250 MiB for it" in warnings[0]
