"""Runs as jobs: Slurm's script as text and as bash runs it, a pretended sbatch, Ray where it is."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewarm.artifacts import write_json
from rewarm.cli import main
from rewarm.comparison.experiment import RunRecipe
from rewarm.errors import EnvironmentFault
from rewarm.records.comparison import ComparisonResult
from rewarm.records.run_folder import RunFolder
from rewarm.stages.launches import devices_of_slots
from rewarm.stages.ray_runs import _train
from rewarm.stages.slurm import array_script, submit, take_job
from tests.support.comparisons import EXPERIMENT, make_comparison_folder, result_of, run_of

pytestmark = pytest.mark.timeout(600)

SLURM = EXPERIMENT.partition("[run]")[0].replace("noise_floor = true", "").replace(
    "seeds = 3", "seeds = 1"
) + (
    '[run]\nmode = "slurm"\nthreads_each = 1\nworkers = 2\n'
    'sbatch = ["--partition=gpu", "--time=04:00:00"]\n'
)


def test_the_script_says_what_was_asked_for(tmp_path: Path) -> None:
    settings = RunRecipe(
        mode="slurm",
        workers=4,
        threads_each=8,
        gpus_each=2,
        sbatch=["--partition=gpu"],
        launch="torchrun --nproc-per-node=2 -m rewarm",
    )
    runs = [RunFolder(tmp_path / "runs" / name) for name in ("a", "it's b", "c")]
    script = array_script("replay", tmp_path, runs, settings)
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for option in (
        "--job-name=rewarm-replay",
        "--array=0-2%4",
        "--cpus-per-task=8",
        "--nodes=1",
        "--gpus-per-node=2",
        "--partition=gpu",
        "--signal=B:TERM@120",
    ):
        assert f"#SBATCH {option}" in lines
    assert 'exec torchrun --nproc-per-node=2 -m rewarm train "$run"' in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "/50%%/slurm-%A_%a.out" in array_script("x", tmp_path / "50%", runs, settings)
    assert "%" not in array_script("x", tmp_path, runs[:1], RunRecipe()).split("--array=")[1][:4]


@pytest.mark.parametrize("option", ["--array=0-9", "--array 1", "--wait", "--test-only"])
def test_options_that_would_make_other_tasks_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="one job with a task for each run is what is followed"):
        RunRecipe(mode="slurm", sbatch=["--partition=gpu", option])
    assert RunRecipe(mode="slurm", sbatch=["--wait-all-nodes=1"]).sbatch


def test_runs_share_out_the_gpus_that_they_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices_of_slots(2, 2) == ["0,1", "2,3"]
    assert devices_of_slots(2, 0) == ["", ""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7,GPU-1f,MIG-2")
    assert devices_of_slots(2, 2) == ["5,7", "GPU-1f,MIG-2"]
    assert devices_of_slots(3, 0) == ["", "", ""]
    with pytest.raises(EnvironmentFault, match=r"3 runs of 2 GPU\(s\) at a time need 6, and .* 4"):
        devices_of_slots(3, 2)


@pytest.mark.parametrize(("body", "code"), [("exit 0", 0), ("echo it broke; exit 3", 3)])
def test_a_task_trains_its_own_run(tmp_path: Path, body: str, code: int) -> None:
    stand_in = tmp_path / "rewarm"
    stand_in.write_text(f"#!/bin/bash\necho trained $2\n{body}\n")
    stand_in.chmod(0o755)
    runs = [RunFolder(tmp_path / f"run {k}") for k in range(2)]
    for run in runs:
        run.path.mkdir()
    script = tmp_path / "jobs"
    script.write_text(array_script("x", tmp_path, runs, RunRecipe(launch=str(stand_in))))
    done = subprocess.run(
        ["bash", str(script)], env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"}, check=False
    )
    assert done.returncode == code
    assert (runs[1].path / "exit_code").read_text() == f"{code}\n"
    assert runs[1].output.read_text().startswith(f"trained {runs[1].path}")
    assert not runs[0].output.exists()


def test_a_task_hands_the_signal_on(tmp_path: Path) -> None:
    """Before its time is up the training saves and ends: the script waits for that."""
    stand_in = tmp_path / "rewarm"
    stand_in.write_text(
        "#!/bin/bash\ntrap 'sleep 0.3; echo saved; exit 130' TERM\necho begun\n"
        "while true; do sleep 0.05; done\n"
    )
    stand_in.chmod(0o755)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    script = tmp_path / "jobs"
    script.write_text(array_script("x", tmp_path, [run], RunRecipe(launch=str(stand_in))))
    task = subprocess.Popen(["bash", str(script)], env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"})
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (
        run.output.exists() and "begun" in run.output.read_text()
    ):
        time.sleep(0.05)
    task.send_signal(signal.SIGTERM)
    assert task.wait(timeout=20) == 130
    assert "saved" in run.output.read_text()
    assert (run.path / "exit_code").read_text() == "130\n"


def pretend_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, *, tasks_run: bool) -> Path:
    """Put sbatch and squeue into PATH: jobs end at once, having run their tasks or not."""
    tools = folder / "tools"
    tools.mkdir()
    log = folder / "submitted"
    run_tasks = (
        "n=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' \"$script\")\n"
        'for k in $(seq 0 $n); do SLURM_ARRAY_TASK_ID=$k bash "$script"; done\n'
    )
    sbatch = (
        f'#!/bin/bash\necho "$@" >> {log}\nscript="${{@: -1}}"\n'
        f"{run_tasks if tasks_run else ''}echo '4711;cluster'\n"
    )
    squeue = f'#!/bin/bash\n[ -e {folder}/busy ] && echo "4711_0 RUNNING"\nexit 0\n'
    for name, text in (("sbatch", sbatch), ("squeue", squeue)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return log


@pytest.mark.slow
def test_slurm_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_comparison_folder(tmp_path, SLURM, evaluate_every=3)
    log = pretend_slurm(tmp_path, monkeypatch, tasks_run=True)
    root = tmp_path / "comparisons" / "replay"

    assert main(["compare", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "job 4711: 2 of 2 runs are done" in told
    assert log.read_text().split() == ["--parsable", str(root / "jobs.sbatch")]
    assert not (root / "result.json").exists()

    (tmp_path / "busy").touch()
    assert main(["compare", str(path)]) == 0  # squeue still knows it: nothing is submitted again
    assert "job 4711" in capsys.readouterr().out
    (tmp_path / "busy").unlink()

    assert main(["compare", str(path)]) == 0
    assert len(log.read_text().splitlines()) == 1
    assert {run.state for run in result_of(path).runs} == {"done"}

    # Its end and what came before are lost: the job measures the end again, and that is no whole.
    evals = run_of(path, "replay", 1).evals_log
    lines = evals.read_bytes().splitlines(keepends=True)
    evals.write_bytes(b"".join(line for line in lines if json.loads(line)["step"] == 0))
    assert main(["compare", str(path)]) == 0
    assert len(log.read_text().splitlines()) == 2
    capsys.readouterr()
    assert main(["compare", str(path)]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "what was measured after 1, 2, 3 steps is not on record" in told


def test_a_job_that_came_to_nothing_is_told_and_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_comparison_folder(tmp_path, SLURM)
    log = pretend_slurm(tmp_path, monkeypatch, tasks_run=False)
    assert main(["compare", str(path)]) == 0
    assert main(["compare", str(path)]) == 1  # the job is over, and nothing was done
    assert "2 of 2 runs are not done" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", str(path)]) == 0
    assert len(log.read_text().splitlines()) == 2


def test_a_job_that_slurm_cannot_be_asked_for_is_not_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_slurm(tmp_path, monkeypatch, tasks_run=False)
    write_json(tmp_path / "slurm.json", {"job": "4711", "runs": []})
    squeue = tmp_path / "tools" / "squeue"
    squeue.write_text('#!/bin/bash\necho "Unable to contact slurm controller" >&2\nexit 1\n')
    with pytest.raises(EnvironmentFault, match="not submitted a second time"):
        take_job(tmp_path, print)
    squeue.write_text('#!/bin/bash\necho "slurm_load_jobs error: Invalid job id" >&2\nexit 1\n')
    assert take_job(tmp_path, print) == (None, True)


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_a_submission_that_is_cut_off_is_not_repeated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    taken: bool,
) -> None:
    """Killed after sbatch took the job and before its number was written down."""
    path = make_comparison_folder(tmp_path, SLURM)
    log = pretend_slurm(tmp_path, monkeypatch, tasks_run=False)
    sbatch, squeue = (tmp_path / "tools" / name for name in ("sbatch", "squeue"))
    answering = sbatch.read_text()
    sbatch.write_text(f"{answering}kill -9 $PPID\n")
    command = [sys.executable, "-m", "rewarm", "compare", str(path)]
    killed = subprocess.run(command, capture_output=True, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    script = log.read_text().split()[-1]

    # Somebody else's job is in the queue as well.
    queue = f"echo '12 {script}.old'\n" + (f"echo '4711 {script}'\n" if taken else "")
    squeue.write_text(f"#!/bin/bash\n{queue}")
    sbatch.write_text(answering)
    assert main(["compare", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "was cut off as it submitted" in told
    assert len(log.read_text().splitlines()) == (1 if taken else 2)
    assert "job 4711: 0 of 2 runs are done" in told
    assert main(["compare", str(path)]) == 0  # and its number is known now
    told = " ".join(capsys.readouterr().out.split())
    assert "job 4711: 0 of 2" in told
    assert "cut off" not in told


def test_a_job_that_was_not_taken_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_slurm(tmp_path, monkeypatch, tasks_run=False)
    sbatch = tmp_path / "tools" / "sbatch"
    sbatch.write_text("#!/bin/bash\necho 'no such partition' >&2\nexit 1\n")
    with pytest.raises(EnvironmentFault, match="no such partition"):
        submit("x", tmp_path, [RunFolder(tmp_path / "run")], RunRecipe())
    assert take_job(tmp_path, print) == (None, False)


def test_without_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_comparison_folder(tmp_path, SLURM)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["compare", str(path)]) == 1
    assert "there is no sbatch here" in capsys.readouterr().err


def test_a_task_of_ray_that_is_tried_again_is_no_longer_called_failed(tmp_path: Path) -> None:
    """While it runs the live page goes by this file."""
    run = RunFolder(tmp_path)
    run.exit_code.write_text("1\n")
    assert _train(str(tmp_path), "rewarm compare x.toml") != 0  # there is no plan to train
    assert not run.exit_code.exists()  # whoever waits for the task writes it


HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_comparison_folder(tmp_path, SLURM.replace('mode = "slurm"', 'mode = "ray"'))
    assert main(["compare", str(path)]) == 1
    assert "pip install 'rewarm[ray]'" in capsys.readouterr().err


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (pip install 'rewarm[ray]')")
def test_runs_as_tasks_of_ray(tmp_path: Path) -> None:
    """In a process of its own: Ray's threads and warnings are not this test run's business."""
    path = make_comparison_folder(tmp_path, SLURM.replace('mode = "slurm"', 'mode = "ray"'))
    done = subprocess.run(
        [sys.executable, "-m", "rewarm", "compare", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = tmp_path / "comparisons" / "replay" / "result.json"
    result = ComparisonResult.model_validate(json.loads(written.read_text()))
    assert {run.state for run in result.runs} == {"done"}
