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
        promise="no document ends in an ordinary word",
        file="corpus/tokenize.py",
        old="        elif said in apart:\n",
        new="        elif 0 <= said < tokenizer.get_vocab_size():\n",
        test="tests/unit/test_corpus_tokenize.py::"
        "test_an_id_of_the_model_that_is_no_token_apart_from_text_ends_no_document",
    ),
    Mutation(
        promise="a damaged shard is not sealed as it is",
        file="corpus/prepare.py",
        old="    discard_changed(folder)\n",
        new="",
        test="tests/unit/test_corpus_prepare.py::"
        "test_a_flipped_bit_is_mended_and_never_sealed_as_it_is",
    ),
    Mutation(
        promise="a damaged export does not count as exported",
        file="export/folder.py",
        old='return Exported(int(mark["step"]), manifest_problems(folder, mark))',
        new='return Exported(int(mark["step"]), [])',
        test="tests/unit/test_run_guards.py::test_the_export_of_an_earlier_step_is_put_aside",
    ),
    Mutation(
        promise="a mistake in the base hides none in the text",
        file="stages/survey.py",
        old="        found.problems.extend(error.problems)\n    except EnvironmentFault",
        new="        raise error\n    except EnvironmentFault",
        test="tests/unit/test_run_guards.py::"
        "test_mistakes_in_base_text_tasks_and_arithmetic_are_told_at_once",
    ),
    Mutation(
        promise="a mistake in a field hides no contradiction",
        file="recipe/load.py",
        old="        problems.extend(_as_problem(details) for details in "
        "_of_the_meant_branch(error.errors()))\n",
        new="        raise RecipeError([_as_problem(details) for details in error.errors()])\n",
        test="tests/unit/test_recipe.py::test_fields_overrides_and_contradictions_are_told_at_once",
    ),
    Mutation(
        promise="nobody else writes into the records of a launch",
        file="stages/evaluate.py",
        old="    with hold_lock(run.lock, bench.say):\n",
        new="    if True:\n",
        test="tests/unit/test_run_guards.py::"
        "test_nobody_evaluates_into_the_records_of_a_launch_under_way",
    ),
    Mutation(
        promise="the line that resumes is the command that was given",
        file="stages/train.py",
        old='command_line("train", path, overrides, sinks)',
        new='command_line("train", path)',
        test="tests/unit/test_run_guards.py::"
        "test_the_line_that_resumes_says_everything_that_was_given",
    ),
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
        file="planning/rates.py",
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
        promise="a subset is the same in every epoch, unless it is redrawn",
        file="order/position.py",
        old="epoch.tolist() if drawing.redrawn else",
        new="epoch.tolist() if not drawing.redrawn else",
        test="tests/properties/test_order_subsets.py",
    ),
    Mutation(
        promise="a preset never changes what a person wrote",
        file="recipe/presets.py",
        old="if not isinstance(table, dict) or key in table or",
        new="if not isinstance(table, dict) or",
        test="tests/unit/test_presets.py::test_a_preset_lies_under_what_a_person_writes",
    ),
    Mutation(
        promise="every epoch shows every window once",
        file="order/position.py",
        old="window = permute(place, num_windows, keys)",
        new="window = permute(place // 2, num_windows, keys)",
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
        old="for edge in (rank, rank + 1))",
        new="for edge in (0, 1))",
        test="tests/properties/test_order.py::test_every_world_size_sees_the_same_step",
    ),
    Mutation(
        promise="gradients are summed over the ranks",
        file="distributed/fsdp.py",
        old="        module.set_gradient_divide_factor(1.0)\n",
        new="",
        test="tests/parity/test_ranks.py::test_ranks_take_the_step_of_one_process[two]",
    ),
    Mutation(
        promise="ranks update the weights that they compute with",
        file="training/run.py",
        old="    reshard(root)\n",
        new="",
        test="tests/parity/test_ranks_load.py::test_the_command_line_on_two_ranks",
    ),
    Mutation(
        promise="a base in parts has the buffers of the whole",
        file="distributed/fsdp.py",
        old="        buffer.copy_(buffers[name])\n",
        new="        pass\n",
        test="tests/parity/test_ranks_load.py::test_a_base_in_parts_is_the_base",
    ),
    Mutation(
        promise="a save in the background is of one moment",
        file="training/saver.py",
        old="copy=self._background",
        new="copy=False",
        test="tests/unit/test_training_run.py::"
        "test_a_save_in_the_background_holds_the_step_that_it_is_of",
    ),
    Mutation(
        promise="a save that failed in the background is told at the next step",
        file="training/signals.py",
        old="        self.save_failed = self.save_failed or bool(failed)\n",
        new="",
        test="tests/unit/test_training_run.py::"
        "test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_step",
    ),
    Mutation(
        promise="a skip is on the disk before it governs",
        file="training/course.py",
        old="        self.ranks.on_main(lambda: append_amendment(self.run.amendments, amended))\n",
        new="",
        test="tests/unit/test_training_guard.py::test_a_run_resumed_from_before_a_skip_skips_again",
    ),
    Mutation(
        promise="a skipped step is not taken",
        file="training/loop.py",
        old="        if not state.amendments.skips(state.step):\n",
        new="        if True:\n",
        test="tests/unit/test_training_guard.py::"
        "test_after_a_spike_the_run_goes_back_and_leaves_its_steps_out",
    ),
    Mutation(
        promise="a checkpoint of steps that are left out is not gone on from",
        file="training/course.py",
        old="        self.store.discard(left)\n",
        new="",
        test="tests/unit/test_training_guard.py::"
        "test_a_rollback_that_was_killed_is_finished_by_the_next_launch",
    ),
    Mutation(
        promise="what was rejected stays out of the guard's statistics",
        file="training/guard.py",
        old="        if limit is None or record.loss <= limit:\n"
        "            self._within_spike = False\n",
        new="        if limit is not None and record.loss > limit:\n"
        "            state.guard = GuardMemory(\n"
        "                phase=record.phase, losses=(*state.guard.losses, record.loss)\n"
        "            )\n"
        "        else:\n",
        test="tests/unit/test_training_guard.py::"
        "test_a_spike_is_told_once_and_stays_out_of_the_statistics",
    ),
    Mutation(
        promise="the guard remembers over a resume",
        file="training/state.py",
        old="    state.guard = saved.guard\n",
        new="",
        test="tests/unit/test_training_guard.py::test_the_guard_decides_alike_after_a_resume",
    ),
    Mutation(
        promise="a loss in chunks that is not the model's is not used",
        file="model/chunked_loss.py",
        old="        if not difference <= _TOLERANCE.get(dtype, _HALF_TOLERANCE):\n",
        new="        if False:\n",
        test="tests/parity/test_chunked_loss.py::"
        "test_where_the_logits_are_others_the_plain_loss_stays",
    ),
    Mutation(
        promise="a token weighs alike on every rank",
        file="training/step.py",
        old="num_valid, *by_source = world.sum(counts).tolist()",
        new="num_valid, *by_source = (counts * world.size).tolist()",
        test="tests/parity/test_ranks.py::test_ranks_take_the_step_of_one_process[two]",
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
        file="corpus/sealed.py",
        old='if stat.st_size != entry["bytes"] or file_sha256(folder / name) != entry["sha256"]:',
        new="if False:",
        test="tests/unit/test_corpus_prepare.py::test_what_changed_since_prepare_is_named",
    ),
    Mutation(
        promise="many rejected documents are an error",
        file="corpus/rejected.py",
        old="if harmful > _MAX_REJECTED_SHARE * total:",
        new="if False:",
        test="tests/unit/test_corpus_prepare.py::test_above_one_per_cent_rejected_is_an_error",
    ),
    Mutation(
        promise="a kill while preparing changes no byte",
        file="corpus/prepare.py",
        old="except (OSError, ValueError, LookupError, TypeError, AttributeError):\n"
        "            return False",
        new="except (OSError, ValueError, LookupError, TypeError, AttributeError):\n"
        "            return True",
        test="tests/unit/test_corpus_prepare.py::test_a_kill_at_any_moment_changes_no_byte",
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
    Mutation(
        promise="a second launcher is refused",
        file="training/lock.py",
        old="            if reason is None:\n",
        new="            if False:\n",
        test="tests/unit/test_training_lock.py::"
        "test_a_second_launcher_is_refused_with_who_holds_it",
    ),
    Mutation(
        promise="a stale lock is taken over",
        file="training/lock.py",
        old='return None if _is_alive(owner) else "that process is gone"',
        new="return None",
        test="tests/unit/test_training_lock.py::test_a_lock_outlives_nobody_who_was_killed",
    ),
    Mutation(
        promise="who lost the lock writes no more",
        file="training/saver.py",
        old="        self._lock.check()\n",
        new="",
        test="tests/unit/test_training_run.py::test_who_lost_the_lock_saves_no_more",
    ),
    Mutation(
        promise="SIGTERM ends with a checkpoint",
        file="training/run.py",
        old="return state.step >= last_step or agreed.stop_signal is not None",
        new="return state.step >= last_step",
        test="tests/unit/test_training_run.py::"
        "test_a_signal_ends_the_launch_after_the_step_with_a_checkpoint",
    ),
    Mutation(
        promise="SIGUSR1 saves and goes on",
        file="training/signals.py",
        old="        self._save = True\n",
        new="        pass\n",
        test="tests/unit/test_training_run.py::test_sigusr1_saves_and_goes_on",
    ),
    Mutation(
        promise="the newest verified checkpoint is never pruned",
        file="training/checkpoint.py",
        old="elif path in self._verified or not checkpoint_problems(path, step_of(path)):",
        new="else:",
        test="tests/unit/test_training_checkpoint.py::"
        "test_damaged_ones_do_not_count_among_those_that_stay",
    ),
    Mutation(
        promise="a save is tried again where the disk was full",
        file="training/checkpoint.py",
        old="            self._ranks.on_main(lambda: self._prune(keep=1))\n",
        new="            pass\n",
        test="tests/unit/test_training_checkpoint.py::"
        "test_a_full_disk_is_made_room_on_and_tried_again",
    ),
    Mutation(
        promise="nothing is deleted where no checkpoint can be trusted",
        file="training/checkpoint.py",
        old="    if passed_over:\n        raise",
        new="    if False:\n        raise",
        test="tests/unit/test_training_checkpoint.py::"
        "test_none_that_can_be_trusted_is_an_error_and_nothing_is_deleted",
    ),
    Mutation(
        promise="files of a checkpoint are flushed before they count",
        file="training/checkpoint.py",
        old="        _fsync_file(folder / name)\n",
        new="        pass\n",
        test="tests/unit/test_training_checkpoint.py::test_everything_is_flushed_before_it_counts",
    ),
    Mutation(
        promise="a checkpoint's name is flushed",
        file="training/checkpoint.py",
        old="        fsync_folder(self._folder)\n",
        new="",
        test="tests/unit/test_training_checkpoint.py::test_everything_is_flushed_before_it_counts",
    ),
    Mutation(
        promise="a plan is not written under a launch",
        file="stages/job.py",
        old="with hold_lock(run.lock, lambda message: None):",
        new="if True:",
        test="tests/unit/test_run_guards.py::test_a_plan_is_not_written_under_a_launch",
    ),
    Mutation(
        promise="a run goes on from the base that was planned",
        file="stages/trained.py",
        old="        if found != planned:\n",
        new="        if False:\n",
        test="tests/unit/test_run_guards.py::test_another_base_under_the_plan_is_refused",
    ),
    Mutation(
        promise="what is held out is not trained on by another source",
        file="corpus/overlap.py",
        old="            if num_both:\n",
        new="            if False:\n",
        test="tests/unit/test_run_guards.py::"
        "test_held_out_text_that_another_source_trains_on_is_refused",
    ),
    Mutation(
        promise="tokens are shared only where documents end alike",
        file="corpus/place.py",
        old='                "eos": list(declared_eos(self.tokenizer_folder)),\n',
        new="",
        test="tests/unit/test_run_guards.py::"
        "test_bases_that_end_documents_differently_share_no_tokens",
    ),
    Mutation(
        promise="an export of another step is kept",
        file="stages/export.py",
        old="            make_way = partial(_put_aside, run.export, held, console)\n",
        new="            import shutil; make_way = partial(shutil.rmtree, run.export)\n",
        test="tests/unit/test_run_guards.py::test_the_export_of_an_earlier_step_is_put_aside",
    ),
    Mutation(
        promise="a text that spells a special token is rejected",
        file="corpus/tokenize.py",
        old="return bool(self.is_special[ids[len(self.frame.begin) : end]].any())",
        new="return False",
        test="tests/unit/test_corpus_prepare.py::test_a_special_token_in_a_text_is_rejected",
    ),
    Mutation(
        promise="two at once prepare once",
        file="corpus/prepare.py",
        old="            fcntl.flock(descriptor, fcntl.LOCK_EX)\n",
        new="            pass\n",
        test="tests/unit/test_corpus_prepare.py::test_two_at_once_prepare_once",
    ),
    Mutation(
        promise="text that changes while it is prepared is told",
        file="corpus/prepare.py",
        old="    work.place.check_unchanged()\n",
        new="",
        test="tests/unit/test_corpus_prepare.py::test_text_that_changes_under_our_hands_is_told",
    ),
    Mutation(
        promise="a token outside of the vocabulary stops the run",
        file="batches/loader.py",
        old="        self._check_vocabulary(tokens, slots)\n",
        new="",
        test="tests/unit/test_batches.py::"
        "test_a_token_outside_of_the_vocabulary_is_named_before_it_is_looked_up",
    ),
    Mutation(
        promise="evaluating leaves training as it was",
        file="model/modes.py",
        old="module.training = training",
        new="pass",
        test="tests/parity/test_likelihood.py::"
        "test_training_is_bit_identical_with_and_without_evaluation",
    ),
    Mutation(
        promise="a verdict leaves out records of other items",
        file="evaluation/forgetting.py",
        old="    return record.items_key, record.item_weights\n",
        new='    return "", ()\n',
        test="tests/unit/test_evaluation_forgetting.py::"
        "test_records_of_other_items_are_left_out_and_the_verdict_says_so",
    ),
    Mutation(
        promise="a mistake leaves with code 2",
        file="errors.py",
        old="    exit_code = 2\n",
        new="    exit_code = 1\n",
        test="tests/unit/test_main_road.py::test_a_mistake_is_one_message_and_code_2",
    ),
    Mutation(
        promise="a name shows as text in the report",
        file="reporting/report.py",
        old="autoescape=True",
        new="autoescape=False",
        test="tests/unit/test_reporting_report.py::test_names_show_as_text",
    ),
    Mutation(
        promise="documents of a sequence do not see each other",
        file="model/loss.py",
        old="more = {} if position_ids is None else",
        new="more = {} if True else",
        test="tests/parity/test_packing.py::test_documents_of_a_sequence_are_as_if_alone",
    ),
    Mutation(
        promise="a step keeps documents apart where the plan says so",
        file="training/step.py",
        old="nats, _ = state.root(self.loss, input_ids, labels, position_ids)",
        new="nats, _ = state.root(self.loss, input_ids, labels, None)",
        test="tests/parity/test_step.py::test_a_step_hands_positions_to_the_loss",
    ),
    Mutation(
        promise="only a plan on measured facts is trained",
        file="stages/train.py",
        old="    if not plan.measured:\n",
        new="    if False:\n",
        test="tests/unit/test_run_guards.py::test_only_a_plan_on_measured_facts_is_trained",
    ),
    Mutation(
        promise="a run reads text as it was prepared",
        file="stages/train.py",
        old="            verify_prepared(facts)\n",
        new="",
        test="tests/unit/test_run_guards.py::test_a_shard_that_changed_since_prepare_is_refused",
    ),
    Mutation(
        promise="a file stands in one source",
        file="corpus/inputs.py",
        old="            if first != name:\n",
        new="            if False:\n",
        test="tests/unit/test_run_guards.py::test_a_file_in_two_sources_is_refused",
    ),
    Mutation(
        promise="records are on the disk before a checkpoint vouches for them",
        file="training/saver.py",
        old="        self._journal.run.flush_records()\n",
        new="",
        test="tests/unit/test_run_guards.py::"
        "test_records_are_flushed_before_the_checkpoint_that_vouches_for_them",
    ),
    Mutation(
        promise="content is on the disk before its name",
        file="artifacts.py",
        old="            file.flush()\n            os.fsync(file.fileno())\n        open_to_others",
        new="            file.flush()\n        open_to_others",
        test="tests/unit/test_artifacts.py::"
        "test_content_is_on_the_disk_before_its_name_and_the_name_before_the_return",
    ),
    Mutation(
        promise="a damaged checkpoint is named by every verb",
        file="stages/trained.py",
        old="    for path, problems in found.passed_over:\n",
        new="    for path, problems in []:\n",
        test="tests/unit/test_run_guards.py::test_a_damaged_checkpoint_is_named_by_every_verb",
    ),
    Mutation(
        promise="nobody trains without a yes",
        file="stages/run.py",
        old="        _confirm(path)\n",
        new="        pass\n",
        test="tests/unit/test_run_guards.py::test_nobody_trains_without_a_yes",
    ),
    Mutation(
        promise="a cap on epochs holds",
        file="planning/mixture.py",
        old="        if epochs > cap:\n",
        new="        if epochs > cap + 0.5:\n",
        test="tests/unit/test_plan.py::test_too_many_epochs_are_told_with_numbers",
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
