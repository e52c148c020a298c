"""Each promise's test fails when the one line that keeps it is broken.

A copy of the package with that line changed is put in front of the real one, and the test that
guards the promise is run against it: it must fail. A line that is no longer there is told too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """`old` stands once in `file`; with `new` in its place `test` must fail."""

    promise: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = [
    Mutation(
        promise="a recipe's unknown key is refused",
        file="recipe/schema.py",
        old='frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True',
        new='frozen=True, extra="ignore", allow_inf_nan=False, str_strip_whitespace=True',
        test="tests/unit/test_recipe.py::test_an_unknown_key_names_its_neighbour",
    ),
    Mutation(
        promise="the budget is never exceeded",
        file="units.py",
        old="return tokens // tokens_per_step",
        new="return -(-tokens // tokens_per_step)",
        test="tests/unit/test_plan.py::test_the_budget_is_never_exceeded",
    ),
    Mutation(
        promise="a switch happens at the first step below the threshold",
        file="planning/schedule.py",
        old="while step > first and lr_at(schedule, step - 1) < threshold:\n        step -= 1",
        new="step += 1",
        test="tests/properties/test_schedule.py::test_the_first_step_below_is_the_one_a_scan_finds",
    ),
    Mutation(
        promise="an assumed final rate is said aloud",
        file="planning/resolve.py",
        old='        notes.warnings.append(\n            f"ASSUMPTION',
        new='        _ = (\n            f"ASSUMPTION',
        test="tests/unit/test_plan.py::test_an_unknown_final_rate_is_assumed_aloud",
    ),
    Mutation(
        promise="a plan that was edited by hand is refused",
        file="planning/plan.py",
        old="if plan.fingerprint != Plan.science_fingerprint(plan.science):",
        new="if False:",
        test="tests/unit/test_plan.py::test_a_plan_is_read_back_or_refused",
    ),
    Mutation(
        promise="every prefix of a phase keeps the blend to within one sample",
        file="order/blend.py",
        old="deadline = -(-(following + 1) * length // share)",
        new="deadline = slot",
        test="tests/properties/test_order.py::test_every_prefix_keeps_the_blend_to_within_one_sample",
    ),
    Mutation(
        promise="every epoch shows every window once",
        file="order/position.py",
        old="return epoch, permute(place, num_windows, keys)",
        new="return epoch, permute(place // 2, num_windows, keys)",
        test="tests/properties/test_order.py::test_every_epoch_shows_every_window_once",
    ),
    Mutation(
        promise="a source's counter goes on across phases",
        file="order/position.py",
        old="ranks + _before_phase(spec, int(index))[sources]",
        new="ranks",
        test="tests/properties/test_order.py::test_random_access_equals_going_through",
    ),
    Mutation(
        promise="every world size sees the same samples",
        file="order/position.py",
        old="[rank * share : (rank + 1) * share]",
        new="[:share]",
        test="tests/properties/test_order.py::test_every_world_size_sees_the_same_step",
    ),
    Mutation(
        promise="documents are held out by their hash",
        file="corpus/prepare.py",
        old="held_out = digests.astype(np.float64) / 2.0**64 < work.source.held_out",
        new="held_out = np.arange(len(digests)) % 3 == 0",
        test="tests/unit/test_corpus_prepare.py::test_every_number_is_exact",
    ),
    Mutation(
        promise="text that changed since it was prepared is not trained on",
        file="corpus/prepare.py",
        old='if stat.st_size != entry["bytes"] or file_sha256(path) != entry["sha256"]:',
        new="if False:",
        test="tests/unit/test_corpus_prepare.py::test_what_changed_since_prepare_is_named",
    ),
    Mutation(
        promise="many rejected documents are an error",
        file="corpus/prepare.py",
        old="if harmful > _MAX_REJECTED_SHARE * total:",
        new="if False:",
        test="tests/unit/test_corpus_prepare.py::test_above_one_per_cent_rejected_is_an_error",
    ),
    Mutation(
        promise="a kill while preparing changes no byte",
        file="corpus/prepare.py",
        old='            write_json(Path(f"{prefix}.json"), facts)\n',
        new="            pass\n",
        test="tests/unit/test_corpus_prepare.py::test_every_number_is_exact",
    ),
    Mutation(
        promise="a special token's name in a text stays text",
        file="corpus/tokenize.py",
        old="tokenizer.encode_special_tokens = True",
        new="tokenizer.encode_special_tokens = False",
        test="tests/unit/test_corpus_tokenize.py::test_a_special_tokens_name_in_a_text_stays_text",
    ),
    Mutation(
        promise="an id is never wrapped",
        file="corpus/shards.py",
        old="if ids.size and not (limits.min <= int(ids.min()) and int(ids.max()) <= limits.max):",
        new="if False:",
        test="tests/unit/test_corpus_shards.py::test_an_id_is_never_wrapped",
    ),
    Mutation(
        promise="a file cut while mapped is an error",
        file="corpus/shards.py",
        old="if size < self._num_bytes:",
        new="if False:",
        test="tests/unit/test_corpus_shards.py::"
        "test_a_file_cut_while_mapped_is_an_error_and_no_signal",
    ),
    Mutation(
        promise="a bomb is stopped",
        file="corpus/streams.py",
        old="if self._given > max(caps.expanded_bytes, caps.ratio * max(self._raw.tell(), 1)):",
        new="if False:",
        test="tests/unit/test_corpus_sources.py::test_a_bomb_is_stopped",
    ),
    Mutation(
        promise="a flipped bit in a checkpoint is noticed",
        file="artifacts.py",
        old='elif file_sha256(path) != entry["sha256"]:',
        new="elif False:",
        test="tests/resume/test_kills.py::test_one_flipped_bit_is_named_and_passed_over",
    ),
    Mutation(
        promise="a kill changes no bit of the result",
        file="training/state.py",
        old="    set_step_counts(state.optimizer, saved.optimizer_steps)\n",
        new="",
        test="tests/resume/test_kills.py::test_three_kills_change_no_bit",
    ),
    Mutation(
        promise="a run that has begun keeps its plan",
        file="stages/job.py",
        old="if old.fingerprint != plan.fingerprint:",
        new="if False:",
        test="tests/unit/test_main_road.py::"
        "test_a_changed_plan_does_not_touch_a_run_that_has_begun",
    ),
    Mutation(
        promise="no traceback is printed unless asked",
        file="cli.py",
        old="            raise\n        show = getattr",
        new="            raise\n        raise\n        show = getattr",
        test="tests/unit/test_main_road.py::test_a_fault_of_ours_prints_no_traceback_unless_asked",
    ),
    Mutation(
        promise="an export is believed only after its weights were read back",
        file="export/folder.py",
        old="    if differing:",
        new="    if False:",
        test="tests/unit/test_export.py::test_a_folder_that_does_not_give_the_model_back",
    ),
    Mutation(
        promise="code in a checkpoint is never run",
        file="planning/foreign_code.py",
        old="if key in _CODE_KEYS and inner:",
        new="if False:",
        test="tests/unit/test_model_facts.py::"
        "test_code_named_by_the_tokenizer_or_the_generation_is_refused",
    ),
    Mutation(
        promise="a base that is not finite is refused",
        file="model/load.py",
        old="if not torch.isfinite(tensor).all():",
        new="if False:",
        test="tests/unit/test_model_load.py::test_weights_that_are_not_finite_are_named",
    ),
    Mutation(
        promise="a loss that is not finite never reaches the weights",
        file="training/step.py",
        old="masked_step(optimizer, skip=~measured.isfinite().all())",
        new="masked_step(optimizer, skip=torch.zeros((), dtype=torch.bool))",
        test="tests/parity/test_step.py::"
        "test_a_loss_that_stays_not_finite_never_reaches_the_weights",
    ),
    Mutation(
        promise="the split into micro-batches does not matter",
        file="training/step.py",
        old="(nats / divisor).backward()",
        new="(nats / (labels != -100).sum().clamp(min=1)).backward()",
        test="tests/parity/test_step.py::test_the_split_into_micro_batches_does_not_matter",
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.promise)
def test_the_broken_line_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "src" / "rewarm", tmp_path / "rewarm")
    target = tmp_path / "rewarm" / mutation.file
    source = target.read_text(encoding="utf-8")
    assert source.count(mutation.old) == 1, f"{mutation.file}: the line to break is not there once"
    target.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")

    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-m",
            "",
            mutation.test,
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    # 1 means that tests ran and failed; 4 or 5 that the test is not there, 2 that it broke loading.
    assert finished.returncode == 1, finished.stdout[-2000:] + finished.stderr[-2000:]
