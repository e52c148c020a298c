"""The shards are the same bytes, whoever made them; what a task finds wrong is told as here."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from rewarm.cli import main
from rewarm.corpus import place
from rewarm.corpus.executors import Executor, Step
from rewarm.errors import EnvironmentFault
from rewarm.recipe.prepare import PrepareRecipe
from tests.support.tiny_models import make_tiny_base

pytest.importorskip("datatrove")

RECIPE = """\
name = "r"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget = { tokens = 2_048 }
batch = { tokens = 256, sequence_length = 64 }
phases = [{ name = "a", weights = { web = 1.0 } }]
[sources.web]
path = "text/*.jsonl"
role = "new"
held_out = 0.1
curate = { dedup = "exact" }
"""


def write_text(folder: Path, number: int, texts: list[str]) -> None:
    (folder / "text").mkdir(exist_ok=True)
    lines = [
        json.dumps({"id": f"{number}-{n}", "text": text}) + "\n" for n, text in enumerate(texts)
    ]
    (folder / "text" / f"{number}.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("executors")
    make_tiny_base(folder / "base")
    rng = random.Random(0)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "nrst"]
    for number in range(4):
        texts = [" ".join(rng.choices(words, k=50)) for _ in range(20)]
        write_text(folder, number, [*texts, texts[0]])
    (folder / "r.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(made, tmp_path / "f")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(place, "_SHARD_INPUT_BYTES", 1000)  # a shard, and a task, for each file
    return folder


def prepared(folder: Path, name: str, *overrides: str) -> dict[str, str]:
    """Return the SHA-256 of all that is prepared but for what names times and places."""
    given = [part for one in (f"prepared_folder={name}", *overrides) for part in ("-o", one)]
    assert main(["prepare", "r.toml", *given]) == 0
    return hashes(folder / name)


def hashes(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {}
    for path in paths:
        if path.name not in ("MANIFEST.json", "facts.json") or "dropped" in path.parts:
            if path.name == "MANIFEST.json":
                continue
            name = str(path.relative_to(folder).with_name(path.name))
            content = path.read_bytes()
            found[re.sub(r"-[0-9a-f]{12}", "", name)] = hashlib.sha256(content).hexdigest()
    return found


def test_processes_of_this_machine_make_the_same_shards(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    here = prepared(folder, "here")
    capfd.readouterr()
    there = prepared(folder, "there", "prepare.workers=3")
    assert here == there
    assert sum(name.endswith(".bin") for name in here) == 4
    shown = capfd.readouterr()
    assert "100%" in shown.out
    assert "datatrove" not in shown.out + shown.err
    assert not list((folder / "there").glob("*/tasks")), "nothing of the executor's is left"


def test_where_text_is_prepared_decides_no_token() -> None:
    assert not {"executor", "workers"} & set(place._READER_KEYS)


def test_what_tasks_find_wrong_is_told_as_by_one_process(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "text" / "1.jsonl.zst").write_bytes(b"no zstd " * 200)
    (folder / "text" / "2.parquet").write_bytes(b"no parquet " * 200)
    given = ["-o", 'sources.web.path=["text/*.zst", "text/*.parquet", "text/0.jsonl"]']
    assert main(["prepare", "r.toml", *given, "-o", "prepare.workers=2"]) == 2
    told = capsys.readouterr().err
    assert "1.jsonl.zst: " in told
    assert "2.parquet: it cannot be read as parquet" in told
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ray_makes_the_same_shards(folder: Path) -> None:
    pytest.importorskip("ray")
    # Ray starts threads and sockets that it leaves to the end of the process.
    code = (
        "import sys, rewarm.corpus.place as place; place._SHARD_INPUT_BYTES = 1000\n"
        "from rewarm.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    given = ["prepare", "r.toml", "-o", "prepare.executor=ray", "-o", "prepare.workers=2"]
    subprocess.run(
        [sys.executable, "-c", code, *given, "-o", "prepared_folder=ray"],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert hashes(folder / "ray") == prepared(folder, "here")


SBATCH = """\
#!/bin/bash
# Stands in for sbatch: keeps the script, and runs it once for each number of the array.
script="${@: -1}"
cp "$script" "$SLURM_STAND_IN/script.$(ls "$SLURM_STAND_IN" | wc -l)"
last=$(grep -oP -- '--array=0-\\K[0-9]+' "$script")
for number in $(seq 0 "$last"); do
    SLURM_ARRAY_TASK_ID=$number SLURM_ARRAY_JOB_ID=4711 SLURM_NODELIST=here RUN_OFFSET=0 \\
        bash "$script" > "$SLURM_STAND_IN/out.$number" 2>&1
done
echo "Submitted batch job 4711"
"""
SRUN = """\
#!/bin/bash
while [ "$1" != launch_pickled_pipeline ]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/bash\necho here\n"
SQUEUE = '#!/bin/bash\ncat "$SLURM_STAND_IN/queue"\n'


@pytest.fixture
def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that stand in for Slurm's; `queue` holds what squeue says."""
    programs, kept = folder / "bin", folder / "slurm"
    programs.mkdir()
    kept.mkdir()
    scripts = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "squeue": SQUEUE}
    for name, content in scripts.items():
        (programs / name).write_text(content)
        (programs / name).chmod(stat.S_IRWXU)
    (kept / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STAND_IN", str(kept))
    return kept


SLURM = ("prepare.executor=slurm", 'prepare.slurm.partition="cpu"', "prepare.workers=7")


def test_an_array_job_has_a_task_for_each_shard_and_the_same_command_goes_on(
    folder: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part for one in (*SLURM, "prepared_folder=slurm med") for part in ("-o", one)]
    asked = ["-o", 'prepare.slurm.sbatch={account="me"}', "-o", 'prepare.slurm.time="01:00:00"']
    assert main(["prepare", "r.toml", *given, *asked]) == 1
    told = capsys.readouterr().err
    assert "4 tasks of web are not done yet: Slurm has them (job 4711)" in told
    assert "run the same command again" in told
    (script,) = slurm.glob("script.*")
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    asked_for = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"partition=cpu", "time=01:00:00", "array=0-3%7", "account=me", "nodes=1"} <= asked_for
    assert {"cpus-per-task=2", "mem-per-cpu=2G"} <= asked_for
    assert any(line.startswith("job-name=rewarm-web-") for line in asked_for)
    assert f"export PATH={Path(sys.executable).parent}:$PATH" in [line.strip() for line in lines]
    (launch,) = (line.strip() for line in lines if "launch_pickled_pipeline" in line)
    # srun of Slurm 22.05 and later gives a task one CPU unless it is told.
    assert launch.startswith(f"srun --cpus-per-task=2 -l -n 1 launch_pickled_pipeline '{folder}/")
    output = next(line for line in asked_for if line.startswith("output="))
    assert shlex.split(output)[0].startswith(f"output={folder}/slurm med/")

    assert main(["prepare", "r.toml", *given]) == 0, (slurm / "out.0").read_text()
    assert hashes(folder / "slurm med") == prepared(folder, "here")


def test_a_job_under_way_is_not_submitted_again(
    folder: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bin" / "sbatch").write_text(
        '#!/bin/bash\ntouch "$SLURM_STAND_IN/s.$$"\necho job 12\n'
    )
    given = [part for one in SLURM for part in ("-o", one)]
    assert main(["prepare", "r.toml", *given]) == 1
    (slurm / "queue").write_text("12 cpu rewarm-web R\n")
    assert main(["prepare", "r.toml", *given]) == 1
    assert "Slurm has them (job 12)" in capsys.readouterr().err
    assert len(list(slurm.glob("s.*"))) == 1
    (slurm / "queue").write_text("")  # it ended, and did nothing
    (log,) = Path("prepared").glob("*/*/slurm_logs")
    (log / "12_0.out").write_text("out of memory")
    capsys.readouterr()
    assert main(["prepare", "r.toml", *given]) == 1
    assert len(list(slurm.glob("s.*"))) == 2
    told = capsys.readouterr().err
    assert "job 12 ended without them, and its logs are in" in told
    (log,) = Path("prepared").glob("*/*/slurm_logs/12_0.out")
    assert str(log.parent.parent) in told
    assert log.read_text() == "out of memory"


def test_a_job_that_slurm_cannot_be_asked_for_is_not_submitted_again(
    folder: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bin" / "sbatch").write_text(
        '#!/bin/bash\ntouch "$SLURM_STAND_IN/s.$$"\necho job 12\n'
    )
    given = [part for one in SLURM for part in ("-o", one)]
    assert main(["prepare", "r.toml", *given]) == 1
    said = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    (folder / "bin" / "squeue").write_text(f'#!/bin/bash\necho "{said}" >&2\nexit 1\n')
    capsys.readouterr()
    assert main(["prepare", "r.toml", *given]) == 1
    assert "Unable to contact slurm controller" in capsys.readouterr().err
    assert len(list(slurm.glob("s.*"))) == 1
    (folder / "bin" / "squeue").write_text(
        '#!/bin/bash\necho "slurm_load_jobs error: Invalid job id specified" >&2\nexit 1\n'
    )
    assert main(["prepare", "r.toml", *given]) == 1  # it is over
    assert len(list(slurm.glob("s.*"))) == 2


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_a_submission_that_is_cut_off_is_not_repeated(
    folder: Path, slurm: Path, capsys: pytest.CaptureFixture[str], taken: bool
) -> None:
    """Killed after sbatch took the job and before its number was written down."""
    sbatch, submitted = folder / "bin" / "sbatch", folder / "slurm" / "submitted"
    answering = f'#!/bin/bash\ncat "${{@: -1}}" >> {shlex.quote(str(submitted))}\n'
    sbatch.write_text(f"{answering}kill -9 $PPID\n")
    given = ["prepare", "r.toml", *(part for one in SLURM for part in ("-o", one))]
    killed = subprocess.run(
        [sys.executable, "-m", "rewarm", *given], capture_output=True, check=False, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL
    names = re.findall("--job-name=(.*)", submitted.read_text())
    assert len(names) == 1

    # Somebody else's job is in the queue as well.
    queue = ["12 rewarm-web"] + ([f"4711 {names[0]}"] if taken else [])
    (slurm / "queue").write_text("".join(f"{line}\n" for line in queue))
    sbatch.write_text(f"{answering}echo job 4712\n")
    assert main(given) == 1
    assert f"Slurm has them (job {4711 if taken else 4712})" in capsys.readouterr().err
    names = re.findall("--job-name=(.*)", submitted.read_text())
    assert len(names) == (1 if taken else 2)
    assert len(set(names)) == 1


def test_what_a_job_without_a_number_found_wrong_is_told(
    folder: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its submission was cut off, and it has ended since."""
    (folder / "bin" / "sbatch").write_text("#!/bin/bash\necho job 4712\n")
    given = ["prepare", "r.toml", *(part for one in SLURM for part in ("-o", one))]
    assert main(given) == 1
    (noted,) = folder.rglob("slurm.json")
    noted.write_text('{"job_id": null}')
    (slurm / "queue").write_text("")

    def fails(number: int) -> None:
        raise EnvironmentFault("a disk was full", "make room")

    Step(fails, (0,), noted.parent / "faults", 1)(None, 0, 1)
    capsys.readouterr()
    assert main(given) == 1
    assert "a disk was full" in capsys.readouterr().err
    assert main(given) == 1
    assert "Slurm has them" in capsys.readouterr().err


def test_a_submission_that_is_refused_leaves_no_word_of_a_job(folder: Path, slurm: Path) -> None:
    (folder / "bin" / "sbatch").write_text("#!/bin/bash\nexit 1\n")
    given = ["prepare", "r.toml", *(part for one in SLURM for part in ("-o", one))]
    assert main(given) == 1
    assert not list(folder.rglob("slurm.json"))


def test_without_slurm_that_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [part for one in SLURM for part in ("-o", one)]
    assert main(["prepare", "r.toml", *given]) == 1
    assert "Slurm does not take the job" in capsys.readouterr().err


def test_what_follows_a_cluster_s_work_runs_on_this_machine() -> None:
    slurm = PrepareRecipe.model_validate({"executor": "slurm", "slurm": {"partition": "p"}})
    assert Executor(slurm).here().prepare.executor == "local"
    assert Executor(PrepareRecipe(executor="ray")).here().prepare.executor == "ray"
    assert Executor(PrepareRecipe()).here().in_this_process


def test_mistakes_are_told() -> None:
    with pytest.raises(ValidationError, match=r"\[prepare.slurm\] partition"):
        PrepareRecipe(executor="slurm")
    with pytest.raises(ValidationError, match='goes with executor = "slurm"'):
        PrepareRecipe.model_validate({"slurm": {"partition": "p"}})
