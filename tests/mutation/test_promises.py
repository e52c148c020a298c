"""Each promise's test fails when the one line that keeps it is broken.

A copy of the package with that line changed is put in front of the real one, and the test that
guards the promise is run against it: it must fail. A line that is no longer there is told too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.forked_pytest import ForkedPytest

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
        promise="one process on a CPU saves at once, others in the background",
        file="training/run.py",
        old='return placement.device != "cpu" or placement.world_size > 1',
        new="return True",
        test="tests/unit/test_checkpoint_benchmark.py::test_which_way_is_whose",
    ),
    Mutation(
        promise="what the allocator keeps of an evaluation is no part of the steps' peak",
        file="training/usage.py",
        old="            _give_back_freed()\n            try:\n",
        new="            try:\n",
        test="tests/parity/test_step_memory.py::"
        "test_what_the_allocator_keeps_of_what_is_around_steps_is_none_of_theirs",
    ),
    Mutation(
        promise="what the allocator keeps before there is a model is not the process's own",
        file="training/usage.py",
        old="        if not self._on_gpu:\n            _give_back_freed()\n",
        new="",
        test="tests/parity/test_step_memory.py::"
        "test_what_the_allocator_keeps_of_what_is_around_steps_is_none_of_theirs",
    ),
    Mutation(
        promise="a kernel that tells less of a process's memory ends no launch",
        file="training/usage.py",
        old="return found if found.keys() >= _FIELDS else None",
        new="return found",
        test="tests/parity/test_step_memory.py::test_where_the_kernel_tells_less_there_is_one_peak",
    ),
    Mutation(
        promise="what evaluations take is no part of the steps' peak",
        file="training/hooks.py",
        old="        with self._apart():\n            self._measure_now(state)\n",
        new="        self._measure_now(state)\n",
        test="tests/parity/test_step_memory.py::test_a_run_has_the_peak_of_its_steps_on_record",
    ),
    Mutation(
        promise="what saves take is no part of the steps' peak",
        file="training/hooks.py",
        old="        with self._apart():\n            self._saver.save(state)\n",
        new="        self._saver.save(state)\n",
        test="tests/parity/test_step_memory.py::test_a_run_has_the_peak_of_its_steps_on_record",
    ),
    Mutation(
        promise="a run's peak is that of the launch that took most",
        file="records/run_folder.py",
        old="return max(plain or found, key=lambda memory: memory.steps_bytes, default=None)",
        new="return next(iter(plain or found), None)",
        test="tests/parity/test_step_memory.py::test_of_several_launches_the_greatest_counts",
    ),
    Mutation(
        promise="a profiled launch is the run's peak only where there is no other",
        file="records/run_folder.py",
        old="plain = [memory for memory in found if not memory.profiled]",
        new="plain = found",
        test="tests/parity/test_step_memory.py::test_a_profiled_launch_counts_where_there_is_no_other",
    ),
    Mutation(
        promise="a profiled launch's peak is no comparison's",
        file="records/run_folder.py",
        old="if memory is None or memory.profiled or not memory.told_apart:",
        new="if memory is None or not memory.told_apart:",
        test="tests/parity/test_step_memory.py::test_a_profiled_launch_counts_where_there_is_no_other",
    ),
    Mutation(
        promise="one rank that a profiler watched marks the launch",
        file="records/memory.py",
        old="profiled=any(",
        new="profiled=all(",
        test="tests/parity/test_step_memory.py::test_a_profiled_launch_counts_where_there_is_no_other",
    ),
    Mutation(
        promise="a launch that a profiler watched says so of its memory",
        file="training/run.py",
        old="memory.found(profiled=materials.spans.were_watched)",
        new="memory.found()",
        test="tests/unit/test_goodput.py::test_the_memory_of_a_profiled_launch_is_marked",
    ),
    Mutation(
        promise="a report says where only a profiled launch's peak is there",
        file="reporting/run_sections.py",
        old='watched = _PROFILED if memory.profiled else ""',
        new='watched = ""',
        test="tests/unit/test_reporting_report.py::test_a_profiled_peak_is_told_as_one",
    ),
    Mutation(
        promise="a probed plan's peak is that of steps, beside the process's own",
        file="planning/probed.py",
        old='"value": trial.steps_bytes,',
        new='"value": whole,',
        test="tests/unit/test_probe.py::test_the_peak_is_what_steps_take_and_what_has_to_fit_is_told",
    ),
    Mutation(
        promise="a peak that is not told apart is not taken for that of steps",
        file="planning/probed.py",
        old="    if trial.steps_bytes is None:\n",
        new="    if False:\n",
        test="tests/unit/test_probe.py::test_where_steps_are_not_told_apart_their_peak_stays_that_by_shapes",
    ),
    Mutation(
        promise="a trial has what its steps took beside the process's own",
        file="stages/probe_trial.py",
        old="steps_bytes=memory.steps_bytes if memory.told_apart else None,",
        new="steps_bytes=memory.peak_bytes,",
        test="tests/unit/test_main_road.py::test_a_trial_takes_real_steps_and_leaves_the_run_alone",
    ),
    Mutation(
        promise="the peak without a probe has retention in it",
        file="planning/peak.py",
        old="value=peak.total + retained,",
        new="value=peak.total,",
        test="tests/unit/test_retention_plan.py::test_pulls_and_their_costs_by_hand",
    ),
    Mutation(
        promise="a plan's memory on a GPU is by the sequences at a time that a launch takes there",
        file="planning/fitting.py",
        old='placement.device != "cpu" and training.micro_batch_sequences is None',
        new="False",
        test="tests/parity/test_memory.py::test_what_a_gpu_took_is_estimated_within_its_tolerance",
    ),
    Mutation(
        promise="a plan's memory is that of a GPU where it is for one",
        file="planning/resolve.py",
        old="            gpu=gpu,\n",
        new="",
        test="tests/unit/test_gpu_plan.py::"
        "test_a_plan_for_a_gpu_that_is_not_at_hand_says_what_it_assumes",
    ),
    Mutation(
        promise="of many ranks a plan's memory has each one's part",
        file="planning/peak.py",
        old="model, num_trained, num_shards=num_shards)",
        new="model, num_trained)",
        test="tests/unit/test_gpu_plan.py::"
        "test_the_plan_estimates_what_a_launch_on_gpus_is_laid_as",
    ),
    Mutation(
        promise="a plan says which memory of a GPU it assumes",
        file="planning/peak.py",
        old="if gpu.is_assumed else",
        new="if False else",
        test="tests/unit/test_gpu_plan.py::"
        "test_a_plan_for_a_gpu_that_is_not_at_hand_says_what_it_assumes",
    ),
    Mutation(
        promise="a plan takes no GPU that torch could not use",
        file="planning/gpu.py",
        old="    if cuda is None:\n",
        new="    if False:\n",
        test="tests/unit/test_gpu_plan.py::test_a_gpu_that_torch_cannot_use_is_told_of",
    ),
    Mutation(
        promise="a GPU's price is multiplied by a GPU's hours",
        file="planning/resolve.py",
        old="assumed=None if gpu is None else assumed_rate(gpu, half=half),",
        new="assumed=None,",
        test="tests/unit/test_gpu_plan.py::"
        "test_a_plan_for_a_gpu_that_is_not_at_hand_says_what_it_assumes",
    ),
    Mutation(
        promise="a cost of an assumed rate says so",
        file="planning/budget.py",
        old='per hour{at_rate}"',
        new='per hour"',
        test="tests/unit/test_gpu_plan.py::"
        "test_cost_and_energy_say_that_their_time_is_of_an_assumed_rate",
    ),
    Mutation(
        promise="a measured cost does not say that it is of an assumed rate",
        file="planning/probed.py",
        old="formula = old.formula.partition(AT_ASSUMED)[0]",
        new="formula = old.formula",
        test="tests/unit/test_gpu_plan.py::"
        "test_cost_and_energy_say_that_their_time_is_of_an_assumed_rate",
    ),
    Mutation(
        promise="a launch on a CPU is laid by its container's memory",
        file="planning/machine.py",
        old="for size in (_of_machine(), *(limit for limit, _ in _groups())) if size]",
        new="for size in (_of_machine(),) if size]",
        test="tests/unit/test_machine.py::test_a_launch_is_laid_by_the_containers_limit",
    ),
    Mutation(
        promise="memory's limits of cgroups' first version are regarded",
        file="planning/machine.py",
        old='    yield _GROUP / "memory"\n',
        new="",
        test="tests/unit/test_machine.py::"
        "test_a_containers_limit_of_either_version_is_all_that_there_is",
    ),
    Mutation(
        promise="the allocator's share of what eager blocks keep is that of launches",
        file="planning/memory.py",
        old="_FRAGMENTATION_OF_EAGER, _FRAGMENTATION_ON_CPU = 1.1, 0.2",
        new="_FRAGMENTATION_OF_EAGER, _FRAGMENTATION_ON_CPU = 0.2, 0.2",
        test="tests/unit/test_plan.py::test_peak_memory_by_hand",
    ),
    Mutation(
        promise="arrays that glibc maps each by itself leave nothing unused between them",
        file="planning/memory.py",
        old=" if size < _MAPPED_BYTES)",
        new=")",
        test="tests/unit/test_training_placement.py::"
        "test_what_is_mapped_by_itself_leaves_nothing_between_and_a_compiled_loss_takes_two_arrays",
    ),
    Mutation(
        promise="a compiled chunk of the loss is counted with an array for its gradient",
        file="planning/memory.py",
        old="(chunk, chunk) if shape.compiled else",
        new="(chunk, block, block) if shape.compiled else",
        test="tests/unit/test_training_placement.py::"
        "test_what_is_mapped_by_itself_leaves_nothing_between_and_a_compiled_loss_takes_two_arrays",
    ),
    Mutation(
        promise="the gradient of a chunk is gone before the next one's is taken",
        file="model/chunked_loss.py",
        old="            del raw, gradient\n",
        new="",
        test="tests/parity/test_chunked_loss.py::"
        "test_the_gradient_of_a_chunk_is_gone_before_the_next_ones_is_taken",
    ),
    Mutation(
        promise="the plan's estimate on a CPU regards compiled blocks",
        file="planning/peak.py",
        old="compiled=compiles_blocks(training, science, model, device)",
        new="compiled=False",
        test="tests/unit/test_training_placement.py::test_the_plan_estimates_what_a_launch_on_a_cpu_is_laid_as",
    ),
    Mutation(
        promise="blocks without a gate are not counted as keeping less, compiled",
        file="planning/memory.py",
        old="shape.compiled and of_block.is_gated",
        new="shape.compiled",
        test="tests/unit/test_training_placement.py::test_compiled_blocks_keep_less_where_they_are_gated",
    ),
    Mutation(
        promise="the compiler's own memory is counted on a CPU",
        file="planning/memory.py",
        old="self.fragmentation + self.compiler",
        new="self.fragmentation",
        test="tests/unit/test_training_placement.py::test_compiled_blocks_keep_less_where_they_are_gated",
    ),
    Mutation(
        promise="comparisons count retention's memory once",
        file="comparison/metrics.py",
        old='of["peak memory"] / 2**20',
        new='(of["peak memory"] + retained) / 2**20',
        test="tests/unit/test_retention_plan.py::test_comparisons_count_retention_once_with_a_probe_and_without",
    ),
    Mutation(
        promise="after a probe evaluations take what was measured of one",
        file="planning/probed.py",
        old='update={"all_s": measure.tokens * measure.times * token_s}',
        new='update={"all_s": None}',
        test="tests/unit/test_probe.py::test_evaluations_take_as_long_as_the_one_that_was_measured",
    ),
    Mutation(
        promise="after a probe each evaluation's time is shown as measured",
        file="reporting/evaluation_terminal.py",
        old="_by_compute(plan, measure) if measure.all_s is None else measure.all_s",
        new="_by_compute(plan, measure)",
        test="tests/unit/test_evaluation_plan.py::test_after_a_probe_the_time_is_that_of_the_evaluation_that_was_measured",
    ),
    Mutation(
        promise="before a probe an evaluation's time is its share of all compute",
        file="reporting/evaluation_terminal.py",
        old='for name, value in whole.items() if name.endswith(" compute")',
        new='for name, value in whole.items() if name[0] != "M" and name.endswith(" compute")',
        test="tests/unit/test_evaluation_plan.py::test_before_it_is_by_compute_all_of_which_is_in_the_plans_time",
    ),
    Mutation(
        promise="no line leads from the base to a run that began elsewhere",
        file="comparison/matched.py",
        old="        if from_base or step > 0\n",
        new="",
        test="tests/unit/test_matched_forgetting.py",
    ),
    Mutation(
        promise="seeds where an arm never learned are told",
        file="comparison/verdict.py",
        old="        if lacking:\n            named",
        new="        if False:\n            named",
        test="tests/unit/test_matched_forgetting.py",
    ),
    Mutation(
        promise="two arms are matched at what both have learned",
        file="comparison/matched.py",
        old="    level = min(max(place.adaptation for place in places) for places in (own, other))",
        new="    level = max(place.adaptation for place in own)",
        test="tests/unit/test_matched_forgetting.py",
    ),
    Mutation(
        promise="forgetting is read between evaluations, where as much was learned",
        file="comparison/matched.py",
        old="            return before.forgetting + part * (place.forgetting - before.forgetting)",
        new="            return place.forgetting",
        test="tests/unit/test_matched_forgetting.py",
    ),
    Mutation(
        promise="a file that two folders lead to is one file",
        file="corpus/inputs.py",
        old="                folders[folder] = os.path.realpath(folder)",
        new="                folders[folder] = os.path.abspath(folder)",
        test="tests/unit/test_corpus_sources.py::test_a_file_of_a_folder_that_has_two_names_is_one_file",
    ),
    Mutation(
        promise="a compiler of blocks is heard in its reason alone",
        file="model/compiled.py",
        old="    with evaluating(model), quiet_compiler():\n",
        new="    with evaluating(model):\n",
        test="tests/parity/test_compiled.py::"
        "test_a_compiler_that_fails_is_heard_in_the_reason_alone",
    ),
    Mutation(
        promise="a compiler of the loss is heard in its reason alone",
        file="model/head_loss.py",
        old="        with evaluating(model), quiet_compiler():\n",
        new="        with evaluating(model):\n",
        test="tests/parity/test_compiled.py::"
        "test_a_compiler_that_fails_is_heard_in_the_reason_alone",
    ),
    Mutation(
        promise="a compiler's words are let through where they are asked for",
        file="model/compiled.py",
        old='    if "TORCH_LOGS" in os.environ:\n',
        new="    if False:\n",
        test="tests/parity/test_compiled.py::"
        "test_a_compiler_that_fails_is_heard_in_the_reason_alone",
    ),
    Mutation(
        promise="why blocks are not compiled is told without what is for torch's developers",
        file="model/compiled.py",
        old="else _ASIDE.split(str(error), maxsplit=1)[0]",
        new="else str(error)",
        test="tests/parity/test_compiled.py::"
        "test_a_compiler_that_fails_is_heard_in_the_reason_alone",
    ),
    Mutation(
        promise="what takes no gradient runs by the blocks as they are",
        file="model/compiled.py",
        old="        if not torch.is_grad_enabled():\n            return own(",
        new="        if False:\n            return own(",
        test="tests/parity/test_compiled.py::test_what_takes_no_gradient_runs_as_it_is",
    ),
    Mutation(
        promise="a compiled block that comes to something else is not used",
        file="model/compiled.py",
        old="                if not off <= _tolerance(expected):",
        new="                if False:",
        test="tests/parity/test_compiled.py::"
        "test_blocks_that_come_to_something_else_stay_as_they_are",
    ),
    Mutation(
        promise="blocks that cannot be compiled with dropout are told before the first step",
        file="model/compiled.py",
        old="                part.train()\n                _taken(part, arguments, named)\n",
        new="                pass\n",
        test="tests/parity/test_compiled.py::"
        "test_blocks_that_cannot_be_compiled_with_dropout_stay_as_they_are",
    ),
    Mutation(
        promise="why blocks with dropout are not compiled is told in our words",
        file="model/compiled.py",
        old='    told = raised["told"] if raised else',
        new="    told =",
        test="tests/parity/test_compiled.py::"
        "test_blocks_that_cannot_be_compiled_with_dropout_stay_as_they_are",
    ),
    Mutation(
        promise="the norm after the blocks is compiled with them, and held against itself",
        file="model/compiled.py",
        old="    return [found for name, found in body.named_children() if name in _LAST_NORMS]\n",
        new="    return []\n",
        test="tests/parity/test_compiled.py::"
        "test_the_last_norm_is_compiled_and_held_against_itself[gpt_neox]",
    ),
    Mutation(
        promise="a compiled loss that differs is not used",
        file="model/head_loss.py",
        old="                if not _agree(ours, own, tolerance):",
        new="                if False:",
        test="tests/parity/test_compiled.py::test_a_compiled_loss_that_differs_is_not_used",
    ),
    Mutation(
        promise="documents of another number need no other graph",
        file="model/compiled.py",
        old="            torch._dynamo.maybe_mark_dynamic(bounds, 0)",
        new="            torch._dynamo.mark_static(bounds, 0)",
        test="tests/parity/test_compiled.py::"
        "test_layers_share_a_graph_whatever_documents_there_are",
    ),
    Mutation(
        promise="units that gain nothing in bf16 are left alone",
        file="training/placement.py",
        old="gain(device.type) < _LEAST_HALF_GAIN",
        new="False",
        test="tests/unit/test_training_placement.py::"
        "test_units_that_gain_nothing_are_left_alone_unless_asked_for",
    ),
    Mutation(
        promise="a GPU takes the most sequences at a time that the estimate says fit",
        file="planning/fitting.py",
        old="sorted(sizes, reverse=True)",
        new="sorted(sizes)",
        test="tests/unit/test_training_placement.py::"
        "test_a_gpu_takes_the_most_sequences_whose_estimate_leaves_a_tenth",
    ),
    Mutation(
        promise="a GPU takes no more at a time than gained something",
        file="planning/fitting.py",
        old=" if size <= most)",
        new=")",
        test="tests/unit/test_training_placement.py::"
        "test_a_gpu_takes_no_more_at_a_time_than_gained_something",
    ),
    Mutation(
        promise="a GPU's room for what retention keeps beside the model is left free",
        file="planning/fitting.py",
        old=" - retention_cost(science, model).num_bytes / num_shards",
        new="",
        test="tests/unit/test_training_placement.py::"
        "test_a_gpu_takes_the_most_sequences_whose_estimate_leaves_a_tenth",
    ),
    Mutation(
        promise="a GPU's memory is held to gradients and moments of what trains",
        file="training/placement.py",
        old="    trained = num_trained_at_a_time(science, model)\n",
        new="    trained = model.num_parameters\n",
        test="tests/unit/test_training_placement.py::"
        "test_a_gpu_needs_gradients_and_moments_of_what_trains_alone",
    ),
    Mutation(
        promise="the estimate of a micro-batch is of gradients and moments of what trains",
        file="planning/fitting.py",
        old="    trained = num_trained_at_a_time(science, model)\n",
        new="    trained = model.num_parameters\n",
        test="tests/unit/test_training_placement.py::"
        "test_a_gpu_needs_gradients_and_moments_of_what_trains_alone",
    ),
    Mutation(
        promise="gradients that are kept whole count on every rank",
        file="planning/footprint.py",
        old=" if placement.whole_gradients else 0",
        new=" if False else 0",
        test="tests/unit/test_training_placement.py::"
        "test_gradients_that_are_kept_whole_count_on_every_rank",
    ),
    Mutation(
        promise="how torch allocates a GPU's memory is a person's own where the environment says",
        file="training/placement.py",
        old=" and not _ALLOCATOR_VARIABLES & os.environ.keys()",
        new="",
        test="tests/unit/test_training_placement.py::"
        "test_a_gpus_memory_grows_in_place_unless_the_environment_says_otherwise",
    ),
    Mutation(
        promise="Muon leaves embeddings and head to AdamW",
        file="planning/muon.py",
        old="return len(shape) == 2 and layer_of(name) is not None",
        new="return len(shape) == 2",
        test="tests/parity/test_muon.py::"
        "test_blocks_matrices_have_one_moment_and_the_rest_adamws_two",
    ),
    Mutation(
        promise="a step that is not finite does not reach Muon's momentum",
        file="training/muon.py",
        old="momentum.copy_(torch.where(skip, momentum, moved))",
        new="momentum.copy_(moved)",
        test="tests/parity/test_muon.py::test_a_masked_step_changes_no_bit",
    ),
    Mutation(
        promise="ranks make whole matrices orthogonal, not their own rows",
        file="training/muon.py",
        old="    if not isinstance(parameter, DTensor):\n        return part\n",
        new="    return part\n",
        test="tests/parity/test_ranks.py::test_ranks_take_the_step_of_one_process",
    ),
    Mutation(
        promise="Muon of an adapter's factors is refused",
        file="recipe/contradictions.py",
        old='    if "adapter" in _table(tree, "parameters"):\n',
        new="    if False:\n",
        test="tests/unit/test_muon_plan.py::test_what_does_not_go_with_it_is_refused",
    ),
    Mutation(
        promise="a run that has begun is probed as it is laid, and goes on so",
        file="stages/probe_search.py",
        old="    if begun is not None and begun_way is not None and begun.device_name == device:\n"
        "        return\n",
        new="",
        test="tests/unit/test_probe.py::test_a_run_that_has_begun_keeps_its_way_on_its_device",
    ),
    Mutation(
        promise="selective checkpointing keeps attention by torch's kernel for documents",
        file="model/blocks.py",
        old="operator in _KEPT or operator.name() in _KEPT_NAMES",
        new="operator in _KEPT",
        test="tests/parity/test_blocks.py::"
        "test_attention_by_torchs_kernel_for_documents_is_kept[selective-2]",
    ),
    Mutation(
        promise="a run that has begun is probed by what its recipe names by now",
        file="stages/probe_search.py",
        old="training.micro_batch_sequences or begun.micro_batch_sequences",
        new="begun.micro_batch_sequences",
        test="tests/unit/test_probe.py::test_a_run_that_has_begun_otherwise_"
        "than_the_recipe_says_by_now_is_probed_by_the_recipe",
    ),
    Mutation(
        promise="what trains otherwise by phases is counted at most at a time, as a plan does",
        file="planning/selection.py",
        old="    if at_a_time:\n",
        new="    if not at_a_time:\n",
        test="tests/unit/test_trainable.py::test_of_halves_that_take_turns_one_has_moments",
    ),
    Mutation(
        promise="a probe of another kind of device does not correct a plan",
        file="planning/probed.py",
        old="    if is_of_planned_device(gpu, probe.device, probe.device_name):\n",
        new="    if True:\n",
        test="tests/unit/test_probe.py::"
        "test_a_probe_of_another_kind_of_device_than_the_plans_corrects_nothing",
    ),
    Mutation(
        promise="a GPU that torch cannot use is told of, by a plan and by a launch",
        file="planning/gpu.py",
        old="    if newest < cuda:\n",
        new="    if False:\n",
        test="tests/unit/test_gpu_plan.py::test_a_gpu_that_torch_cannot_use_is_told_of",
    ),
    Mutation(
        promise="a plan is for the GPU that the recipe speaks of, not for a laptop's own",
        file="planning/gpu.py",
        old="(found := gpu_at_hand()) is not None and _is_meant(found, hardware)",
        new="(found := gpu_at_hand()) is not None",
        test="tests/unit/test_gpu_plan.py::"
        "test_a_laptops_own_gpu_is_not_the_one_that_the_recipe_speaks_of",
    ),
    Mutation(
        promise="a probe of a run whose micro-batch divides the step no more is a new one's",
        file="stages/probe_search.py",
        old="    if plan.science.sequences_per_step % size:\n",
        new="    if False:\n",
        test="tests/unit/test_probe.py::test_a_run_whose_micro_batch_does_not_divide_"
        "the_step_any_more_is_probed_as_a_new_one",
    ),
    Mutation(
        promise="a probe takes another way only where it is clearly faster",
        file="stages/probe_search.py",
        old="_WORTH = 0.97",
        new="_WORTH = 1.0",
        test="tests/unit/test_probe.py::"
        "test_what_launches_do_anyway_is_kept_where_nothing_is_clearly_faster",
    ),
    Mutation(
        promise="a probe of other settings is not taken over",
        file="stages/plan.py",
        old="probe is not None and probe.key == probe_key(plan)",
        new="probe is not None",
        test="tests/unit/test_probe.py::test_a_launch_takes_over_what_was_chosen_for_its_device",
    ),
    Mutation(
        promise="a block that is computed again is not kept",
        file="model/blocks.py",
        old="return checkpoint(forward, *arguments, use_reentrant=False, **more, **named)",
        new="return forward(*arguments, **named)",
        test="tests/parity/test_blocks.py::"
        "test_each_block_is_computed_once_more_in_the_backward_pass",
    ),
    Mutation(
        promise="blocks are computed again where memory asks for it",
        file="planning/fitting.py",
        old="            if peak <= room:\n",
        new="            if True:\n",
        test="tests/unit/test_training_placement.py::"
        "test_blocks_are_computed_again_only_where_memory_asks_for_it",
    ),
    Mutation(
        promise="the estimate of memory counts what blocks keep",
        file="planning/memory.py",
        old="_GATED_ARRAYS, _PLAIN_ARRAYS = 4, 2",
        new="_GATED_ARRAYS, _PLAIN_ARRAYS = 1, 1",
        test="tests/parity/test_memory.py",
    ),
    Mutation(
        promise="steps that a kill made void are a loss of goodput",
        file="reporting/goodput.py",
        old="repeated_s=max(0.0, all_steps_s - view.training_s),",
        new="repeated_s=0.0,",
        test="tests/unit/test_goodput.py::test_every_second_is_somewhere",
    ),
    Mutation(
        promise="no part of a step waits for the device",
        file="training/step.py",
        old="            total += parts\n",
        new='            total += parts\n            with self.spans("x"):\n'
        "                float(parts.sum())\n",
        test="tests/parity/test_step.py::test_no_part_of_a_step_waits_for_a_number_of_the_device",
    ),
    Mutation(
        promise="batches for a GPU are pinned in the thread that gathers them",
        file="batches/loader.py",
        old="self._executor.submit(self._gathered, step + 1)",
        new="self._executor.submit(self._batches.batch, step + 1)",
        test="tests/unit/test_batches.py::"
        "test_for_a_gpu_batches_are_pinned_where_they_are_gathered",
    ),
    Mutation(
        promise="an exploratory contrast is no test",
        file="comparison/experiment.py",
        old="for contrast in self.contrasts if not contrast.exploratory)",
        new="for contrast in self.contrasts)",
        test="tests/unit/test_comparison_experiment.py::test_exploratory_contrasts_decide_nothing",
    ),
    Mutation(
        promise="a comparison tells what the steps of a run have shown, not what was planned",
        file="comparison/outcomes.py",
        old="        exposure=_exposure(plan, steps),\n",
        new="        exposure=planned_exposure(plan),\n",
        test="tests/unit/test_compare_amended.py::"
        "test_an_amended_run_is_told_with_what_its_steps_have_shown",
    ),
    Mutation(
        promise="what runs share is told as their amendments have left it",
        file="stages/compared_runs.py",
        old="    return amended_plan(run.plan, chain)\n",
        new="    return run.plan\n",
        test="tests/unit/test_compare_amended.py::"
        "test_an_amended_run_is_told_with_what_its_steps_have_shown",
    ),
    Mutation(
        promise="an arm may have a rule of its own on forgetting",
        file="stages/compared_runs.py",
        old='    "on_forgetting",\n',
        new="",
        test="tests/unit/test_compare_amended.py::test_a_rule_on_forgetting_may_be_an_arms_own",
    ),
    Mutation(
        promise="what follows a run that raised its replay counts what that has really shown",
        file="stages/continued.py",
        old="shown_before(amended(trunk.science, amendments), start.step)",
        new="shown_before(trunk.science, start.step)",
        test="tests/unit/test_continuation_amended.py::"
        "test_an_extension_counts_what_a_raised_run_has_shown",
    ),
    Mutation(
        promise="nothing goes on from a checkpoint whose amendments are gone",
        file="stages/continued.py",
        old="    check_start(start.path, run, amendments)\n",
        new="",
        test="tests/unit/test_continuation_amended.py::"
        "test_a_raised_run_whose_amendments_are_gone_goes_on_nowhere",
    ),
    Mutation(
        promise="a run that raised its replay to the ceiling can be branched",
        file="stages/continued_trunk.py",
        old='    if rule.action != "replay" or 0 < share < rule.ceiling:\n',
        new="    if share >= 0:\n",
        test="tests/unit/test_continuation_amended.py::"
        "test_a_branch_of_a_raised_run_saw_what_it_saw_and_keeps_its_blend",
    ),
    Mutation(
        promise="a rule on forgetting counts from where a branch begins",
        file="stages/continued_trunk.py",
        old='update={"after_steps": at_step + rule.after_steps}',
        new='update={"after_steps": rule.after_steps}',
        test="tests/unit/test_continuation_amended.py::"
        "test_a_branch_of_a_raised_run_saw_what_it_saw_and_keeps_its_blend",
    ),
    Mutation(
        promise="a primary figure that no task has is told before anything is trained",
        file="stages/compare.py",
        old="            self._check_harness(planned)\n",
        new="",
        test="tests/unit/test_compare_tasks.py::"
        "test_a_figure_that_no_task_has_is_told_before_anything_is_trained",
    ),
    Mutation(
        promise="what is wrong in a list or table is told with what its field is",
        file="recipe/reading.py",
        old="        if is_name or isinstance(part, int) or model is None:\n",
        new="        if is_name:\n",
        test="tests/unit/test_recipe.py::"
        "test_what_is_wrong_within_a_field_is_told_with_what_the_field_is",
    ),
    Mutation(
        promise="no count of an altered file comes into a plan",
        file="corpus/sealed.py",
        old="if key == name or key.endswith(beside)}",
        new="if key.endswith(beside)}",
        test="tests/unit/test_decontamination.py::"
        "test_no_plan_is_made_with_a_count_that_was_altered",
    ),
    Mutation(
        promise="no plan is drawn from an altered index",
        file="corpus/place.py",
        old="sealed_json(folder, FACTS, beside=_COUNTED)",
        new="sealed_json(folder, FACTS)",
        test="tests/unit/test_decontamination.py::test_no_plan_is_made_on_an_index_that_was_altered",
    ),
    Mutation(
        promise="what a run holds out is not trained on by what follows it",
        file="stages/continued.py",
        old="folder / recipe.prepared_folder, before)",
        new="folder / recipe.prepared_folder)",
        test="tests/unit/test_continuation.py::"
        "test_what_the_run_holds_out_is_not_trained_on_by_what_follows",
    ),
    Mutation(
        promise="text that the run saw and would be measured begins no run",
        file="stages/continued.py",
        old="list(plan.conduct.corpora.values()), {source.name for source in plan.science.sources}",
        new="[], set()",
        test="tests/unit/test_continuation.py::"
        "test_text_that_would_be_measured_though_the_run_saw_it_begins_no_run",
    ),
    Mutation(
        promise="a side that cannot be reached hides no mistake",
        file="corpus/inputs.py",
        old="                faults.append(answer)\n                continue\n",
        new="                raise answer\n",
        test="tests/unit/test_remote_inputs.py::test_a_side_that_fails_hides_no_mistake",
    ),
    Mutation(
        promise="what a kill left half written is taken away",
        file="corpus/sealed.py",
        old="                path.unlink()\n",
        new="                pass\n",
        test="tests/unit/test_corpus_prepare.py::test_what_a_kill_left_half_written_is_taken_away",
    ),
    Mutation(
        promise="an experiment's live page says nothing of its claim while runs go on",
        file="reporting/experiment_view.py",
        old="return None if is_old or going else record_or_none(",
        new="return record_or_none(",
        test="tests/unit/test_watch_experiment.py::"
        "test_it_shows_the_comparison_once_that_is_concluded",
    ),
    Mutation(
        promise="a live server answers the paths of its table alone",
        file="reporting/live_experiment.py",
        old="if known == path), None)",
        new="if known in path), None)",
        test="tests/unit/test_watch_experiment.py::test_only_the_table_s_paths_are_answered",
    ),
    Mutation(
        promise="watching writes nothing into a run",
        file="training/lock.py",
        old="        return time.time() - path.stat().st_mtime <= STALE_AFTER_S\n",
        new="        return _why_stale(path, None) is None\n",
        test="tests/unit/test_watch_experiment.py::test_a_lock_is_looked_at_and_left_alone",
    ),
    Mutation(
        promise="a gap counts as recovered only where it stays so",
        file="evaluation/forgetting.py",
        old="        if value > tolerance:\n            break\n        recovered = step\n",
        new="        if value <= tolerance:\n            recovered = step\n",
        test="tests/unit/test_gap_figures.py::"
        "test_what_did_not_come_back_is_not_marked_as_if_it_had",
    ),
    Mutation(
        promise="a minus is not crossed by the line at zero",
        file="reporting/intervals.py",
        old='    if layout == "wide":\n        return [(frame.top',
        new="    if layout:\n        return [(frame.top",
        test="tests/unit/test_reporting_figures.py::"
        "test_two_contrasts_of_one_arm_can_be_told_apart_and_no_minus_is_crossed",
    ),
    Mutation(
        promise="the name of an arm has the room that its heavy letters take",
        file="reporting/pairs.py",
        old="width = min(text_width(name, bold=True), _MOST_LABEL)",
        new="width = min(text_width(name), _MOST_LABEL)",
        test="tests/unit/test_reporting_figures.py::"
        "test_names_of_many_arms_at_one_place_stay_apart_and_inside",
    ),
    Mutation(
        promise="no label of an axis touches the next",
        file="reporting/figures.py",
        old="len(ticks) < 3 or room <= gap:",
        new="room > 0:",
        test="tests/unit/test_reporting_figures.py::test_no_label_of_an_axis_touches_the_next",
    ),
    Mutation(
        promise="the gap's figure has the control of the run's own comparison beside it",
        file="reporting/gap_figures.py",
        old="if (curve.domain, curve.metric) == (domain, _METRIC)",
        new="if False",
        test="tests/unit/test_gap_figures.py::test_the_comparison_s_control_stands_beside_the_run",
    ),
    Mutation(
        promise="runs that go on do not move an arm's mean",
        file="reporting/arm_curves.py",
        old="in_front = finished or [",
        new="in_front = every or [",
        test="tests/unit/test_gap_figures.py::"
        "test_runs_that_go_on_do_not_move_the_mean_of_those_that_ended",
    ),
    Mutation(
        promise="no record of a run makes a link that acts",
        file="reporting/membership.py",
        old="quote(member.page)",
        new="member.page",
        test="tests/unit/test_gap_figures.py::test_no_record_makes_a_link_that_acts",
    ),
    Mutation(
        promise="every changed place of a source is told, though a manifest is gone",
        file="corpus/sealed.py",
        old="            problems.extend(error.problems)\n",
        new="            raise error\n",
        test="tests/unit/test_decontamination.py::"
        "test_every_changed_place_of_a_source_is_told_though_a_manifest_is_gone",
    ),
    Mutation(
        promise="a piece of scores that was damaged is scored again",
        file="corpus/scores.py",
        old='    arrays = load_arrays(path, ["scores"])\n',
        new='    arrays = {"scores": np.frombuffer(path.read_bytes().partition(b"NUMPY")[2][122:]'
        "[: 8 * num_documents]).copy()} if path.exists() else None\n",
        test="tests/unit/test_quality.py::test_what_was_scored_before_a_kill_is_not_scored_again",
    ),
    Mutation(
        promise="a shortfall of caps names what the run it goes on from took of them",
        file="planning/shares.py",
        old="{_beside(shown_before.get(name, 0) * length)}",
        new="",
        test="tests/unit/test_blends.py::"
        "test_unimax_names_what_the_run_it_goes_on_from_took_of_a_cap",
    ),
    Mutation(
        promise="a task's bits per byte are no text of a comparison",
        file="comparison/metrics.py",
        old='        if metric == "bits_per_byte" and record.role != "task"\n',
        new='        if metric == "bits_per_byte"\n',
        test="tests/unit/test_comparison_verdict.py::"
        "test_every_kind_of_record_has_a_name_and_a_direction",
    ),
    Mutation(
        promise="what is forgotten counts after as many evaluations as the recipe says",
        file="evaluation/forgetting_rule.py",
        old="is_due = in_a_row >= rule.patience",
        new="is_due = in_a_row >= 1",
        test="tests/unit/test_on_forgetting.py::test_it_acts_after_enough_evaluations_in_a_row",
    ),
    Mutation(
        promise="the first jump is let pass where the recipe says so",
        file="evaluation/forgetting_rule.py",
        old="after = max(rule.after_steps, since_step)",
        new="after = since_step",
        test="tests/unit/test_on_forgetting.py::"
        "test_the_first_jump_and_what_led_to_the_last_act_do_not_count",
    ),
    Mutation(
        promise="a raised share never exceeds its ceiling",
        file="training/forgetting.py",
        old="share = min(self._rule.ceiling, now + self._rule.add)",
        new="share = now + self._rule.add",
        test="tests/unit/test_on_forgetting.py::"
        "test_the_share_is_raised_by_amendments_up_to_its_ceiling",
    ),
    Mutation(
        promise="what an evaluation led to before a kill is not done twice",
        file="training/forgetting.py",
        old="if step not in self._steps or step in state.amendments.replay_steps():",
        new="if step not in self._steps:",
        test="tests/unit/test_on_forgetting.py::"
        "test_a_kill_between_evaluation_amendment_and_checkpoint_changes_nothing",
    ),
    Mutation(
        promise="what is dealt seldom still is where replay takes nearly all",
        file="planning/amended.py",
        old="least = 1 / (CYCLE - len(wanted))",
        new="least = 1 / CYCLE",
        test="tests/properties/test_amended_order.py"
        "::test_what_is_dealt_seldom_still_is_where_replay_takes_nearly_all",
    ),
    Mutation(
        promise="a raised share governs from its step on",
        file="planning/amended.py",
        old="edges = sorted({phase.start_step, phase.end_step, *inner})",
        new="edges = sorted({phase.start_step, phase.end_step})",
        test="tests/unit/test_on_forgetting.py::"
        "test_the_share_is_raised_by_amendments_up_to_its_ceiling",
    ),
    Mutation(
        promise="a run that forgets stops where the recipe says so",
        file="training/run.py",
        old="stops = self.agreed.stop_signal is not None or self.has_forgotten",
        new="stops = self.agreed.stop_signal is not None",
        test="tests/unit/test_on_forgetting.py::"
        "test_it_stops_with_a_checkpoint_and_goes_on_when_launched_again",
    ),
    Mutation(
        promise="evaluation keeps to its share of the compute",
        file="planning/evaluation.py",
        old="    if found.num_tokens <= budget:\n        return found\n",
        new="    if True:\n        return found\n",
        test="tests/unit/test_evaluation_plan.py::test_a_cap_makes_evaluations_rarer_first",
    ),
    Mutation(
        promise="a control is taken off step by step",
        file="evaluation/against.py",
        old="(mine[k].value - mine[0].value - (theirs[k].value - theirs[0].value))",
        new="(mine[k].value - mine[0].value)",
        test="tests/unit/test_against.py::test_the_controls_gap_is_taken_off_step_by_step",
    ),
    Mutation(
        promise="where joint training gains nothing there is no fraction",
        file="evaluation/against.py",
        old="/ gained if gained > 0 else None",
        new="/ gained if gained else None",
        test="tests/unit/test_against.py::test_the_recovered_fraction_by_hand",
    ),
    Mutation(
        promise="a tie between sentences counts a half",
        file="evaluation/tasks.py",
        old="np.where(good == bad, 0.5, 0.0)",
        new="np.where(good == bad, 1.0, 0.0)",
        test="tests/unit/test_evaluation_tasks.py::"
        "test_of_a_pair_the_whole_sentences_are_compared_and_ties_count_a_half",
    ),
    Mutation(
        promise="tasks of the harness are looked for in what is trained on",
        file="evaluation/harness.py",
        old="                    texts += _texts_of(task, document)\n",
        new="                    _texts_of(task, document)\n",
        test="tests/unit/test_decontamination.py::test_tasks_of_the_harness_count_too",
    ),
    Mutation(
        promise="other items of the harness's tasks are looked for again",
        file="evaluation/harness_index.py",
        old='return fingerprint([wanted.model_dump(mode="json"), version, own])',
        new='return fingerprint([wanted.model_dump(mode="json"), version])',
        test="tests/unit/test_decontamination.py::test_tasks_of_the_harness_count_too",
    ),
    Mutation(
        promise="control characters of a document never reach the terminal",
        file="reporting/inspect_terminal.py",
        old="text.append(harmless(piece.text), style=style)",
        new="text.append(piece.text, style=style)",
        test="tests/unit/test_inspect.py::test_control_characters_of_a_document_never_reach_the_terminal",
    ),
    Mutation(
        promise="the second set of control characters acts as well",
        file="reporting/text.py",
        old="\\x7f-\\x9f\\xad",
        new="\\x7f\\xad",
        test="tests/unit/test_inspect.py::test_what_acts_is_made_visible_and_what_shows_stays",
    ),
    Mutation(
        promise="errors show what they quote, and do not obey it",
        file="cli.py",
        old="{harmless(message)}",
        new="{message}",
        test="tests/unit/test_inspect.py::test_neither_rejects_errors_nor_traces_let_them_through",
    ),
    Mutation(
        promise="an id of a document is no markup and no escape in a trace",
        file="stages/trace.py",
        old="*(Text(harmless(str(row[name]))) for name in names)",
        new="*(str(row[name]) for name in names)",
        test="tests/unit/test_inspect.py::test_a_trace_shows_ids_as_they_are",
    ),
    Mutation(
        promise="a licence that a document claims does not act on the terminal",
        file="stages/console.py",
        old="{name}: {harmless(said)}",
        new="{name}: {said}",
        test="tests/unit/test_inspect.py::test_the_overview_has_ledger_lengths_and_selection",
    ),
    Mutation(
        promise="a script in a document shows as text",
        file="reporting/page.py",
        old="autoescape=True",
        new="autoescape=False",
        test="tests/unit/test_inspect.py::test_a_script_in_a_document_is_text_on_the_page",
    ),
    Mutation(
        promise="a document is named by what `prepare` numbered it, whatever a selection keeps",
        file="corpus/looks.py",
        old="document = index if self.selected is None else int(self.selected[index])",
        new="document = index",
        test="tests/unit/test_inspect.py::test_a_phase_s_windows_are_those_that_trace_tells_of",
    ),
    Mutation(
        promise="what is shown is never another tokenizer's reading",
        file="corpus/spelling.py",
        old="if facts.tokenizer_fingerprint != found:",
        new="if not found:",
        test="tests/unit/test_inspect.py::test_another_tokenizer_is_an_error_with_both_values",
    ),
    Mutation(
        promise="text and scores of another tokenizer are not trained on",
        file="corpus/sealed.py",
        old="    note_other_tokenizer(folder, facts, problems)\n",
        new="",
        test="tests/unit/test_tokenizer_fingerprints.py::test_text_and_scores_of_another_tokenizer_are_refused",
    ),
    Mutation(
        promise="bins of another tokenizer are told with both values",
        file="corpus/bins.py",
        old="    note_other_tokenizer(folder, facts, problems)\n",
        new="",
        test="tests/unit/test_tokenizer_fingerprints.py::test_bins_of_another_tokenizer_are_refused",
    ),
    Mutation(
        promise="a model that reads ids otherwise is not measured",
        file="stages/evaluate.py",
        old="        if others:\n",
        new="        if not others:\n",
        test="tests/unit/test_tokenizer_fingerprints.py::test_another_model_is_measured_where_its_ids_are_the_plan_s",
    ),
    Mutation(
        promise="what is encoded ahead is taken in order",
        file="corpus/ahead.py",
        old="                yield from _items(begun.popleft())\n        while",
        new="                yield from _items(begun.pop())\n        while",
        test="tests/unit/test_corpus_prepare.py::test_batches_decide_nothing",
    ),
    Mutation(
        promise="a file without a document is told, whatever is under way",
        file="corpus/encoding.py",
        old="                num_read += 1\n",
        new="                num_read += self.meter.documents == -1\n",
        test="tests/unit/test_corpus_prepare.py::test_batches_decide_nothing",
    ),
    Mutation(
        promise="a document with 13 words of a task in a row is dropped",
        file="corpus/contamination.py",
        old="        add(RUN_WORDS, runs_of(words, RUN_WORDS)[0], owner)\n",
        new="",
        test="tests/unit/test_decontamination.py::test_texts_with_items_are_found_as_a_search_by_hand_finds_them",
    ),
    Mutation(
        promise="short items of a task are looked for as a whole",
        file="corpus/contamination.py",
        old="for length in range(LEAST_WORDS, RUN_WORDS):",
        new="for length in range(RUN_WORDS, RUN_WORDS):",
        test="tests/unit/test_decontamination.py::test_texts_with_items_are_found_as_a_search_by_hand_finds_them",
    ),
    Mutation(
        promise="tasks are found across case",
        file="corpus/words.py",
        old="_WORD.findall(text.casefold())",
        new="_WORD.findall(text)",
        test="tests/unit/test_decontamination.py::test_planted_text_is_dropped_and_counted_and_the_rest_stays",
    ),
    Mutation(
        promise="runs of words do not go from one text into the next",
        file="corpus/words.py",
        old="np.flatnonzero(left >= length)",
        new="np.flatnonzero(left >= 1)",
        test="tests/unit/test_decontamination.py::test_runs_are_those_of_each_text_alone",
    ),
    Mutation(
        promise="what many documents share is no copy of held-out text",
        file="corpus/contamination.py",
        old="    telling = ~common[matches.entries]\n",
        new="    telling = common[matches.entries] | ~common[matches.entries]\n",
        test="tests/unit/test_decontamination.py::test_a_licence_that_many_documents_have_is_no_copy",
    ),
    Mutation(
        promise="a part of a held-out document is a copy of it too",
        file="corpus/contamination.py",
        old="copied = held | made_of[of_text]",
        new="copied = held",
        test="tests/unit/test_decontamination.py::test_copies_are_found_as_a_search_by_hand_finds_them",
    ),
    Mutation(
        promise="decontamination is on by default",
        file="recipe/curate.py",
        old='        ["tasks", "held-out"],\n',
        new="        False,\n",
        test="tests/unit/test_decontamination.py::test_planted_text_is_dropped_and_counted_and_the_rest_stays",
    ),
    Mutation(
        promise="what is dropped is not trained on",
        file="corpus/views.py",
        old="kept = kept[~np.isin(kept, dropped_documents(drop), assume_unique=True)]",
        new="kept = kept[np.isin(kept, kept, assume_unique=True)]",
        test="tests/unit/test_decontamination.py::test_planted_text_is_dropped_and_counted_and_the_rest_stays",
    ),
    Mutation(
        promise="where nothing is dropped the tokens are those of the whole source",
        file="corpus/drops.py",
        old="    if not drop.num_documents:\n        return facts.model_copy(update=told)\n",
        new="",
        test="tests/unit/test_decontamination.py::test_where_nothing_is_dropped_the_tokens_are_those_of_the_whole_source",
    ),
    Mutation(
        promise="what was looked through before a kill is not looked through again",
        file="corpus/decontaminate.py",
        old="        if self.read(number) is None:\n",
        new="        if True:\n",
        test="tests/unit/test_decontamination.py::test_what_was_looked_through_before_a_fault_is_not_looked_through_again",
    ),
    Mutation(
        promise="drops by curation are no damage",
        file="corpus/rejected.py",
        old="reason in _HARMLESS or is_curated(reason)",
        new="reason in _HARMLESS",
        test="tests/unit/test_filters.py::test_what_is_left_out_is_counted_kept_to_be_looked_at_and_no_error",
    ),
    Mutation(
        promise="another filter makes other shards",
        file="corpus/place.py",
        old='**({"curate": curate} if curate else {}),',
        new="",
        test="tests/unit/test_filters.py::test_a_filter_makes_other_tokens_and_decontamination_does_not",
    ),
    Mutation(
        promise="one document of a cluster of copies stays",
        file="corpus/duplicates.py",
        old="stays, *go = [member.document for member in group]",
        new="stays, *go = [member.document for member in group for _ in range(2)]",
        test="tests/unit/test_duplicates.py::test_near_copies_are_found_as_often_as_their_likeness_says",
    ),
    Mutation(
        promise="what a task elsewhere finds wrong is told",
        file="corpus/executors.py",
        old="        if problems:\n            raise CorpusError(dict.fromkeys(problems))\n",
        new="",
        test="tests/unit/test_executors.py::test_what_tasks_find_wrong_is_told_as_by_one_process",
    ),
    Mutation(
        promise="a Slurm job under way is not submitted again",
        file="corpus/executors.py",
        old=" and not is_under_way(job, instead=_INSTEAD):",
        new=":",
        test="tests/unit/test_executors.py::test_a_job_under_way_is_not_submitted_again",
    ),
    Mutation(
        promise="a Slurm job that cannot be asked for is not submitted again",
        file="corpus/squeue.py",
        old="if said.returncode and _FORGOTTEN not in said.stderr:",
        new="if said.returncode and False:",
        test="tests/unit/test_executors.py::"
        "test_a_job_that_slurm_cannot_be_asked_for_is_not_submitted_again",
    ),
    Mutation(
        promise="runs that Slurm may have are not submitted again",
        file="stages/slurm.py",
        old="    if is_under_way(str(number), instead=_INSTEAD):",
        new="    if False:",
        test="tests/unit/test_comparison_jobs.py::"
        "test_a_job_that_slurm_cannot_be_asked_for_is_not_submitted_again",
    ),
    Mutation(
        promise="short runs of a search do nothing about what they forget",
        file="stages/short_run.py",
        old='                    "on_forgetting": ForgettingRecipe(),\n',
        new="",
        test="tests/unit/test_tune.py::test_a_short_run_does_nothing_about_what_is_forgotten",
    ),
    Mutation(
        promise="short runs of a search are measured by all that the whole run is",
        file="stages/short_run.py",
        old='                    "max_share": None,\n',
        new="",
        test="tests/unit/test_tune.py::test_a_cap_on_the_whole_runs_evaluation_is_not_a_short_runs",
    ),
    Mutation(
        promise="questions of which none changed are not kept beyond what so many tell",
        file="evaluation/forgetting.py",
        old="        return -most, most\n",
        new="        return 0.0, 0.0\n",
        test="tests/unit/test_evaluation_forgetting.py::"
        "test_questions_that_none_is_answered_otherwise_tell_what_so_many_can",
    ),
    Mutation(
        promise="a harness that is not installed is told in words wherever it is needed",
        file="stages/harness.py",
        old="    except ImportError as error:\n",
        new="    except ZeroDivisionError as error:\n",
        test="tests/unit/test_evaluation_plan.py::"
        "test_a_plan_of_another_machine_needs_the_harness_here",
    ),
    Mutation(
        promise="a submission to Slurm that is cut off is not repeated",
        file="stages/slurm.py",
        old="    _note(folder, None, runs)\n",
        new="",
        test="tests/unit/test_comparison_jobs.py::"
        "test_a_submission_that_is_cut_off_is_not_repeated",
    ),
    Mutation(
        promise="a preparation's submission to Slurm that is cut off is not repeated",
        file="corpus/executors.py",
        old='            write_json(folder / _JOB, {"job_id": None})\n',
        new="            job = None\n",
        test="tests/unit/test_executors.py::test_a_submission_that_is_cut_off_is_not_repeated",
    ),
    Mutation(
        promise="what a job found wrong is told though its number was not noted",
        file="corpus/executors.py",
        old="not noted.\n            step.raise_faults()\n",
        new="not noted.\n",
        test="tests/unit/test_executors.py::test_what_a_job_without_a_number_found_wrong_is_told",
    ),
    Mutation(
        promise="a preparation's submission that is refused leaves no word of a job",
        file="corpus/executors.py",
        old="                (folder / _JOB).unlink()\n",
        new="",
        test="tests/unit/test_executors.py::"
        "test_a_submission_that_is_refused_leaves_no_word_of_a_job",
    ),
    Mutation(
        promise="a task on Slurm has the processors that were asked for",
        file="corpus/trove_executors.py",
        old='        srun_args={"cpus-per-task": asked.cpus_per_task},\n',
        new="",
        test="tests/unit/test_executors.py::"
        "test_an_array_job_has_a_task_for_each_shard_and_the_same_command_goes_on",
    ),
    Mutation(
        promise="paths with spaces are whole in Slurm's script",
        file="corpus/trove_executors.py",
        old="            quoted, run_script.replace(pickled, shlex.quote(pickled))\n",
        new="            quoted, run_script\n",
        test="tests/unit/test_executors.py::"
        "test_an_array_job_has_a_task_for_each_shard_and_the_same_command_goes_on",
    ),
    Mutation(
        promise="data of the harness's tasks is looked at outside their folder",
        file="evaluation/harness_index.py",
        old="        own |= {os.path.relpath(path, folder): file_sha256(path) for path in named}\n",
        new="",
        test="tests/unit/test_decontamination.py::"
        "test_data_of_the_harness_s_tasks_counts_wherever_it_lies",
    ),
    Mutation(
        promise="an extension's plan has what is measured of the run's own sources",
        file="stages/plan.py",
        old="            measured_before=job.measured_before,\n",
        new="",
        test="tests/unit/test_continuation.py::"
        "test_what_the_run_holds_out_is_not_trained_on_by_what_follows",
    ),
    Mutation(
        promise="an extension's tasks are not called as the run's sources are",
        file="stages/survey.py",
        old="        if name in job.measured_before:\n",
        new="        if False:\n",
        test="tests/unit/test_continuation.py::test_tasks_are_not_called_as_sources_of_the_run_are",
    ),
    Mutation(
        promise="messages hold no NUL, lone surrogate or byte-order mark",
        file="corpus/records.py",
        old='unfit(message["content"], may_be_empty=True) for',
        new="None for",
        test="tests/unit/test_chat_source.py::test_what_no_text_may_hold_no_message_may",
    ),
    Mutation(
        promise="the answers of a selection are those of what it keeps",
        file="corpus/scores.py",
        old='            "num_label_tokens": num_labels,\n',
        new="",
        test="tests/unit/test_chat_source.py::test_of_what_is_kept_the_answers_are_counted",
    ),
    Mutation(
        promise="a selection has bins of its own",
        file="corpus/bins.py",
        old='f"-{facts.tokens[:12]}"',
        new='""',
        test="tests/unit/test_quality.py::test_each_selection_has_bins_of_its_own",
    ),
    Mutation(
        promise="licences are counted over what is kept",
        file="corpus/scores.py",
        old='            "licences": licences,\n',
        new="",
        test="tests/unit/test_quality.py::test_tags_of_what_is_kept_are_counted_and_no_others",
    ),
    Mutation(
        promise="UniMax in an extension counts what the run has shown",
        file="planning/shares.py",
        old="            - shown_before.get(source.name, 0),\n",
        new="            - 0 * shown_before.get(source.name, 0),\n",
        test="tests/unit/test_continuation.py"
        "::test_unimax_in_what_follows_counts_what_the_run_has_shown",
    ),
    Mutation(
        promise="an index of bins with a damaged manifest is made again",
        file="corpus/bins.py",
        old="LookupError, TypeError, CorpusError):\n        return None  # not made",
        new="LookupError, TypeError):\n        return None  # not made",
        test="tests/unit/test_bins.py::test_a_manifest_that_lists_no_files_is_made_again",
    ),
    Mutation(
        promise="small remote files are fetched side by side",
        file="corpus/files.py",
        old="    return side_by_side(asked, files)\n",
        new="    return map(asked, files)\n",
        test="tests/unit/test_remote_inputs.py::test_small_files_are_fetched_side_by_side",
    ),
    Mutation(
        promise="a small remote file that came short is not taken for a whole one",
        file="corpus/files.py",
        old="return content if len(content) == file.size else None",
        new="return content",
        test="tests/unit/test_remote_inputs.py"
        "::test_what_fails_while_it_is_fetched_ahead_is_read_again",
    ),
    Mutation(
        promise="a web server that fails is not told as a file that is not there",
        file="corpus/files.py",
        old="            error = _as_it_is(raised)\n",
        new="            error = raised\n",
        test="tests/unit/test_remote_inputs.py"
        "::test_a_web_server_that_fails_is_no_file_that_is_absent",
    ),
    Mutation(
        promise="what an answer says is not looked for in the token that ends it",
        file="corpus/chat.py",
        old="        spoken = self._without_special_tokens(whole)\n",
        new="        spoken = whole\n",
        test="tests/unit/test_chat_source.py"
        "::test_an_answer_ends_with_its_token_whatever_it_spells",
    ),
    Mutation(
        promise="a recipe that a run spelt out is read again",
        file="recipe/section.py",
        old="getattr(self, name) != fields[name].get_default(call_default_factory=True)",
        new="name in self.model_fields_set",
        test="tests/unit/test_recipe.py::test_a_recipe_as_a_run_keeps_it_is_read_again",
    ),
    Mutation(
        promise="a law of replay is not believed beyond the noise of its measurements",
        file="evaluation/mixture_law.py",
        old="    floor = float(sum(point.standard_error**2 for point in measured))\n",
        new="    floor = 0.0\n",
        test="tests/unit/test_mixture_law.py::test_noise_of_the_evaluation_widens_what_is_said",
    ),
    Mutation(
        promise="the run that checks a law of replay is not in it",
        file="evaluation/replay_search.py",
        old="    check = _check(trials, unseen, seed)\n",
        new="    check = _check([*trials, unseen], unseen, seed)\n",
        test="tests/unit/test_mixture_law.py::"
        "test_a_law_is_held_against_a_run_that_it_has_not_seen",
    ),
    Mutation(
        promise="the live page answers to this machine's names alone",
        file="reporting/watch.py",
        old='if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:',
        new="if False:",
        test="tests/unit/test_watch.py::test_a_foreign_name_is_refused",
    ),
    Mutation(
        promise="the live page is bound to this machine",
        file="reporting/watch.py",
        old='ADDRESS = "127.0.0.1"',
        new='ADDRESS = "0.0.0.0"',
        test="tests/unit/test_watch.py::test_it_is_bound_to_this_machine_alone",
    ),
    Mutation(
        promise="every answer of the live page has its policy",
        file="reporting/watch.py",
        old='    "Content-Security-Policy": _POLICY,\n',
        new="",
        test="tests/unit/test_watch.py::test_every_answer_has_the_policy",
    ),
    Mutation(
        promise="the live page refuses what is neither GET nor HEAD",
        file="reporting/watch.py",
        old="if code == HTTPStatus.NOT_IMPLEMENTED:",
        new="if False:",
        test="tests/unit/test_watch.py::test_other_methods_are_refused",
    ),
    Mutation(
        promise="rendering the live page takes little of the machine's time",
        file="reporting/live_page.py",
        old="max(_LEAST_INTERVAL_S, spent / _MOST_SHARE)",
        new="_LEAST_INTERVAL_S",
        test="tests/unit/test_watch.py::test_rendering_takes_a_twentieth_of_the_time",
    ),
    Mutation(
        promise="packing is best-fit: the fullest bin that has room",
        file="corpus/best_fit.py",
        old="room = length + (fitting & -fitting).bit_length() - 1",
        new="room = length + fitting.bit_length() - 1",
        test="tests/properties/test_best_fit.py::test_the_bins_are_those_of_a_packer_that_looks_at_all",
    ),
    Mutation(
        promise="bins come in the order of the text",
        file="corpus/best_fit.py",
        old="number[np.argsort(first)] = np.arange(num_bins)",
        new="number[:] = np.arange(num_bins)",
        test="tests/properties/test_best_fit.py::test_bins_follow_the_text",
    ),
    Mutation(
        promise="a document is cut only where it is longer than a window",
        file="corpus/bins.py",
        old="    num_pieces = -(-sizes // sequence_length)\n",
        new="    num_pieces = sizes // sequence_length + 1\n",
        test="tests/properties/test_best_fit.py::test_no_token_is_lost_or_doubled",
    ),
    Mutation(
        promise="the last token of packed text is a label, and no input",
        file="corpus/bins.py",
        old="offsets[-1] - 1)",
        new="offsets[-1])",
        test="tests/properties/test_best_fit.py::test_no_token_is_lost_or_doubled",
    ),
    Mutation(
        promise="the label at a cut, or at a document's end, is the text's next token",
        file="corpus/packed.py",
        old="read_into(labels, layout.first + 1,",
        new="read_into(labels, layout.first,",
        test="tests/properties/test_best_fit.py::test_no_token_is_lost_or_doubled",
    ),
    Mutation(
        promise="padding is not learned from",
        file="corpus/packed.py",
        old="np.full(shape, IGNORED_LABEL)",
        new="np.full(shape, PADDING_INPUT)",
        test="tests/unit/test_bins.py::test_a_step_s_batch_counts_text_alone_on_any_number_of_ranks",
    ),
    Mutation(
        promise="padding is a document of its own",
        file="corpus/packed.py",
        old="is_inside = ends < sequence_length",
        new="is_inside = ends < 0",
        test="tests/unit/test_bins.py::test_windows_by_hand",
    ),
    Mutation(
        promise="stored distributions of packed windows are those of their labels",
        file="corpus/packed.py",
        old="self._view.pieces(layout.first + 1,",
        new="self._view.pieces(layout.first,",
        test="tests/unit/test_rehearsal.py::test_the_distribution_is_aligned_with_the_labels_of_packed_windows",
    ),
    Mutation(
        promise="a bin index that changed is not trained on",
        file="corpus/bins.py",
        old="    for name, what in changed_files(folder).items():\n",
        new="    for name, what in dict[str, str]().items():\n",
        test="tests/unit/test_bins.py::test_a_changed_index_is_told_and_made_again",
    ),
    Mutation(
        promise="a plan's bins are those that it was made with",
        file="corpus/bins.py",
        old="found is None or found.fingerprint != planned",
        new="found is None",
        test="tests/unit/test_bins.py::test_an_index_of_other_text_is_not_used",
    ),
    Mutation(
        promise="prepare mends a damaged bin index",
        file="corpus/bins.py",
        old="return None if changed_files(_folder(facts, sequence_length)) else found",
        new="return found",
        test="tests/unit/test_bins.py::test_a_changed_index_is_told_and_made_again",
    ),
    Mutation(
        promise="a plan of packed text counts its bins",
        file="planning/blends.py",
        old="packed.best_fit.num_windows, packed.fingerprint",
        new="packed.contiguous.num_windows, packed.fingerprint",
        test="tests/unit/test_plan.py::test_best_fit_windows_are_the_bins_of_each_source",
    ),
    Mutation(
        promise="what follows a run packs as it does",
        file="planning/continuation.py",
        old='        "packing",\n',
        new="",
        test="tests/unit/test_continuation.py::test_what_does_not_fit_is_told_at_once",
    ),
    Mutation(
        promise="a share of UniMax never passes its cap on epochs",
        file="planning/mixture.py",
        old="min(CYCLE, num_samples * CYCLE // num_slots)",
        new="min(CYCLE, num_samples * CYCLE // num_slots + 1)",
        test="tests/properties/test_mixture.py::test_a_share_within_a_cap_is_dealt_no_more_than_it",
    ),
    Mutation(
        promise="phases by UniMax leave each other their part of a cap",
        file="planning/mixture.py",
        old="caps[name] * num_samples // totals[name]",
        new="caps[name]",
        test="tests/unit/test_blends.py::"
        "test_unimax_shares_caps_between_its_phases_and_leaves_what_is_dealt_by_hand",
    ),
    Mutation(
        promise="what caps cannot fill is an error",
        file="planning/shares.py",
        old="        if dealt.num_short:\n",
        new="        if False:\n",
        test="tests/unit/test_blends.py::test_unimax_by_hand",
    ),
    Mutation(
        promise="repeats are counted from the start of the run",
        file="planning/exposure.py",
        old="        before += count\n",
        new="        before += 0\n",
        test="tests/unit/test_blends.py::test_repeats_are_counted_over_phases",
    ),
    Mutation(
        promise="added tokens keep their ids where a vocabulary grows",
        file="model/vocabulary.py",
        old='        vocabulary.setdefault(added["content"], added["id"])\n',
        new="        pass\n",
        test="tests/unit/test_vocabulary.py::"
        "test_added_tokens_behind_the_vocabulary_keep_their_ids",
    ),
    Mutation(
        promise="a new row is the mean of the rows that it stands for",
        file="model/vocabulary_rows.py",
        old="yield rows.double().mean(dim=0).to(header.dtype)",
        new="yield rows[0].clone()",
        test="tests/unit/test_vocabulary.py::test_as_transformers_loads_it[llama]",
    ),
    Mutation(
        promise="a tokenizer that cuts old text otherwise is not exported",
        file="export/vocabulary.py",
        old="        if not same:\n",
        new="        if False:\n",
        test="tests/unit/test_vocabulary.py::"
        "test_a_tokenizer_that_cuts_old_text_otherwise_is_noticed",
    ),
    Mutation(
        promise="a divergence never takes the loss from all that is to be learned",
        file="planning/distillation.py",
        old="    if set(learned) <= set(used):\n",
        new="    if False:\n",
        test="tests/unit/test_retention_plan.py::test_what_makes_no_sense_is_refused",
    ),
    Mutation(
        promise="text that retention reads stays what it was in what follows a run",
        file="planning/continuation.py",
        old="    if trunk.memory != more.memory:\n",
        new="    if False:\n",
        test="tests/unit/test_continuation.py::test_text_that_retention_reads_stays_what_it_was",
    ),
    Mutation(
        promise="a memory's text is not shown twice within a step",
        file="planning/retention.py",
        old="    if each > sizes[name]:\n",
        new="    if False:\n",
        test="tests/unit/test_retention_plan.py::test_what_makes_no_sense_is_refused",
    ),
    Mutation(
        promise="a step without text of a divergence has none on record",
        file="training/step.py",
        old='figures["distill"] = divergence / held',
        new='figures["distill"] = divergence',
        test="tests/unit/test_retention_distill.py::"
        "test_a_step_without_such_text_has_no_divergence_on_record",
    ),
    Mutation(
        promise="distributions of single documents are not for documents that see each other",
        file="planning/distillation.py",
        old="    if not recipe.batch.mask_documents:\n",
        new="    if False:\n",
        test="tests/unit/test_retention_plan.py::"
        "test_what_was_stored_within_documents_is_not_for_documents_that_see_each_other",
    ),
    Mutation(
        promise="a divergence keeps few arrays of a chunk's logits at a time",
        file="model/chunked_divergence.py",
        old="            del logits, log_q, p, gradient\n",
        new="",
        test="tests/unit/test_chunked_divergence.py::"
        "test_four_arrays_of_a_chunk_s_logits_exist_at_a_time",
    ),
    Mutation(
        promise="a divergence's gradient keeps its size at any temperature",
        file="model/chunked_divergence.py",
        old="gradient = log_q.exp_().sub_(p).mul_(temperature)",
        new="gradient = log_q.exp_().sub_(p)",
        test="tests/unit/test_chunked_divergence.py::test_temperature_two_by_hand",
    ),
    Mutation(
        promise="what stored tokens leave of 1 is shared out as the model itself does",
        file="model/chunked_divergence.py",
        old="log_others.add_(share[:, None]).exp_()",
        new="torch.zeros_like(log_others)",
        test="tests/unit/test_chunked_divergence.py::test_the_likeliest_by_hand",
    ),
    Mutation(
        promise="a text without a next-token loss has none",
        file="retention/distill.py",
        old="return batch.labels.index_fill(0, where, IGNORED_LABEL)",
        new="return batch.labels",
        test="tests/unit/test_retention_distill.py::"
        "test_the_gradient_of_a_step_is_that_of_loss_and_divergence[alone]",
    ),
    Mutation(
        promise="a divergence acts on the sources that it names alone",
        file="retention/distill.py",
        old="if source in self.sources]",
        new="if source >= 0]",
        test="tests/unit/test_retention_distill.py::"
        "test_the_figure_is_the_divergence_of_both_models_own_logits",
    ),
    Mutation(
        promise="a step that does not point against the memory is left as it is",
        file="retention/projection.py",
        old="against = ~(product >= 0) & (square_of_memory > 0)",
        new="against = square_of_memory > 0",
        test="tests/unit/test_retention_projection.py::"
        "test_a_gradient_along_the_memory_is_left_as_it_is",
    ),
    Mutation(
        promise="a step that points against the memory is turned aside",
        file="training/step.py",
        old="gradients.append(local(parameter.grad))",
        new="gradients.append(local(parameter.grad).clone())",
        test="tests/unit/test_retention_projection.py::"
        "test_the_pull_to_the_base_is_turned_aside_too",
    ),
    Mutation(
        promise="an average takes in a share of 1 − decay of each step",
        file="retention/average.py",
        old="lerp_(local(parameter), 1 - self.decay)",
        new="lerp_(local(parameter), self.decay)",
        test="tests/unit/test_retention_average.py::test_an_average_by_hand",
    ),
    Mutation(
        promise="weights come back from their average to the bit",
        file="retention/average.py",
        old="kept.copy_(held)",
        new="pass",
        test="tests/unit/test_retention_average.py::test_an_average_by_hand",
    ),
    Mutation(
        promise="an export of the average is of the average",
        file="stages/trained.py",
        old="read = read_average if average else read_weights",
        new="read = read_weights",
        test="tests/unit/test_retention_average.py::"
        "test_the_average_is_measured_reported_and_exported",
    ),
    Mutation(
        promise="a part of a weight that several ranks have counts once in a penalty",
        file="training/step.py",
        old="shares = {name: share_of_copies(found, state.world) for name, found in named}",
        new="shares = {name: 1.0 for name, _ in named}",
        test="tests/parity/test_retention_ranks.py::"
        "test_copies_over_nodes_hold_on_as_one_process_does",
    ),
    Mutation(
        promise="a rank without text for the teacher lets go of it as the others do",
        file="retention/distill.py",
        old="reshard(self.teacher)  # as theirs: what is gathered is gathered on all",
        new="",
        test="tests/parity/test_retention_ranks.py::"
        "test_ranks_hold_on_to_the_base_as_one_process_does",
    ),
    Mutation(
        promise="L2-SP pulls to the base, not to zero",
        file="retention/anchor.py",
        old="local(parameter) - self.base[name]\n",
        new="local(parameter)\n",
        test="tests/unit/test_retention_anchor.py::test_pulls_by_hand",
    ),
    Mutation(
        promise="EWC weighs each weight by its importance",
        file="retention/anchor.py",
        old="weighed = away * self.fisher[name]",
        new="weighed = away",
        test="tests/unit/test_retention_anchor.py::test_pulls_by_hand",
    ),
    Mutation(
        promise="the gradient of a pull is that of its penalty",
        file="retention/anchor.py",
        old="gradient.add_(weighed, alpha=self.ewc)",
        new="gradient.add_(weighed, alpha=self.ewc / 2)",
        test="tests/unit/test_retention_anchor.py::test_the_gradient_of_a_step_is_that_of_loss_and_penalties",
    ),
    Mutation(
        promise="importance is of single sequences, per token",
        file="retention/fisher.py",
        old="num_tokens += batch.num_valid_tokens",
        new="num_tokens += 1",
        test="tests/unit/test_retention_anchor.py::test_fisher_is_the_mean_of_squared_gradients_of_sequences",
    ),
    Mutation(
        promise="importance is of the base without dropout",
        file="retention/fisher.py",
        old="with evaluating(root.model):\n",
        new="with contextlib.nullcontext():\n",
        test="tests/unit/test_retention_anchor.py::test_fisher_is_the_mean_of_squared_gradients_of_sequences",
    ),
    Mutation(
        promise="importance on many ranks is that on one",
        file="retention/fisher.py",
        old="labels = here.labels if labels_count else",
        new="labels = here.labels if True else",
        test="tests/parity/test_retention_ranks.py::test_ranks_hold_on_to_the_base_as_one_process_does",
    ),
    Mutation(
        promise="importance of another estimate is not taken",
        file="training/retained.py",
        old="if found is not None and self.world.ranks.on_main(lambda: _key_in(found)) == key:",
        new="if found is not None:",
        test="tests/unit/test_retention_anchor.py::test_importance_of_another_estimate_is_not_taken_for_it",
    ),
    Mutation(
        promise="what is pulled to is the base, also after a resume",
        file="training/run.py",
        old="    retained.hold(state)\n    if found.path is not None:\n"
        "        read_state(found.path, state, plan.science)\n",
        new="    if found.path is not None:\n"
        "        read_state(found.path, state, plan.science)\n        retained.hold(state)\n",
        test="tests/unit/test_retention_anchor.py::test_a_resumed_run_has_the_same_bits",
    ),
    Mutation(
        promise="a penalty is the same on one rank and on many",
        file="training/step.py",
        old="l2sp, ewc = state.world.sum(state.anchor.pull(named, shares))",
        new="l2sp, ewc = state.anchor.pull(named, shares)",
        test="tests/parity/test_retention_ranks.py::test_ranks_hold_on_to_the_base_as_one_process_does",
    ),
    Mutation(
        promise="new text is not what EWC holds on to",
        file="planning/retention.py",
        old="    if role not in OLD_ROLES:\n",
        new="    if False:\n",
        test="tests/unit/test_retention_plan.py::test_what_makes_no_sense_is_refused",
    ),
    Mutation(
        promise="a recipe's word about its base stands above the table's",
        file="planning/known_bases.py",
        old="        if fact is None or getattr(said, key) is not None:\n",
        new="        if fact is None:\n",
        test="tests/unit/test_known_bases.py::"
        "test_where_they_disagree_the_recipe_stands_and_both_are_told",
    ),
    Mutation(
        promise="no schedule is made of halves of two pretrainings",
        file="planning/known_bases.py",
        old="        if key in _RATES and other_rates:\n",
        new="        if False:\n",
        test="tests/unit/test_known_bases.py::"
        "test_where_they_disagree_the_recipe_stands_and_both_are_told",
    ),
    Mutation(
        promise="a base recognised by its shape alone is said to be a guess",
        file="planning/known_bases.py",
        old="    if not found.by_name and taken:\n",
        new="    if False:\n",
        test="tests/unit/test_known_bases.py::"
        "test_a_base_recognised_by_its_shape_says_that_it_may_be_another",
    ),
    Mutation(
        promise="an earlier checkpoint is not given the last one's rate",
        file="planning/known_bases.py",
        old="        if key in _OF_THE_END and not _is_last_checkpoint(base.revision):\n",
        new="        if False:\n",
        test="tests/unit/test_known_bases.py::"
        "test_an_earlier_checkpoint_did_not_end_at_the_last_ones_rate",
    ),
    Mutation(
        promise="a preset that fits unknown rates only is told where the rates are known",
        file="planning/known_bases.py",
        old="    if recipe.preset == before.preset != after.preset:\n",
        new="    if recipe.preset == before.preset == after.preset:\n",
        test="tests/unit/test_known_bases.py::"
        "test_a_preset_that_fits_unknown_rates_only_is_told_to",
    ),
    Mutation(
        promise="no layer freezes in a short run",
        file="stages/short_run.py",
        old='            "freezing": FreezingRecipe(),\n',
        new="",
        test="tests/unit/test_tune.py::"
        "test_a_short_run_leaves_out_what_is_laid_out_over_the_whole_one",
    ),
    Mutation(
        promise="no rate is picked beyond those that were measured",
        file="evaluation/lr_search.py",
        old="    inside = (bend > 0) & (np.abs(place) <= 1.0)\n",
        new="    inside = bend > 0\n",
        test="tests/unit/test_lr_search.py::test_a_minimum_beyond_the_three_is_looked_for_there",
    ),
    Mutation(
        promise="a tuned rate that the documents do not agree on is said to be unsure",
        file="evaluation/lr_search.py",
        old="    elif agreement < _CONFIDENCE:\n",
        new="    elif agreement < 0:\n",
        test="tests/unit/test_lr_search.py::test_documents_that_disagree_make_the_answer_unsure",
    ),
    Mutation(
        promise="a short run that is done is not made again",
        file="stages/short_run.py",
        old="    if not short.is_done():\n",
        new="    if True:\n",
        test="tests/unit/test_tune.py::test_what_is_done_is_not_made_again",
    ),
    Mutation(
        promise="short runs with other settings are other runs",
        file="stages/short_run.py",
        old='            plan.conduct.evaluation.model_dump(mode="json"),\n',
        new="",
        test="tests/unit/test_tune.py::test_other_settings_are_other_runs",
    ),
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
        old='return Exported(int(mark.facts["step"]), mark.problems)',
        new='return Exported(int(mark.facts["step"]), [])',
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
        old="        problems.extend(problems_of(error, Recipe))\n",
        new="        raise RecipeError(problems_of(error, Recipe)) from error\n",
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
        file="recipe/section.py",
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
        test="tests/properties/test_order.py::"
        "test_every_prefix_keeps_the_blend_to_within_one_sample",
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
        promise="a run is left only where its rate is constant",
        file="planning/continuation.py",
        old='if piece.shape == "constant" and piece.start_step <= step',
        new="if piece.start_step <= step",
        test="tests/unit/test_continuation.py::test_the_rate_can_be_left_where_it_is_constant",
    ),
    Mutation(
        promise="a branch begins with the trunk's checkpoint",
        file="stages/continued.py",
        old="    if problems:\n        raise CheckpointError.one(\n            str(path), ",
        new="    if False:\n        raise CheckpointError.one(\n            str(path), ",
        test="tests/unit/test_continuation.py::test_a_damaged_checkpoint_begins_no_branch",
    ),
    Mutation(
        promise="a branch that was cut off while it was made is made anew",
        file="stages/continued_folder.py",
        old="        if is_this and newest_first(folder.checkpoints):\n",
        new="        if is_this and folder.checkpoints.exists():\n",
        test="tests/unit/test_continuation.py::"
        "test_a_branch_that_was_cut_off_never_begins_from_the_base",
    ),
    Mutation(
        promise="a branch without a checkpoint never begins from the base",
        file="stages/train.py",
        old="    if origin is not None:\n",
        new="    if False:\n",
        test="tests/unit/test_continuation.py::"
        "test_a_branch_that_was_cut_off_never_begins_from_the_base",
    ),
    Mutation(
        promise="layers that have frozen stay so in a branch",
        file="planning/continuation.py",
        old="    freezes = [(at, layers) for at, layers in freezes if at <= at_step]\n",
        new="    freezes = []\n",
        test="tests/unit/test_continuation.py::"
        "test_what_gradients_have_frozen_stays_frozen_in_a_branch",
    ),
    Mutation(
        promise="a subset is as large in a branch as it was",
        file="stages/continued.py",
        old='        "sources": sized_as_before(recipe.sources, science),\n',
        new="",
        test="tests/unit/test_continuation.py::"
        "test_a_run_that_froze_layers_and_shows_a_subset_is_branched",
    ),
    Mutation(
        promise="caps on epochs hold over a run and what follows it",
        file="stages/continued_trunk.py",
        old="    notes.problems.raise_as(PlanError)\n    return notes\n",
        new="    return notes\n",
        test="tests/unit/test_continuation.py::"
        "test_a_source_is_shown_no_more_often_in_both_than_it_may",
    ),
    Mutation(
        promise="the plan's memory is that of what trains",
        file="planning/resolve.py",
        old="        num_trained=num_trained,\n",
        new="        num_trained=model.num_parameters,\n",
        test="tests/unit/test_trainable.py::test_estimates_are_of_what_trains",
    ),
    Mutation(
        promise="layers that the base does not have are told",
        file="planning/selection.py",
        old="    elif layers_named(selector) > names.num_layers:\n",
        new="    elif False:\n",
        test="tests/unit/test_trainable.py::test_mistakes_are_told",
    ),
    Mutation(
        promise="a key that a schedule's kind passes over is refused",
        file="recipe/schedule.py",
        old='    "final_lr": ("cosine", "linear", "wsd", "infinite", "cyclic"),\n',
        new="",
        test="tests/unit/test_curves.py::test_what_a_kind_would_pass_over_is_refused",
    ),
    Mutation(
        promise="a freeze that was decided before a kill is not decided again",
        file="training/settling.py",
        old="step in state.amendments.freeze_steps()",
        new="False",
        test="tests/unit/test_freezing.py::"
        "test_what_was_decided_before_a_kill_is_not_decided_again",
    ),
    Mutation(
        promise="milestones stay for good",
        file="training/checkpoint.py",
        old="if path not in spared and not self._stays(step_of(path)):",
        new="if path not in spared:",
        test="tests/unit/test_training_checkpoint.py::test_milestones_stay_for_good",
    ),
    Mutation(
        promise="what is frozen has no moments",
        file="training/stages.py",
        old="    if names == before.keys():\n",
        new="    if names <= before.keys():\n",
        test="tests/unit/test_freezing.py::test_frozen_layers_are_bit_identical_from_their_step_on",
    ),
    Mutation(
        promise="a freeze is on the disk before it governs",
        file="training/course.py",
        old="        self.ranks.on_main(lambda: append_amendment(self.run.amendments, amended))\n"
        '        self.journal.event("freeze"',
        new='        self.journal.event("freeze"',
        test="tests/unit/test_freezing.py::test_a_stopped_run_goes_on_to_the_same_bits",
    ),
    Mutation(
        promise="a frozen layer is not moved",
        file="model/trainable.py",
        old="        parameter.requires_grad_(name in names)\n",
        new="        parameter.requires_grad_(True)\n",
        test="tests/unit/test_freezing.py::test_the_backward_pass_stops_above_frozen_layers",
    ),
    Mutation(
        promise="an export holds the adapter's part",
        file="stages/export.py",
        old="        merge_adapters(model)\n",
        new="        from peft.tuners.lora import Linear\n        del Linear\n",
        test="tests/unit/test_adapter.py::test_a_run_with_an_adapter_from_the_recipe_to_the_export",
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
        file="training/materials.py",
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
        old="        amended = amendments.with_skip(from_step, until_step, why)\n"
        "        self.ranks.on_main(lambda: append_amendment(self.run.amendments, amended))\n",
        new="        amended = amendments.with_skip(from_step, until_step, why)\n",
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
        promise="a road that does not give what the mask gives is not taken",
        file="model/packing.py",
        old="        if not difference <= _road_tolerance(theirs):\n",
        new="        if False:\n",
        test="tests/parity/test_document_attention.py::test_a_road_that_is_wrong_is_not_taken",
    ),
    Mutation(
        promise="the probe of a road is longer than a model's window",
        file="model/packing.py",
        old="        longest = min(window + _LONG_DOCUMENT, sequence_length)\n",
        new="        longest = min(window, _DOCUMENT)\n",
        test="tests/parity/test_document_attention.py::test_a_road_that_is_wrong_is_not_taken",
    ),
    Mutation(
        promise="kernels are told where each document begins",
        file="model/packing.py",
        old="            starts = (flat == 0).nonzero().flatten()\n",
        new="            starts = torch.arange(0, len(flat), position_ids.shape[1])\n",
        test="tests/parity/test_document_attention.py::"
        "test_flash_attention_is_told_where_documents_begin",
    ),
    Mutation(
        promise="a step does not wait for the device to say where documents begin",
        file="training/step.py",
        old="model, batch.input_ids, batch.labels, batch.position_ids, batch.bounds()",
        new="model, batch.input_ids, batch.labels, batch.position_ids, None",
        test="tests/parity/test_step.py::test_nor_does_one_where_documents_are_kept_apart",
    ),
    Mutation(
        promise="a step of whole windows does not wait for the device to look at positions",
        file="model/packing.py",
        old="            why = _tried(model, WHOLE_NAME, probe, expected, within, agree)\n",
        new='            why = _tried(model, "sdpa", probe, expected, within, agree)\n',
        test="tests/parity/test_step.py::test_nor_does_one_of_whole_windows_without_a_mask",
    ),
    Mutation(
        promise="a window that causal attention does not know is not left out",
        file="model/document_attention.py",
        old="    if sliding_window is not None and sliding_window < query.shape[2]:\n",
        new="    if False:\n",
        test="tests/parity/test_packing.py::"
        "test_whole_windows_need_no_mask_where_causal_attention_is_all",
    ),
    Mutation(
        promise="no weight is made from a score that was rounded at its full size",
        file="model/causal_backward.py",
        old="    q, k = _less(query, sums / scale), _less(key, None)\n",
        new="    q, k = _less(query, (sums / scale).bfloat16().float()), _less(key, None)\n",
        test="tests/parity/test_causal_backward.py::test_gradients_are_those_of_a_masked_softmax",
    ),
    Mutation(
        promise="by products too a query sees no key that comes after it",
        file="model/causal_backward.py",
        old="    sees = torch.arange(num_keys)[:, None] <= torch.arange(num_queries)\n",
        new="    sees = torch.arange(num_keys)[:, None] <= torch.arange(num_queries) + 1\n",
        test="tests/parity/test_causal_backward.py::test_gradients_are_those_of_a_masked_softmax",
    ),
    Mutation(
        promise="products of attention's backward pass are of few shapes",
        file="model/causal_backward.py",
        old="        size = 1 << 2 * ((min(number - first, most).bit_length() - 1) // 2)\n",
        new="        size = min(number - first, most)\n",
        test="tests/parity/test_causal_backward.py::test_rows_are_taken_in_powers_of_four",
    ),
    Mutation(
        promise="without a compiler attention's backward pass is torch's own",
        file="model/causal_backward.py",
        old="        return None\n    return between, row_dots\n",
        new="        pass\n    return between, row_dots\n",
        test="tests/parity/test_causal_backward.py::"
        "test_documents_have_the_same_gradients_in_half_precision",
    ),
    Mutation(
        promise="a window is not left out where the backward pass is by products",
        file="model/split_attention.py",
        old="    reach = group.length if window is None else window\n    return",
        new="    reach = group.length\n    return",
        test="tests/parity/test_causal_backward.py::"
        "test_documents_have_the_same_gradients_in_half_precision",
    ),
    Mutation(
        promise="where documents begin goes with the rows that are taken",
        file="batches/loader.py",
        old="tuple(starts[row] for row in rows)",
        new="starts[: len(rows)]",
        test="tests/unit/test_batches.py::"
        "test_where_documents_begin_is_known_to_the_host_whatever_rows_are_taken",
    ),
    Mutation(
        promise="documents that share a call do not see each other",
        file="model/split_attention.py",
        old="    found = rows.view(*group, *rows.shape[1:]).transpose(1, 2)\n",
        new="    found = rows.view(1, -1, *rows.shape[1:]).transpose(1, 2)\n",
        test="tests/parity/test_packing.py::test_documents_of_a_sequence_are_as_if_alone",
    ),
    Mutation(
        promise="a window holds within a document too",
        file="model/split_attention.py",
        old=".tril_().triu_(1 - window)\n",
        new=".tril_()\n",
        test="tests/parity/test_packing.py::test_documents_of_a_sequence_are_as_if_alone",
    ),
    Mutation(
        promise="memory does not grow with the lengths of documents",
        file="model/document_layout.py",
        old="    return -(-length // step) * step\n",
        new="    return length\n",
        test="tests/parity/test_document_attention.py::test_lengths_that_attention_meets_are_few",
    ),
    Mutation(
        promise="the operator for compilers has the gradient of keys that heads share",
        file="model/split_attention.py",
        old="-1, x.shape[2]).sum(2)",
        new="-1, x.shape[2]).mean(2)",
        test="tests/parity/test_document_attention.py::test_split_is_what_loops_over_queries_give",
    ),
    Mutation(
        promise="fused attention is not handed numbers that are no neighbours",
        file="model/split_attention.py",
        old="    return found if found.stride(-1) == 1 else found.contiguous()\n",
        new="    return found\n",
        test="tests/parity/test_document_attention.py::"
        "test_a_tokens_numbers_need_not_be_neighbours",
    ),
    Mutation(
        promise="documents of no tokens do not end the process",
        file="model/document_layout.py",
        old="for length in lengths if length)\n",
        new="for length in lengths)\n",
        test="tests/parity/test_document_attention.py::test_empty_documents_change_nothing",
    ),
    Mutation(
        promise="attention within documents is in the type of the values under autocast too",
        file="model/split_attention.py",
        old='    with torch.autocast("cpu", enabled=False):\n',
        new="    if True:\n",
        test="tests/parity/test_document_attention.py::test_autocast_changes_nothing_in_it",
    ),
    Mutation(
        promise="a window's mask made in inference mode does not break the next step",
        file="model/split_attention.py",
        old="    with torch.inference_mode(False):\n",
        new="    if True:\n",
        test="tests/parity/test_document_attention.py::"
        "test_a_mask_made_in_inference_mode_serves_a_later_backward_pass",
    ),
    Mutation(
        promise="layers with a window do not keep a mask each",
        file="model/split_attention.py",
        old="    return _mask_of_size(size, reach, dtype)[:length, :length]\n",
        new="    return _mask_of_size(size, reach, dtype)[:length, :length].clone()\n",
        test="tests/parity/test_document_attention.py::test_layers_with_a_window_keep_one_mask",
    ),
    Mutation(
        promise="what is measured does not depend on the road",
        file="stages/objective.py",
        old="        with self.attention.as_loaded(model):\n",
        new="        if True:\n",
        test="tests/unit/test_document_roads.py::"
        "test_a_cpu_splits_and_measures_with_what_was_loaded",
    ),
    Mutation(
        promise="the placement names the road that was taken",
        file="training/run.py",
        old="        placement = materials.settled(placement)\n",
        new="",
        test="tests/unit/test_document_roads.py::"
        "test_a_road_that_is_wrong_is_told_and_recorded_and_the_mask_serves",
    ),
    Mutation(
        promise="why a road was not taken is on record",
        file="training/materials.py",
        old="    notices.extend(notice for notice in materials.fill_model(root) "
        "if notice not in notices)\n",
        new="    materials.fill_model(root)\n",
        test="tests/unit/test_document_roads.py::"
        "test_a_road_that_is_wrong_is_told_and_recorded_and_the_mask_serves",
    ),
    Mutation(
        promise="what does not count has no gradient through a loss in chunks",
        file="model/chunked_loss.py",
        old="        if not counts.all():\n",
        new="        if False:\n",
        test="tests/parity/test_chunked_loss.py::test_without_a_valid_label_all_is_zero",
    ),
    Mutation(
        promise="each chunk's part of the head's gradient is added",
        file="model/chunked_loss.py",
        old="        total += left @ right\n",
        new="        total = (left @ right).to(wide)\n",
        test="tests/parity/test_chunked_loss.py::test_under_autocast_it_is_as_near_as_the_plain_loss",
    ),
    Mutation(
        promise="the memory estimate counts fragmentation on a CPU",
        file="planning/memory.py",
        old="_FRAGMENTATION_OF_EAGER, _FRAGMENTATION_ON_CPU = 1.1, 0.2",
        new="_FRAGMENTATION_OF_EAGER, _FRAGMENTATION_ON_CPU = 1.1, 0.0",
        test="tests/unit/test_plan.py::test_peak_memory_by_hand",
    ),
    Mutation(
        promise="the memory estimate counts a teacher's logits and the divergence from them",
        file="planning/footprint.py",
        old="        teacher=None if distill is None else distill.teacher,\n",
        new="",
        test="tests/unit/test_plan.py::test_peak_memory_counts_what_a_divergence_takes",
    ),
    Mutation(
        promise="layers below the lowest that trains keep no activations in the estimate",
        file="planning/footprint.py",
        old="        untouched_layers=num_untouched_layers(science, model),\n",
        new="",
        test="tests/unit/test_plan.py::"
        "test_peak_memory_counts_no_activations_of_layers_that_never_train",
    ),
    Mutation(
        promise="a frozen layer above one that trains keeps its activations in the estimate",
        file="planning/trainable.py",
        old="    return min(found)\n",
        new="    return max(found)\n",
        test="tests/unit/test_plan.py::"
        "test_peak_memory_counts_no_activations_of_layers_that_never_train",
    ),
    Mutation(
        promise="a date in a recipe is told as it was written",
        file="recipe/section.py",
        old="        if isinstance(value, date | time):\n",
        new="        if False:\n",
        test="tests/unit/test_recipe.py::test_a_date_is_told_as_it_was_written",
    ),
    Mutation(
        promise="the divergence's arrays are counted where there are no logits of all tokens",
        file="planning/memory.py",
        old="_DIVERGENCE_LOGITS = 4",
        new="_DIVERGENCE_LOGITS = 1",
        test="tests/parity/test_memory.py::"
        "test_the_peak_with_a_teacher_is_estimated_within_its_tolerance[live-False-chunked]",
    ),
    Mutation(
        promise="the memory estimate counts attention's weights where they are kept",
        file="planning/memory.py",
        old='    if any("att" in key for key in model.dropout):\n',
        new="    if False:\n",
        test="tests/parity/test_memory.py::"
        "test_the_peak_is_estimated_within_its_tolerance[gpt2-False-plain-none]",
    ),
    Mutation(
        promise="a loss in chunks that is not the model's is not used",
        file="model/head_loss.py",
        old="        self._agrees = why is None\n",
        new="        self._agrees = True\n",
        test="tests/parity/test_chunked_loss.py::"
        "test_where_the_logits_are_others_the_plain_loss_stays",
    ),
    Mutation(
        promise="a loss whose gradient is not the model's is not used",
        file="model/head_loss.py",
        old="            if not _agree(ours, theirs, tolerance):\n",
        new="            if False:\n",
        test="tests/parity/test_chunked_loss.py::"
        "test_where_a_gradient_is_another_the_plain_loss_stays",
    ),
    Mutation(
        promise="an evaluation never holds all logits of a large vocabulary",
        file="stages/objective.py",
        old="                losses=self.loss.token_losses,\n",
        new="",
        test="tests/unit/test_large_vocabulary.py::"
        "test_neither_training_nor_evaluation_holds_all_logits",
    ),
    Mutation(
        promise="ranks that share matrices count their data once",
        file="distributed/world.py",
        old="            tensor.zero_()\n",
        new="            pass\n",
        test="tests/parity/test_ranks_load.py::test_the_command_line_on_two_ranks[shared]",
    ),
    Mutation(
        promise="with shared matrices each rank reads its own box of a tensor",
        file="distributed/fsdp.py",
        old="        for axis in reversed(range(mesh.ndim)):\n",
        new="        for axis in range(mesh.ndim):\n",
        test="tests/parity/test_tensor_parallel.py::"
        "test_each_rank_reads_the_part_of_a_base_that_is_its_own",
    ),
    Mutation(
        promise="gradients on different meshes are clipped by one norm",
        file="distributed/fsdp.py",
        old="    total = world.sum((norms.square() * norms.new_tensor(shares)).sum()).sqrt()\n",
        new="    total = world.sum(norms.square().sum()).sqrt()\n",
        test="tests/parity/test_tensor_parallel.py::"
        "test_ranks_that_share_matrices_take_the_step_of_one_process",
    ),
    Mutation(
        promise="with shared matrices no gradient waits for the next micro-batch",
        file="planning/fitting.py",
        old="    if world_size == 1 or tensor_parallel > 1:\n",
        new="    if world_size == 1:\n",
        test="tests/unit/test_training_placement.py::"
        "test_ranks_that_share_matrices_share_the_data_too",
    ),
    Mutation(
        promise="a token weighs alike on every rank",
        file="training/step.py",
        old="num_valid, num_with_loss, *by_source = world.sum_of_data(counts).tolist()",
        new="num_valid, num_with_loss, *by_source = (counts * world.size).tolist()",
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
        old='if stat.st_size != entry["bytes"] or file_sha256(path) != entry["sha256"]:',
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
        promise="a file that is not there is no matter of permissions",
        file="errors.py",
        old="    if error.errno in _NOWHERE:\n",
        new="    if False:\n",
        test="tests/unit/test_evaluation_tasks.py::test_the_remedy_is_that_of_what_refuses_a_file",
    ),
    Mutation(
        promise="a folder where a file is wanted is told as that",
        file="errors.py",
        old="    if error.errno == errno.EISDIR:\n",
        new="    if False:\n",
        test="tests/unit/test_recipe.py",
    ),
    Mutation(
        promise="a loop of links is no matter of permissions",
        file="errors.py",
        old="    if error.errno == errno.ELOOP:\n",
        new="    if False:\n",
        test="tests/unit/test_model_facts.py::test_a_loop_of_symlinks",
    ),
    Mutation(
        promise="a profile on a GPU counts no kernel in the operator that launched it",
        file="training/profiling.py",
        old="average.device_type == DeviceType.CUDA and ",
        new="",
        test="tests/unit/test_goodput.py::test_on_a_gpu_each_kernel_is_counted_once",
    ),
    Mutation(
        promise="a profile on a GPU counts no kernel in the part around it",
        file="training/profiling.py",
        old=" and not average.is_user_annotation",
        new="",
        test="tests/unit/test_goodput.py::test_on_a_gpu_each_kernel_is_counted_once",
    ),
    Mutation(
        promise="a profile on a CPU has its operators and parts",
        file="training/profiling.py",
        old="(not on_gpu or _is_kernel(average))",
        new="_is_kernel(average)",
        test="tests/unit/test_goodput.py::test_on_a_cpu_a_part_has_what_no_operator_took",
    ),
    Mutation(
        promise="the mark of a profile's start stays off the terminal",
        file="training/profiling.py",
        old="        with _without_marks():\n            self._profiler.start()\n",
        new="        self._profiler.start()\n",
        test="tests/unit/test_goodput.py",
    ),
    Mutation(
        promise="the mark of a profile's end stays off the terminal",
        file="training/profiling.py",
        old="        with _without_marks():\n            profiler.stop()\n",
        new="        profiler.stop()\n",
        test="tests/unit/test_goodput.py",
    ),
    Mutation(
        promise="the mark of a profile's end with nothing watched stays off the terminal",
        file="training/profiling.py",
        old="            with _without_marks():\n                self._profiler.stop()\n",
        new="            self._profiler.stop()\n",
        test="tests/unit/test_goodput.py",
    ),
    Mutation(
        promise="what else a profiler's library says is told",
        file="training/profiling.py",
        old='if not line.startswith(b"USDT:"):',
        new="if False:",
        test="tests/unit/test_goodput.py",
    ),
    Mutation(
        promise="labelled text is as long as text to train on may be",
        file="evaluation/json_lines.py",
        old="_CAPS = Caps()",
        new="_CAPS = Caps(line_bytes=1 << 20)",
        test="tests/unit/test_stream.py::test_labelled_text_is_as_long_as_text_to_train_on_may_be",
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
        test="tests/resume/test_kills.py::test_two_kills_change_no_bit",
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
        old="skip=~measured.isfinite().all(),",
        new="skip=torch.zeros((), dtype=torch.bool),",
        test="tests/parity/test_step.py::"
        "test_a_loss_that_stays_not_finite_never_reaches_the_weights",
    ),
    Mutation(
        promise="the split into micro-batches does not matter",
        file="training/step.py",
        old="(summed / divisor).backward()",
        new="(summed / max(part.num_valid_tokens, 1)).backward()",
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
        old="stops = self.agreed.stop_signal is not None or self.has_forgotten",
        new="stops = self.has_forgotten",
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
        old="            make_way = partial(_put_aside, own, held, console)\n",
        new="            import shutil; make_way = partial(shutil.rmtree, own)\n",
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
        file="corpus/sealed.py",
        old="            fcntl.flock(descriptor, fcntl.LOCK_EX)\n",
        new="            pass\n",
        test="tests/unit/test_corpus_prepare.py::test_two_at_once_prepare_once",
    ),
    Mutation(
        promise="text that changes while it is prepared is told",
        file="corpus/prepare.py",
        old="    shards.place.check_unchanged()\n",
        new="",
        test="tests/unit/test_corpus_prepare.py::test_text_that_changes_under_our_hands_is_told",
    ),
    Mutation(
        promise="a token outside of the vocabulary stops the run",
        file="batches/loader.py",
        old="        self._check_vocabulary(inputs, labels, slots)\n",
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
        file="reporting/page.py",
        old="autoescape=True",
        new="autoescape=False",
        test="tests/unit/test_reporting_report.py::test_names_show_as_text",
    ),
    Mutation(
        promise="documents of a sequence do not see each other",
        file="model/packing.py",
        old='    told: dict[str, Any] = {"position_ids": position_ids}\n',
        new="    told: dict[str, Any] = {}\n",
        test="tests/parity/test_packing.py::test_documents_of_a_sequence_are_as_if_alone",
    ),
    Mutation(
        promise="a step keeps documents apart where the plan says so",
        file="training/step.py",
        old="model, batch.input_ids, batch.labels, batch.position_ids, batch.bounds()",
        new="model, batch.input_ids, batch.labels, None, batch.bounds()",
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
        promise="no code of an optimizer.pt is run",
        file="training/torch_state.py",
        old="weights_only=True, mmap=True",
        new="weights_only=False, mmap=True",
        test="tests/parity/test_base_moments.py::test_code_in_a_torch_file_is_not_run",
    ),
    Mutation(
        promise="no code in the metadata of parts is run",
        file="distributed/tensor_files.py",
        old="metadata = _MetadataUnpickler(file).load()",
        new="metadata = pickle.load(file)",
        test="tests/parity/test_base_moments.py::test_code_in_the_metadata_of_parts_is_not_run",
    ),
    Mutation(
        promise="moments of other shapes are refused",
        file="training/base_moments.py",
        old="elif header.shape != tuple(parameter.shape) or not header.dtype.is_floating_point:",
        new="elif False:",
        test="tests/parity/test_base_moments.py::test_everything_that_does_not_fit_is_told_at_once",
    ),
    Mutation(
        promise="moments that are not finite are refused",
        file="training/base_moments.py",
        old="    _check_numbers(facts.path, damaged, world)\n",
        new="",
        test="tests/parity/test_base_moments.py::test_moments_that_are_no_numbers_are_named",
    ),
    Mutation(
        promise="the bias correction goes on from the base's updates",
        file="training/base_moments.py",
        old="    set_step_counts(optimizer, whole)\n",
        new="",
        test="tests/parity/test_base_moments.py::test_the_next_step_is_the_peers",
    ),
    Mutation(
        promise="a run keeps to the optimizer state of its plan",
        file="stages/train.py",
        old="        world.ranks.on_main_at_length(lambda: check_planned_optimizer_state(plan))\n",
        new="",
        test="tests/unit/test_optimizer_state.py::test_a_changed_state_is_refused",
    ),
    Mutation(
        promise="an optimizer.pt with a flipped bit is not taken over",
        file="stages/optimizer_state.py",
        old="            return archive.testzip()\n",
        new="            return None\n",
        test="tests/unit/test_optimizer_state.py::test_a_flipped_bit_of_a_torch_file_is_noticed",
    ),
    Mutation(
        promise="a cap on epochs holds",
        file="planning/exposure.py",
        old="        if epochs > cap:\n",
        new="        if epochs > cap + 0.5:\n",
        test="tests/unit/test_plan.py::test_too_many_epochs_are_told_with_numbers",
    ),
    Mutation(
        promise="a model of weight 0 leaves no trace in a merge",
        file="model/average.py",
        old="        if weight != 0.0:\n",
        new="        if True:\n",
        test="tests/properties/test_average_properties.py::test_the_ends_are_base_and_model_bit_for_bit",
    ),
    Mutation(
        promise="merges are summed in float64",
        file="model/average.py",
        old="            term = part.to(torch.float64) * weight\n",
        new="            term = part.to(torch.float32) * weight\n",
        test="tests/parity/test_average.py::test_mergekit_gives_the_same",
    ),
    Mutation(
        promise="values that are not finite are merged into nothing",
        file="model/average.py",
        old="    if torch.isfinite(part).all():\n        return True\n",
        new="    if part is not None:\n        return True\n",
        test="tests/unit/test_weight_folder.py::test_values_that_are_not_finite_are_named_by_model_and_tensor",
    ),
    Mutation(
        promise="a merge holds a stretch of each model, not a tensor",
        file="model/weight_stream.py",
        old="STRETCH = 2**17\n",
        new="STRETCH = 2**22\n",
        test="tests/unit/test_merge_memory.py::test_a_merge_needs_a_stretch_of_each_model",
    ),
    Mutation(
        promise="a merge is believed only after its weights were read back",
        file="export/merged.py",
        old="    if differing:\n",
        new="    if False:\n",
        test="tests/unit/test_merge.py::test_a_folder_that_does_not_give_the_model_back",
    ),
    Mutation(
        promise="a merge's network is its form's",
        file="export/merged.py",
        old="    if not torch.equal(logits, expected):\n",
        new="    if False:\n",
        test="tests/unit/test_merge.py::test_a_folder_that_does_not_give_the_model_back",
    ),
    Mutation(
        promise="an earlier merge is kept",
        file="stages/merge.py",
        old="        make_way = partial(_put_aside, output, *held, console)\n",
        new="        import shutil; make_way = partial(shutil.rmtree, output)\n",
        test="tests/unit/test_merge_run.py::test_an_earlier_merge_is_put_aside",
    ),
    Mutation(
        promise="a damaged merge does not count as merged",
        file="export/merged.py",
        old='    return mark.facts["merge"], mark.problems\n',
        new='    return mark.facts["merge"], []\n',
        test="tests/unit/test_merge_run.py::test_an_earlier_merge_is_put_aside",
    ),
    Mutation(
        promise="a step of a run is merged only where its hashes hold",
        file="stages/merge_inputs.py",
        old="    problems = checkpoint_problems(paths[step], step)\n",
        new="    problems: list[str] = []\n",
        test="tests/unit/test_merge_run.py::test_a_damaged_checkpoint_is_named",
    ),
    Mutation(
        promise="a run is not merged with another base than its own unnoticed",
        file="stages/merge_inputs.py",
        old="    check_planned_base(plan)\n",
        new="",
        test="tests/unit/test_merge_run.py::test_another_base_under_the_run_is_refused",
    ),
    Mutation(
        promise="nobody sweeps into the records of a launch",
        file="stages/sweep.py",
        old="    with hold_lock(run.lock, bench.say):\n",
        new="    if True:\n",
        test="tests/unit/test_merge_run.py::test_nobody_sweeps_into_the_records_of_a_launch_under_way",
    ),
    Mutation(
        promise="a sweep measures no weight twice",
        file="stages/sweep.py",
        old="        if weight in sweep.grid and wanted <= have:\n",
        new="        if False:\n",
        test="tests/unit/test_merge_run.py::test_a_sweep_that_was_stopped_goes_on_where_it_was",
    ),
    Mutation(
        promise="what a sweep measures is rounded as it is written",
        file="model/average.py",
        old="            made = _merged(merge, name, header, problems)\n",
        new="            wide = header._replace(dtype=torch.float32)\n"
        "            made = _merged(merge, name, wide, problems)\n",
        test="tests/unit/test_weight_folder.py::test_a_model_is_filled_as_the_files_would_be_written",
    ),
    Mutation(
        promise="the whole interval stays within the tolerance",
        file="evaluation/trade_off.py",
        old="point.forgetting.high <= tolerance",
        new="point.forgetting.value <= tolerance",
        test="tests/unit/test_trade_off.py::test_the_whole_interval_has_to_stay_within_the_tolerance",
    ),
    Mutation(
        promise="the end of an assistant's turn is scored",
        file="evaluation/chat.py",
        old="None if end is None else end + 1]",
        new="None if end is None else end]",
        test="tests/unit/test_evaluation_chat.py::test_the_answer_and_the_end_of_its_turn_are_scored_and_nothing_else",
    ),
    Mutation(
        promise="a chat is measured on the same text every day",
        file="model/chat_template.py",
        old="_FIXED_DATE + tokenizer.get_chat_template()",
        new="tokenizer.get_chat_template()",
        test="tests/unit/test_evaluation_chat.py::test_the_date_that_a_template_writes_is_the_same_every_day",
    ),
    Mutation(
        promise="a tuned base is warned of",
        file="planning/resolve.py",
        old="    if model.has_chat_template:\n        notes.warnings.append(\n",
        new="    if model.has_chat_template:\n        _ = (\n",
        test="tests/unit/test_evaluation_chat.py::test_the_plan_warns_of_a_chat_template_with_reason_and_remedy",
    ),
    Mutation(
        promise="an upload that was cut off is no checkpoint",
        file="training/mirror/contents.py",
        old="        try:\n            self._send_checkpoint(checkpoint, folder, entries, tick)\n",
        new="        early = MirroredManifest(\n"
        "            step=step, plan=self.plan, amendments=chain, amendments_head=head, "
        "files=entries\n"
        "        )\n"
        '        self.remote.write(f"{folder}/{MANIFEST_NAME}", [as_json(early)])\n'
        "        try:\n"
        "            self._send_checkpoint(checkpoint, folder, entries, tick)\n",
        test="tests/unit/test_mirror.py::"
        "test_an_upload_that_is_cut_off_is_never_taken_for_a_checkpoint",
    ),
    Mutation(
        promise="bytes of two uploads never mix",
        file="training/mirror/contents.py",
        old='        self.remote.delete(f"{folder}/{MANIFEST_NAME}")\n        self._remember',
        new="        self._remember",
        test="tests/unit/test_mirror.py::test_other_bytes_of_a_step_never_mix_with_what_was_there",
    ),
    Mutation(
        promise="what is uploaded is held against its hash as it is read",
        file="training/mirror/contents.py",
        old="    if (size, digest.hexdigest()) != (entry.bytes, entry.sha256):\n",
        new="    if False:\n",
        test="tests/unit/test_mirror.py::test_a_checkpoint_that_was_altered_here_is_not_uploaded",
    ),
    Mutation(
        promise="a file that arrives short is not sealed",
        file="training/mirror/contents.py",
        old="            if size != entry.bytes:\n                del",
        new="            if False:\n                del",
        test="tests/unit/test_mirror.py::test_a_file_that_arrives_short_is_not_sealed",
    ),
    Mutation(
        promise="a damaged mirrored checkpoint is passed over",
        file="training/mirror/contents.py",
        old="        if digest.hexdigest() != entry.sha256:\n",
        new="        if False:\n",
        test="tests/unit/test_mirror.py::"
        "test_a_damaged_one_is_passed_over_and_the_one_before_is_used[records]",
    ),
    Mutation(
        promise="a mirrored file cannot lie outside of the run folder",
        file="training/mirror/layout.py",
        old="            if _FILE.fullmatch(name) is None:\n",
        new="            if False:\n",
        test="tests/unit/test_mirror.py::"
        "test_a_damaged_one_is_passed_over_and_the_one_before_is_used[outside]",
    ),
    Mutation(
        promise="what was damaged on the mirror is uploaded again",
        file="training/mirror/restore.py",
        old="                self._set_aside(manifest)\n",
        new="",
        test="tests/unit/test_mirror.py::test_what_was_damaged_is_uploaded_again",
    ),
    Mutation(
        promise="an empty machine gets the records of the run",
        file="training/mirror/restore.py",
        old="            self._write_records(records, amendments)\n",
        new="",
        test="tests/unit/test_mirror.py::test_an_empty_machine_goes_on_to_the_same_bits[memory]",
    ),
    Mutation(
        promise="the records are there before the checkpoint that needs them",
        file="training/mirror/restore.py",
        old="            self._write_records(records, amendments)\n"
        "\n"
        "        self._store.restore(manifest.step, write)\n",
        new="            kept.update(records)\n"
        "\n"
        "        kept: dict[str, bytes] = {}\n"
        "        self._store.restore(manifest.step, write)\n"
        "        self._write_records(kept, amendments)\n",
        test="tests/unit/test_mirror.py::test_a_checkpoint_is_never_there_without_its_records",
    ),
    Mutation(
        promise="amendments travel with the checkpoints",
        file="training/mirror/restore.py",
        old="            write_amendments(self._run.amendments, amendments)\n",
        new="            pass\n",
        test="tests/unit/test_mirror.py::"
        "test_steps_that_were_left_out_stay_out_on_an_empty_machine",
    ),
    Mutation(
        promise="what the run went back from is not restored",
        file="training/mirror/restore.py",
        old="            if why is not None:\n",
        new="            if False:\n",
        test="tests/unit/test_mirror.py::test_what_the_run_went_back_from_is_not_restored",
    ),
    Mutation(
        promise="a mirror out of reach is no empty mirror",
        file="training/mirror/restore.py",
        old="        if newer_than is None:\n            raise EnvironmentFault(",
        new="        if False:\n            raise EnvironmentFault(",
        test="tests/unit/test_mirror.py::test_a_mirror_out_of_reach_is_no_empty_mirror",
    ),
    Mutation(
        promise="a mirror out of reach does not stop a run that has its own checkpoint",
        file="training/mirror/restore.py",
        old="        if newer_than is None:\n            raise EnvironmentFault(",
        new="        if True:\n            raise EnvironmentFault(",
        test="tests/unit/test_mirror.py::"
        "test_a_mirror_out_of_reach_is_no_reason_to_stop_a_run_that_has_its_own",
    ),
    Mutation(
        promise="a mirror that fails stops nothing",
        file="training/mirror/uploader.py",
        old="            self._wanted = path\n            self._changed",
        new="            self._mirror.upload(path, self._run, self._tick)\n"
        "            self._changed",
        test="tests/unit/test_mirror.py::"
        "test_a_mirror_that_fails_stops_nothing_and_is_told_first_and_last",
    ),
    Mutation(
        promise="what is not mirrored at the end is told",
        file="training/mirror/uploader.py",
        old="        if missing is not None:\n",
        new="        if False:\n",
        test="tests/unit/test_mirror.py::"
        "test_a_mirror_that_fails_stops_nothing_and_is_told_first_and_last",
    ),
    Mutation(
        promise="what cannot be mirrored is tried again",
        file="training/mirror/uploader.py",
        old="                self._failed(path, _reason(error))\n",
        new="                self._failed(path, _reason(error))\n"
        "                self._drop(path)\n",
        test="tests/unit/test_mirror.py::test_an_upload_that_fails_is_tried_again",
    ),
    Mutation(
        promise="the wait at the end is bounded",
        file="training/mirror/uploader.py",
        old="            self._settled(wait_s)\n",
        new="            self._settled(wait_s + 30)\n",
        test="tests/unit/test_mirror.py::"
        "test_a_mirror_that_never_answers_holds_up_no_step_and_the_end_for_so_long",
    ),
    Mutation(
        promise="a checkpoint stays while it is uploaded",
        file="training/mirror/uploader.py",
        old="                    self._store.hold(self._wanted)\n",
        new="",
        test="tests/unit/test_mirror.py::"
        "test_a_slow_mirror_gets_the_newest_and_its_checkpoint_stays_while_it_is_read",
    ),
    Mutation(
        promise="a save takes the room of what is being uploaded",
        file="training/checkpoint.py",
        old="                if path not in spared and",
        new="                if path not in self._held and",
        test="tests/unit/test_mirror.py::test_a_full_disk_takes_the_room_of_what_is_being_read",
    ),
    Mutation(
        promise="the newest checkpoint of a mirror is never pruned",
        file="training/mirror/contents.py",
        old="is None][:keep]",
        new="is None][:0]",
        test="tests/unit/test_mirror.py::test_the_newest_whole_one_is_never_pruned",
    ),
    Mutation(
        promise="a mirrored checkpoint that is half deleted counts no more",
        file="training/mirror/contents.py",
        old='                self.remote.delete(f"{folder_of(step)}/{MANIFEST_NAME}")\n',
        new="",
        test="tests/unit/test_mirror.py::test_a_checkpoint_that_is_half_deleted_counts_no_more",
    ),
    Mutation(
        promise="another run's mirror is refused",
        file="training/mirror/contents.py",
        old="        if mark is not None and any(",
        new="        if False and any(",
        test="tests/unit/test_mirror.py::test_another_runs_mirror_is_refused_with_what_differs",
    ),
    Mutation(
        promise="no password is told",
        file="training/mirror/remote.py",
        old='" ".join(masked(str(error)).split())',
        new='" ".join(str(error).split())',
        test="tests/unit/test_mirror.py::test_a_remote_folder_says_nothing_secret",
    ),
    Mutation(
        promise="no password is in a recipe",
        file="recipe/records.py",
        old="        if _URL_WITH_PASSWORD.match(value):\n",
        new="        if False:\n",
        test="tests/resume/test_empty_machine.py::test_mistakes_in_the_mirror_are_told_by_plan",
    ),
    Mutation(
        promise="a mirror that no package reaches is told by plan",
        file="stages/survey.py",
        old="    _check_mirror(job, found.problems)\n",
        new="",
        test="tests/resume/test_empty_machine.py::test_mistakes_in_the_mirror_are_told_by_plan",
    ),
    Mutation(
        promise="a copy of the text is the same text to a run",
        file="planning/blends.py",
        old="corpus.tokens if corpus.measured else corpus.key",
        new="corpus.key",
        test="tests/resume/test_empty_machine.py::"
        "test_the_same_command_goes_on_where_nothing_of_the_run_is",
    ),
    Mutation(
        promise="ranks wait for a long restore",
        file="training/mirror/launch.py",
        old="        if self._ranks.on_main_at_length(restore):\n",
        new="        if self._ranks.on_main(restore):\n",
        test="tests/resume/test_lost_ranks.py::test_ranks_go_on_from_a_mirror_to_the_bit",
    ),
    Mutation(
        promise="a checkpoint has its name once it is sealed",
        file="training/checkpoint.py",
        old="            seal(temporary, step, ranks)\n"
        "            final: Path = ranks.on_main(lambda: self._put_in_place(temporary, "
        "step))\n",
        new="            final: Path = ranks.on_main(lambda: self._put_in_place(temporary, "
        "step))\n"
        "            seal(final, step, ranks)\n",
        test="tests/resume/test_save_kills.py::test_twenty_kills_within_saves",
    ),
    Mutation(
        promise="no peak of a schedule is lost in its drawing",
        file="reporting/plan_terminal.py",
        old="    joined_tops = np.minimum(tops[1:], bottoms[:-1] + 1)\n",
        new="    tops, bottoms = firsts.copy(), firsts.copy()\n"
        "    joined_tops = np.minimum(tops[1:], bottoms[:-1] + 1)\n",
        test="tests/unit/test_reporting_terminal.py::"
        "test_no_rate_of_any_step_is_lost_in_the_drawing",
    ),
    Mutation(
        promise="a phase too short for its name is told all the same",
        file="reporting/plan_terminal.py",
        old='                told.append(f"{bar}{name}: from step {first}")\n',
        new="                pass\n",
        test="tests/unit/test_reporting_terminal.py::"
        "test_a_phase_too_short_for_its_name_is_told_below",
    ),
    Mutation(
        promise="a refusal names the preset that filled in what it is about",
        file="planning/resolve.py",
        old="    notes.problems.reword(lambda problem: _told_of_preset(problem, recipe))\n",
        new="",
        test="tests/unit/test_presets.py::"
        "test_rates_that_are_not_known_are_missed_by_the_presets_name",
    ),
    Mutation(
        promise="a preset's blends take in every role that is there",
        file="recipe/presets.py",
        old='    if declared.roles == {"qa"}:\n',
        new="    if False:\n",
        test="tests/unit/test_presets.py::"
        "test_every_combination_of_roles_plans_or_is_refused_by_the_presets_name",
    ),
    Mutation(
        promise="a warm-up of one's own does not move the switch of reuse",
        file="recipe/presets.py",
        old='{"lr_below": "peak/5"}',
        new='{"lr_below": "start/5"}',
        test="tests/unit/test_presets.py::test_a_warmup_of_ones_own_moves_no_switch",
    ),
    Mutation(
        promise="advice says nothing that is not so",
        file="recipe/advice.py",
        old="    if situation.declared.final_lr == 0:\n        return",
        new="    if not situation.declared.final_lr:\n        return",
        test="tests/unit/test_presets.py::test_advice_says_nothing_that_is_not_so",
    ),
    Mutation(
        promise="later warm-ups of a cyclic schedule begin where the cycle before ended",
        file="planning/curves.py",
        old="        from_lr = rates.final if specs else 0.0\n",
        new="        from_lr = 0.0\n",
        test="tests/unit/test_curves.py::test_rewarm_then_redecay_and_cycles",
    ),
    Mutation(
        promise="what init writes as comments is what the preset fills in",
        file="recipe/setting.py",
        old='        return f"{value:g}".replace("e-0", "e-")\n',
        new='        return f"{value:.1f}"\n',
        test="tests/unit/test_init_preset.py::"
        "test_what_stands_in_comments_is_what_the_preset_fills_in",
    ),
    Mutation(
        promise="a rate that nobody has said is assumed aloud in the recipe",
        file="stages/init_preset.py",
        old="        *_rate_that_is_missing(choice),\n",
        new="",
        test="tests/unit/test_init_preset.py::"
        "test_without_rates_one_is_assumed_aloud_and_nowhere_else",
    ),
    Mutation(
        promise="each batch of samples has random numbers of its own",
        file="retention/batch_maker.py",
        old="            uniforms(self._recipe.seed, batch, ",
        new="            uniforms(self._recipe.seed, 0, ",
        test="tests/unit/test_rehearsal.py::test_the_ids_are_stored_as_the_base_wrote_them",
    ),
    Mutation(
        promise="what was sampled is not sampled again",
        file="retention/rehearsal.py",
        old="        part = read_part(path)\n",
        new="        part = None\n",
        test="tests/unit/test_rehearsal.py::test_a_part_is_only_made_where_it_is_not_whole",
    ),
    Mutation(
        promise="samples never begin like held-out documents",
        file="stages/rehearse.py",
        old="open_view(_prepared(job, rehearsal, wanted)), encoder",
        new="open_view(_prepared(job, rehearsal, wanted), held_out=True), encoder",
        test="tests/unit/test_rehearsal.py::"
        "test_samples_begin_like_training_documents_and_never_like_held_out_ones",
    ),
    Mutation(
        promise="the base's distribution lies beside the tokens that it predicts",
        file="retention/sampling.py",
        old="        first = place + 1 - logits.shape[1]\n",
        new="        place -= 1\n        first = place + 1 - logits.shape[1]\n",
        test="tests/unit/test_rehearsal.py::test_the_distribution_is_aligned_with_the_labels",
    ),
    Mutation(
        promise="another base is sampled anew",
        file="corpus/rehearsed.py",
        old='            "weights": model.weights_fingerprint,\n',
        new="",
        test="tests/unit/test_rehearsal.py::test_the_key_is_of_what_decides_the_text",
    ),
    Mutation(
        promise="sampling on another machine is told",
        file="retention/rehearsal.py",
        old="        if others:\n",
        new="        if False:\n",
        test="tests/unit/test_rehearsal.py::test_another_machine_is_told",
    ),
    Mutation(
        promise="a special token within a sample drops it",
        file="retention/degenerate.py",
        old="        if holds_special_token:\n",
        new="        if False:\n",
        test="tests/unit/test_degenerate.py::test_each_reason",
    ),
    Mutation(
        promise="near-duplicates of what is kept are dropped",
        file="corpus/near_duplicates.py",
        old="> self._max_similarity for index in near):",
        new="> 1 for index in near):",
        test="tests/unit/test_degenerate.py::test_near_duplicates_are_told_from_the_rest",
    ),
    Mutation(
        promise="a base whose cache changes what it predicts is refused",
        file="model/growing_cache.py",
        old="    if not difference <= _TOLERANCE",
        new="    if False and not difference <= _TOLERANCE",
        test="tests/unit/test_sampling.py::test_a_cache_that_changes_predictions_is_refused",
    ),
    Mutation(
        promise="token shards of another tokenizer are refused",
        file="corpus/token_shards.py",
        old="    if named != tokenizer:\n",
        new="    if False:\n",
        test="tests/unit/test_token_shards.py::"
        "test_the_tokenizer_that_a_manifest_names_must_be_the_bases",
    ),
    Mutation(
        promise="a token shard is held against the hash in its manifest",
        file="corpus/token_shards.py",
        old="        if wanted is not None and file_sha256(path) != wanted:\n",
        new="        if False:\n",
        test="tests/unit/test_token_shards.py::test_a_shard_is_held_against_the_hash_in_its_manifest",
    ),
    Mutation(
        promise="what a run never trained is merged as its base has it",
        file="stages/merge_inputs.py",
        old="        if not frozen:\n",
        new="        if True:\n",
        test="tests/unit/test_merge_run.py::test_what_a_run_never_trained_is_taken_from_its_base",
    ),
    Mutation(
        promise="a method of one model takes none of several",
        file="stages/merge_methods.py",
        old="    _note_several(method, len(models), problems)\n",
        new="",
        test="tests/unit/test_merge_run.py::test_steps_of_a_run_and_all_that_it_keeps",
    ),
    Mutation(
        promise="what is being written is not removed by another",
        file="artifacts.py",
        old="            with contextlib.suppress(OSError), _lock_at_once(leftover):\n",
        new="            if True:\n",
        test="tests/unit/test_artifacts.py::"
        "test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not",
    ),
    Mutation(
        promise="a base that is not finite is not expanded",
        file="model/expand.py",
        old="                    spoilt[name] = None\n",
        new="                    pass\n",
        test="tests/unit/test_expand.py::test_a_base_that_is_not_finite_is_named",
    ),
    Mutation(
        promise="a damaged expansion does not count as expanded",
        file="export/expanded.py",
        old="    return mark.problems\n",
        new="    return []\n",
        test="tests/unit/test_expand.py::test_a_second_time_nothing_is_written",
    ),
    Mutation(
        promise="grids of rates share an end",
        file="evaluation/lr_search.py",
        old="    return (_three_digits(middle / STEP), middle, _three_digits(middle * STEP))\n",
        new="    return (_three_digits(around / STEP), middle, _three_digits(around * STEP))\n",
        test="tests/unit/test_lr_search.py::test_the_next_three_share_a_rate_with_these",
    ),
    Mutation(
        promise="another version's plan is not taken for one that was edited",
        file="planning/plan.py",
        old="    if isinstance(written, int) and written != PLAN_FORMAT:\n",
        new="    if False:\n",
        test="tests/unit/test_plan.py::test_a_plan_of_another_version_is_no_plan_that_was_edited",
    ),
    Mutation(
        promise="a copy of a block adds nothing",
        file="model/expand.py",
        old="        silent = expansion.silent.get(within_layer(name)) if is_copy else None\n",
        new="        silent = expansion.silent.get(within_layer(name)) if False else None\n",
        test="tests/unit/test_expand.py::test_it_computes_what_its_base_does",
    ),
    Mutation(
        promise="a copy whose norm is left behind its projection is silenced at the norm",
        file="model/expand.py",
        old="    for closing in by_name if known is None else (known,):\n",
        new="    for closing in _BY_NAME:\n",
        test="tests/unit/test_expand.py::test_it_computes_what_its_base_does",
    ),
    Mutation(
        promise="an expanded base that computes something else is refused",
        file="export/expanded.py",
        old="    if not torch.equal(logits, expected):\n",
        new="    if False:\n",
        test="tests/unit/test_expand.py::test_blocks_that_depend_on_their_number_are_refused",
    ),
    Mutation(
        promise="moved layers keep their kind of attention",
        file="model/expand.py",
        old="        **expanded_lists(effective, expansion),\n",
        new="",
        test="tests/unit/test_expand.py::test_layers_keep_their_kind",
    ),
    Mutation(
        promise="of an expanded base the copies alone train",
        file="planning/trainable.py",
        old="            return layer in names.expanded\n",
        new="            return layer is not None\n",
        test="tests/unit/test_expand.py::test_the_copies_alone_train_resume_and_are_exported",
    ),
    Mutation(
        promise="copies of an earlier expansion are listed where they now are",
        file="model/expand.py",
        old="    had = {source.index(layer) for layer in base.facts.expanded_layers}\n",
        new="    had = set(base.facts.expanded_layers)\n",
        test="tests/unit/test_expand.py::test_an_expanded_base_lists_both",
    ),
    Mutation(
        promise="prompts of conversations carry no loss",
        file="corpus/views.py",
        old="        self.drop_uncounted(labels, self.label_pieces(windows, sequence_length))\n",
        new="",
        test="tests/unit/test_chat_source.py::test_from_command_to_command",
    ),
    Mutation(
        promise="a label's mask is that of the label, not of the input before it",
        file="corpus/views.py",
        old="[~masks[shard][start : start + count]]",
        new="[~masks[shard][start - 1 : start - 1 + count]]",
        test="tests/unit/test_chat_source.py::"
        "test_masks_stand_beside_the_tokens_and_are_read_with_them",
    ),
    Mutation(
        promise="prompts of conversations carry no loss in packed windows either",
        file="corpus/packed.py",
        old="self._view.drop_uncounted(labels, self.label_pieces(windows, sequence_length))",
        new="pass",
        test="tests/unit/test_chat_source.py::test_packed_conversations_keep_their_masks",
    ),
    Mutation(
        promise="a source whose masks are gone is not opened",
        file="corpus/views.py",
        old="if (facts.num_label_tokens is not None or masks) and len(masks) != len(shards):",
        new="if False:",
        test="tests/unit/test_chat_source.py::"
        "test_a_mask_that_is_gone_or_changed_is_never_all_labels",
    ),
    Mutation(
        promise="an answer that is no continuation of its prompt is refused",
        file="corpus/chat.py",
        old="if not behind.startswith(before) or not whole.startswith(behind):",
        new="if not behind.startswith(before):",
        test="tests/unit/test_chat_source.py::"
        "test_a_template_that_rewrites_what_was_said_is_refused",
    ),
    Mutation(
        promise="what follows the end of a turn is not learned",
        file="corpus/chat.py",
        old="                    last = int(ends[closing][0])\n",
        new="                    pass\n",
        test="tests/unit/test_chat_source.py::"
        "test_answers_with_their_end_are_learned_and_nothing_else_is",
    ),
    Mutation(
        promise="nobody ends a turn by writing its token",
        file="corpus/chat.py",
        old='if any(name in message["content"] for message in messages for name in '
        "self._special_names):",
        new="if False:",
        test="tests/unit/test_chat_source.py::test_a_special_token_in_what_was_said_is_rejected",
    ),
    Mutation(
        promise="another chat template is another preparation",
        file="corpus/place.py",
        old='if self.source.format == "chat":',
        new="if False:",
        test="tests/unit/test_chat_source.py::test_another_template_is_another_preparation",
    ),
    Mutation(
        promise="a remote file that ends early is not taken for whole",
        file="corpus/files.py",
        old="            if not data:\n                raise _CutOffError",
        new="            if False:\n                raise _CutOffError",
        test="tests/unit/test_remote_inputs.py::"
        "test_an_end_before_the_size_that_was_told_is_no_end",
    ),
    Mutation(
        promise="after a failure reading goes on where it was",
        file="corpus/files.py",
        old="            opened.seek(position)\n",
        new="",
        test="tests/unit/test_remote_inputs.py::"
        "test_what_fails_on_the_way_is_tried_again_where_it_was",
    ),
    Mutation(
        promise="a remote file that changed is prepared anew",
        file="corpus/files.py",
        old="        return file.size, file.version\n",
        new='        return file.size, ""\n',
        test="tests/unit/test_remote_inputs.py::"
        "test_prepared_once_and_again_only_where_its_side_says_it_changed",
    ),
    Mutation(
        promise="a remote file is asked for anew before it is sealed",
        file="corpus/files.py",
        old="return file if isinstance(file, RemoteFile) and not file.is_pinned else None",
        new="return None",
        test="tests/unit/test_remote_inputs.py::"
        "test_a_file_that_changes_while_it_is_prepared_is_refused",
    ),
    Mutation(
        promise="no secret of a URL is repeated",
        file="recipe/sources.py",
        old="    return masked(place) != place or _SIGNED.search(query) is not None\n",
        new="    return masked(place) != place\n",
        test="tests/unit/test_remote_inputs.py::test_a_secret_in_a_url_is_refused_and_not_repeated",
    ),
    Mutation(
        promise="records of csv are capped in all",
        file="corpus/delimited.py",
        old="        if self._size > self._caps.line_bytes + 1:\n",
        new="        if False:\n",
        test="tests/unit/test_delimited.py::"
        "test_many_short_fields_on_many_lines_are_capped_together",
    ),
    Mutation(
        promise="bytes of csv that are no UTF-8 are rejected",
        file="corpus/delimited.py",
        old='        "".join(fields).encode("utf-8")\n',
        new="        pass\n",
        test="tests/unit/test_delimited.py::test_bad_records_are_counted_and_reading_goes_on",
    ),
    Mutation(
        promise="a record of csv with other fields than columns is rejected",
        file="corpus/delimited.py",
        old="    if len(fields) != len(columns):\n",
        new="    if len(fields) < len(columns):\n",
        test="tests/unit/test_delimited.py::test_bad_records_are_counted_and_reading_goes_on",
    ),
    Mutation(
        promise="data sets of the hub are pinned to a commit",
        file="corpus/hub.py",
        old='f"hf://datasets/{hub.id}@{commit}/{entry.path}"',
        new='f"hf://datasets/{hub.id}/{entry.path}"',
        test="tests/unit/test_hub_datasets.py::test_through_the_hub_s_own_client",
    ),
    Mutation(
        promise="rejected documents can be looked at",
        file="corpus/records.py",
        old="            self.kept.append(Reject(where, reason, _excerpt(content)))\n",
        new="            pass\n",
        test="tests/unit/test_source_provenance.py::test_what_was_not_taken_can_be_looked_at",
    ),
    Mutation(
        promise="languages and licences are counted over what is trained on",
        file="corpus/tags.py",
        old="            if is_shown:\n",
        new="            if True:\n",
        test="tests/unit/test_source_provenance.py::test_only_what_is_trained_on_is_counted",
    ),
    Mutation(
        promise="what the reference has too is not scored by a model that saw it",
        file="corpus/quality.py",
        old="            if other != fold\n",
        new="",
        test="tests/unit/test_quality.py::test_perplexities_are_those_of_the_reference_s_model",
    ),
    Mutation(
        promise="no classifier scores what it was fitted to",
        file="corpus/quality.py",
        old="theirs, ours = reference.without(fold), own.without(fold)",
        new="theirs, ours = reference.without(fold), own.documents",
        test="tests/unit/test_quality.py::test_no_classifier_scores_what_it_was_fitted_to",
    ),
    Mutation(
        promise="equal scores go by the hash of the text",
        file="corpus/selection.py",
        old="(places, hashes, worst_last, unscored)",
        new="(hashes, places, worst_last, unscored)",
        test="tests/unit/test_selection.py",
    ),
    Mutation(
        promise="what could not be scored is kept last",
        file="corpus/selection.py",
        old="(places, hashes, worst_last, unscored)",
        new="(places, hashes, worst_last)",
        test="tests/unit/test_selection.py",
    ),
    Mutation(
        promise="a selection is part of the plan's fingerprint",
        file="corpus/scores.py",
        old='"tokens": fingerprint([facts.tokens, digest])',
        new='"tokens": facts.tokens',
        test="tests/unit/test_quality.py::test_another_share_is_planned_without_scoring",
    ),
    Mutation(
        promise="the training view holds what is selected alone",
        file="corpus/views.py",
        old="    return kept[chosen_documents(facts.selection, num_tokens[kept], hashes[kept])]\n",
        new="    return kept\n",
        test="tests/unit/test_quality.py::test_what_is_like_the_reference_is_kept",
    ),
    Mutation(
        promise="scores that keep other documents than planned are refused",
        file="corpus/selection.py",
        old="    if digest_of(kept) != selection.kept:\n",
        new="    if False:\n",
        test="tests/unit/test_quality.py::test_scores_that_keep_others_than_planned_are_refused",
    ),
    Mutation(
        promise="damaged scores are told before training",
        file="corpus/sealed.py",
        old="    if facts.selection is not None:\n",
        new="    if False:\n",
        test="tests/unit/test_quality.py::"
        "test_damaged_scores_are_told_before_training_and_made_again",
    ),
    Mutation(
        promise="what was scored before a kill is not scored again",
        file="corpus/scores.py",
        old="        if piece is None:\n",
        new="        if True:\n",
        test="tests/unit/test_quality.py::test_what_was_scored_before_a_kill_is_not_scored_again",
    ),
    Mutation(
        promise="a reference that holds held-out text is told",
        file="corpus/overlap.py",
        old="        if facts.name not in trained and facts.name not in references:\n",
        new="        if facts.name not in trained:\n",
        test="tests/unit/test_quality.py::test_held_out_text_in_a_reference_is_told",
    ),
    Mutation(
        promise="held-out questions are not stored to be asked",
        file="corpus/encoding.py",
        old="asked = None if held_out else [document.question, document.answer]",
        new="asked = [document.question, document.answer]",
        test="tests/unit/test_mining.py::test_held_out_documents_and_questions_take_no_part",
    ),
    Mutation(
        promise="a document ranks by its best place before its similarity",
        file="corpus/mining.py",
        old="scores = places + 1 / (1 + nearest.similarities)",
        new="scores = places * 0 + 1 / (1 + nearest.similarities)",
        test="tests/unit/test_mining.py::test_a_score_is_the_best_place_and_how_unlike_it_is_there",
    ),
    Mutation(
        promise="what is no question's neighbour is never kept",
        file="corpus/selection.py",
        old="        best_first = best_first[: int((~unscored).sum())]\n",
        new="        pass\n",
        test="tests/unit/test_selection.py",
    ),
    Mutation(
        promise="equally near documents go by the hash of the text",
        file="corpus/neighbours.py",
        old="np.lexsort((hashes[documents], -similarities, queries))",
        new="np.lexsort((-similarities, queries))",
        test="tests/unit/test_neighbours.py::test_the_nearest_are_those_of_all_pairs_whatever_the_pieces",
    ),
    Mutation(
        promise="of equally near vectors none is missed",
        file="corpus/neighbours.py",
        old="tied = products[:, -1] == products[:, -2]",
        new="tied = products[:, -1] != products[:, -1]",
        test="tests/unit/test_neighbours.py::test_a_dense_search_misses_none_that_is_as_near",
    ),
    Mutation(
        promise="inner products of vectors are exact",
        file="corpus/neighbours.py",
        old="np.rint(vectors",
        new="np.asarray(vectors",
        test="tests/unit/test_neighbours.py::test_inner_products_of_whole_numbers_are_exact_in_any_order",
    ),
    Mutation(
        promise="what all questions say tells none apart",
        file="corpus/term_vectors.py",
        old="without = 1 - having / (len(texts) + 1)",
        new="without = 1 - 0 * having / (len(texts) + 1)",
        test="tests/unit/test_neighbours.py::test_similarities_are_those_of_the_formula",
    ),
    Mutation(
        promise="of copies one is mined",
        file="corpus/mining.py",
        old="documents = np.flatnonzero(source.is_first[first:last]) + first",
        new="documents = np.arange(first, last)",
        test="tests/unit/test_mining.py::test_of_copies_one_is_mined_and_of_near_copies_the_nearest",
    ),
    Mutation(
        promise="of near copies the nearest is mined",
        file="corpus/near_copies.py",
        old="        stays[farther] &= not stays[nearer]\n",
        new="        pass\n",
        test="tests/unit/test_neighbours.py::test_near_copies_of_a_nearer_one_that_stays_are_dropped",
    ),
    Mutation(
        promise="what was searched before a kill is not searched again",
        file="corpus/mining.py",
        old="for number, (first, last) in enumerate(pieces[num_done:], start=num_done):",
        new="for number, (first, last) in enumerate(pieces):",
        test="tests/unit/test_mining.py::test_a_killed_search_goes_on_to_the_same_bytes",
    ),
    Mutation(
        promise="a search holds one piece of documents at a time",
        file="corpus/mining.py",
        old="pieces_of(source.view.offsets[1:], self.tokens_per_piece)",
        new="pieces_of(source.view.offsets[1:], 2**40)",
        test="tests/unit/test_mining.py::test_what_is_held_does_not_grow_with_the_source",
    ),
    Mutation(
        promise="neighbours belong to the weights of the model that embedded",
        file="corpus/scores.py",
        old='"embedding": self.embedding or keep.embedding,',
        new='"embedding": keep.embedding,',
        test="tests/unit/test_mining.py::test_other_weights_are_another_embedding",
    ),
    Mutation(
        promise="neighbours that hold fewer tokens than asked for are told",
        file="corpus/scores.py",
        old="if keep.nearest is not None and num_kept_tokens < wanted:",
        new="if keep.nearest is not None and num_kept_tokens < 0:",
        test="tests/unit/test_mining.py::test_fewer_tokens_than_asked_for_are_told",
    ),
    Mutation(
        promise="counts of shorter runs are of what stands before them",
        file="corpus/ngram.py",
        old="places = np.concatenate((counted[0].last, begin_a_document))",
        new="places = np.flatnonzero(text.depth >= length)",
        test="tests/unit/test_ngram.py",
    ),
    Mutation(
        promise="runs of one seed are paired",
        file="comparison/arms.py",
        old='tree["seed"] = order_seed(seed) if self.kind == "noise floor" else seed',
        new='tree["seed"] = order_seed(seed) + len(self.name)',
        test="tests/unit/test_comparison_experiment.py::test_seeds_are_shared_and_mark_the_base",
    ),
    Mutation(
        promise="differences are taken within a seed",
        file="comparison/effects.py",
        old="own[seed] - others[seed] for seed in seeds",
        new="own[seed] - others[seeds[0]] for seed in seeds",
        test="tests/unit/test_comparison_verdict.py::test_pairs_are_of_one_seed",
    ),
    Mutation(
        promise="a spread of rounding makes no difference certain",
        file="comparison/paired.py",
        old="<= _ROUNDING * largest\n",
        new="<= 0.0 * largest\n",
        test="tests/unit/test_comparison_verdict.py::"
        "test_what_is_the_same_in_each_of_three_seeds_is_not_resolved",
    ),
    Mutation(
        promise="differences without spread are tested by their signs",
        file="comparison/paired.py",
        old="p = 1.0 if is_zero else 2.0 * 0.5**count\n",
        new="p = 1.0 if is_zero else 0.0\n",
        test="tests/unit/test_comparison_statistics.py::"
        "test_differences_without_spread_are_tested_by_their_signs",
    ),
    Mutation(
        promise="a margin without spread is tested by signs",
        file="comparison/paired.py",
        old="return 0.5**count if lowest",
        new="return 0.0 if lowest",
        test="tests/unit/test_comparison_statistics.py::"
        "test_a_margin_without_spread_is_tested_by_signs",
    ),
    Mutation(
        promise="no detectable difference is read off seeds without spread",
        file="comparison/effects.py",
        old="    if not sd:\n",
        new="    if sd is None:\n",
        test="tests/unit/test_comparison_verdict.py::"
        "test_what_is_the_same_in_each_of_three_seeds_is_not_resolved",
    ),
    Mutation(
        promise="another claim was not stated before runs that were known",
        file="comparison/registration.py",
        old="known.before_runs and fresh.before_runs and not changed",
        new="known.before_runs and fresh.before_runs",
        test="tests/unit/test_registered_again.py::"
        "test_another_claim_was_not_stated_before_the_runs_that_were_known",
    ),
    Mutation(
        promise="an experiment registered again keeps the time of the first",
        file="comparison/registration.py",
        old='            "time": known.time,\n',
        new="",
        test="tests/unit/test_registered_again.py::"
        "test_a_new_folder_s_registration_keeps_the_first_one_s_time",
    ),
    Mutation(
        promise="a page tells what was registered again",
        file="reporting/effects.py",
        old="if known is None or (known.before_runs and not known.again):",
        new="if known is None or known.before_runs:",
        test="tests/unit/test_registered_again.py::"
        "test_a_new_folder_s_registration_keeps_the_first_one_s_time",
    ),
    Mutation(
        promise="Holm adjusts over all primary tests",
        file="comparison/paired.py",
        old="min(1.0, (len(p_values) - rank) * p_values[index])",
        new="min(1.0, p_values[index])",
        test="tests/unit/test_comparison_statistics.py::test_holm_by_hand",
    ),
    Mutation(
        promise="adjusted p-values never fall",
        file="comparison/paired.py",
        old="least = max(least, min(1.0,",
        new="least = max(0.0, min(1.0,",
        test="tests/unit/test_comparison_statistics.py::test_holm_by_hand",
    ),
    Mutation(
        promise="what is not higher may be lower by any amount",
        file="records/margins.py",
        old='    "not_higher": _Margin(\n        -math.inf,\n',
        new='    "not_higher": _Margin(\n        -1.0,\n',
        test="tests/unit/test_comparison_verdict.py::test_words",
    ),
    Mutation(
        promise="what is not lower may be higher by any amount",
        file="records/margins.py",
        old="        -1.0,\n        math.inf,\n",
        new="        -1.0,\n        1.0,\n",
        test="tests/unit/test_comparison_verdict.py::test_words",
    ),
    Mutation(
        promise="a claim up to a margin is tested at its margin, not at 0",
        file="comparison/effects.py",
        old="        p = inside_p(differences, *claimed, scale)\n",
        new="        pass\n",
        test="tests/unit/test_comparison_verdict.py::test_no_worse_by_hand",
    ),
    Mutation(
        promise="a mean lies inside where it lies on the inner side of both ends",
        file="comparison/paired.py",
        old="    return max(above, below)\n",
        new="    return min(above, below)\n",
        test="tests/unit/test_comparison_statistics.py::test_no_worse_by_hand",
    ),
    Mutation(
        promise="what lies wholly beyond its margin is against expectation",
        file="comparison/effects.py",
        old="    outside = low > claimed[1] or high < claimed[0]\n",
        new="    outside = low > claimed[1]\n",
        test="tests/unit/test_comparison_verdict.py::test_words",
    ),
    Mutation(
        promise="beyond its margin is judged at the level that all tests share",
        file="comparison/effects.py",
        old="interval_at(differences, 1.0 - LEVEL / num_tests)",
        new="interval_at(differences, 1.0 - LEVEL)",
        test="tests/unit/test_comparison_verdict.py::"
        "test_a_margin_s_tests_are_adjusted_with_the_others",
    ),
    Mutation(
        promise="a claim up to a margin names its margin, be it a contrast's own",
        file="comparison/experiment.py",
        old="expectations += [expected[metric] for expected in own if metric in expected]",
        new="pass",
        test="tests/unit/test_comparison_experiment.py::"
        "test_a_contrast_that_expects_a_margin_needs_one",
    ),
    Mutation(
        promise="a stream's claim up to a margin names its margin",
        file="stream/contradictions.py",
        old='                yield f"contrasts[{index}].within", *problem\n',
        new="                pass\n",
        test="tests/unit/test_stream_result.py::test_contrasts_that_mean_nothing_are_refused",
    ),
    Mutation(
        promise="no margin lets every share of right answers pass",
        file="comparison/experiment.py",
        old="    if not isinstance(within, int | float) or within < 1:\n",
        new="    if True:\n",
        test="tests/unit/test_comparison_experiment.py::test_everything_wrong_is_told_at_once",
    ),
    Mutation(
        promise="a margin is told of what is claimed up to it alone",
        file="records/margins.py",
        old='return (expect or "") if margin is None else margin.words.format(within)',
        new='return f"{expect} ± {within}" if margin is None else margin.words.format(within)',
        test="tests/reproduction/test_table.py::"
        "test_what_was_expected_stands_in_the_table_with_its_margin",
    ),
    Mutation(
        promise="tests that could not be made stay in the family",
        file="comparison/effects.py",
        old="    adjusted = holm([1.0 if effect.p is None else effect.p for effect in effects])",
        new="    known = iter(holm([e.p for e in effects if e.p is not None]))\n"
        "    adjusted = [1.0 if effect.p is None else next(known) for effect in effects]",
        test="tests/unit/test_comparison_verdict.py::test_what_failed_stays_in_the_family",
    ),
    Mutation(
        promise="the detectable effect counts both tails of the noncentral t",
        file="comparison/student.py",
        old="threshold = t_quantile(1.0 - level / 2.0, degrees)",
        new="threshold = t_quantile(1.0 - level, degrees)",
        test="tests/unit/test_comparison_statistics.py::test_three_and_five_seeds",
    ),
    Mutation(
        promise="both tests of equivalence have to find the margin",
        file="comparison/student.py",
        old="return _root(missed_by_one if num_ends == 1 else missed_by_two)",
        new="return _root(missed_by_one)",
        test="tests/unit/test_comparison_statistics.py::"
        "test_margins_of_many_pairs_are_those_of_the_normal",
    ),
    Mutation(
        promise="a verdict's sentence tells its power at the level that the verdict has",
        file="comparison/sentences.py",
        old="_would_find(effect, effect.detectable_holm)",
        new="_would_find(effect, effect.detectable or 0.0)",
        test="tests/unit/test_comparison_verdict.py::test_two_primaries_by_hand",
    ),
    Mutation(
        promise="the terminal's table tells the power at the level of its sentences",
        file="reporting/comparison_terminal.py",
        old="detectable_of(effect, effect.detectable_holm)",
        new="detectable_of(effect, effect.detectable)",
        test="tests/unit/test_comparison_verdict.py::"
        "test_the_terminal_s_table_says_of_power_what_its_sentences_say",
    ),
    Mutation(
        promise="what is detectable of a margin is a margin, not a difference",
        file="comparison/effects.py",
        old="num_ends=num_ends(expect))",
        new="num_ends=0)",
        test="tests/unit/test_comparison_verdict.py::test_two_primaries_by_hand",
    ),
    Mutation(
        promise="a finished run whose last evaluation was damaged is measured again",
        file="stages/lost_evaluations.py",
        old="        bench.record_newest()\n",
        new="",
        test="tests/unit/test_compare.py::"
        "test_a_finished_run_whose_last_evaluation_was_damaged_is_measured_again",
    ),
    Mutation(
        promise="a folder of a comparison that cannot be made is told",
        file="artifacts.py",
        old="        folder.mkdir(parents=True, exist_ok=True)\n    except OSError as error:\n",
        new="        folder.mkdir(parents=True, exist_ok=True)\n    except ValueError as error:\n",
        test="tests/unit/test_compare_arms.py::test_a_folder_that_cannot_be_made_is_told",
    ),
    Mutation(
        promise="evaluations that are lost for good are told, with the file and the remedy",
        file="stages/compare.py",
        old="        states = seen_whole(launches, states)\n",
        new="",
        test="tests/unit/test_compare_arms.py::"
        "test_a_run_that_lost_evaluations_on_its_way_is_told_and_left_out",
    ),
    Mutation(
        promise="a stream's run that lacks evaluations on its way is told",
        file="stages/stream_corpora.py",
        old="        states = seen_whole(launches, states)\n",
        new="",
        test="tests/unit/test_stream_corpora.py::"
        "test_a_run_that_lost_what_was_measured_on_its_way_is_told",
    ),
    Mutation(
        promise="a run that lacks evaluations on its way is none that is done",
        file="evaluation/curves.py",
        old="and not wanted <= measured.get(step, set())",
        new="and not wanted",
        test="tests/unit/test_lost_evaluations.py::"
        "test_a_run_that_lost_evaluations_on_its_way_is_not_concluded_upon",
    ),
    Mutation(
        promise="claims cannot change once a run has begun",
        file="comparison/registration.py",
        old="        _check_same(known, claims, written)\n",
        new="        pass\n",
        test="tests/unit/test_compare.py::test_claims_are_fixed_once_a_run_has_begun",
    ),
    Mutation(
        promise="claims are fixed by runs of other seeds, too",
        file="records/comparison_folder.py",
        old='self.path.glob("runs/*/seed-*")',
        new="()",
        test="tests/unit/test_compare.py::test_claims_are_fixed_once_a_run_has_begun",
    ),
    Mutation(
        promise="claims that are younger than the runs are told",
        file="comparison/registration.py",
        old="before_runs=not has_begun",
        new="before_runs=True",
        test="tests/unit/test_compare.py::test_a_claim_written_after_the_runs_is_told",
    ),
    Mutation(
        promise="a run that is done is not made again",
        file="records/run_folder.py",
        old="        return bool(places[0]) and places[0] <= places[step]\n",
        new="        return False\n",
        test="tests/unit/test_compare.py::test_what_is_done_is_not_made_again",
    ),
    Mutation(
        promise="a run ends with the comparison that began it",
        file="stages/launches.py",
        old="    os.kill(os.getpid(), signal.SIGTERM)\n",
        new="",
        test="tests/resume/test_compare_kills.py::test_a_killed_comparison_goes_on",
    ),
    Mutation(
        promise="a question whose answer is among its wrong choices too is refused",
        file="evaluation/tasks.py",
        old="    if choices.count(choices[answer]) > 1:\n",
        new="    if False:\n",
        test="tests/unit/test_evaluation_tasks.py::"
        "test_what_no_item_can_be_is_told_with_file_and_line",
    ),
    Mutation(
        promise="a number of thousands of digits is told in words for people",
        file="artifacts.py",
        old='        raise ValueError("a number has thousands of digits") from error\n',
        new="        raise\n",
        test="tests/unit/test_evaluation_tasks.py::"
        "test_what_no_item_can_be_is_told_with_file_and_line",
    ),
    Mutation(
        promise="a model that is not there is told by its option",
        file="stages/evaluate.py",
        old='BaseModelError.one("--model", f',
        new='BaseModelError.one("", f',
        test="tests/unit/test_against.py::test_a_model_that_is_not_there_is_told_by_its_option",
    ),
    Mutation(
        promise="SIGTERM to a comparison lets its runs save and end, as a key press does",
        file="stages/compare.py",
        old="with sigterm_raises(), hold_lock(",
        new="with hold_lock(",
        test="tests/resume/test_compare_kills.py::test_a_key_press_or_sigterm_lets_the_runs_save",
    ),
    Mutation(
        promise="a second SIGTERM does not cut an ending short",
        file="stages/terminated.py",
        old="        signal.signal(signal.SIGTERM, lambda number, frame: None)\n",
        new="",
        test="tests/unit/test_launches.py::test_sigterm_is_raised_once_and_given_back",
    ),
    Mutation(
        promise="claims that are damaged are told on the live page",
        file="reporting/experiment_view.py",
        old="    except (KeyError, TypeError, ValueError):\n        return None\n    return known",
        new="    except ZeroDivisionError:\n        return None\n    return known",
        test="tests/unit/test_watch_experiment.py::test_damaged_claims_are_a_page_and_no_silence",
    ),
    Mutation(
        promise="a control with another schedule or with new text is told",
        file="stages/against.py",
        old="        warnings += _doubts(load_plan(run.plan), load_plan(control[1].plan), "
        "str(control[0]))\n",
        new="        pass\n",
        test="tests/unit/test_against.py::test_a_control_that_is_none_is_told",
    ),
    Mutation(
        promise="a run of old text alone is told as no joint training",
        file="stages/against.py",
        old="        warnings += _joint_doubts(load_plan(run.plan), joint[1], str(joint[0]))\n",
        new="        pass\n",
        test="tests/unit/test_against.py::test_a_joint_run_that_is_none_is_told",
    ),
    Mutation(
        promise="runs take none but the GPUs that this process may use",
        file="stages/launches.py",
        old="    if given is not None and wanted:\n",
        new="    if given is None and wanted:\n",
        test="tests/unit/test_comparison_jobs.py::test_runs_share_out_the_gpus_that_they_may_use",
    ),
    Mutation(
        promise="an arm with another budget has to say why",
        file="stages/compared_runs.py",
        old="if not same and arm.budget_differs is None:",
        new="if False:",
        test="tests/unit/test_compare_arms.py::test_budgets_and_metrics_of_all_arms_are_looked_at",
    ),
    Mutation(
        promise="arms are measured on the same text",
        file="stages/compared_runs.py",
        old="    _check_measured_alike(found, problems)\n",
        new="",
        test="tests/unit/test_compare_arms.py::test_budgets_and_metrics_of_all_arms_are_looked_at",
    ),
    Mutation(
        promise="means are over text that every arm is measured on",
        file="comparison/metrics.py",
        old="set.intersection(*filter(None, named))",
        new="set.union(*filter(None, named))",
        test="tests/unit/test_compare_arms.py::test_means_are_over_what_every_arm_is_measured_on",
    ),
    Mutation(
        promise="the interval of a mean is of the text that counts for it",
        file="comparison/documents.py",
        old="if common is None or p[1] in common}",
        new="}",
        test="tests/unit/test_comparison_verdict.py::test_documents_of_one_seed",
    ),
    Mutation(
        promise="an arm that begins elsewhere is counted from the control's base",
        file="comparison/metrics.py",
        old="    return [*first, *(record for record in records if record.step > 0)]\n",
        new="    return list(records)\n",
        test="tests/unit/test_comparison_verdict.py::test_one_base_for_all",
    ),
    Mutation(
        promise="an answer's contrast is with another question",
        file="evaluation/answers.py",
        old="next(question for question in further if question != own)",
        new="next(further)",
        test="tests/unit/test_evaluation_measures.py"
        "::test_a_contrast_is_own_question_less_anothers_item_by_item",
    ),
    Mutation(
        promise="forgetting is measured from the best accuracy, not from the first",
        file="stream/metrics.py",
        old="[max(matrix[t][k] for t in range(k, last)) - final[k] for k in range(last)]",
        new="[matrix[k][k] - final[k] for k in range(last)]",
        test="tests/unit/test_stream.py::test_forgetting_is_from_the_best_accuracy",
    ),
    Mutation(
        promise="a reservoir keeps every example equally often",
        file="stream/memory.py",
        old="place = int(generator.integers(self._num_offered))",
        new="place = int(generator.integers(self._num_offered - 1))",
        test="tests/unit/test_stream.py::test_a_reservoir_keeps_every_example_equally_often",
    ),
    Mutation(
        promise="a second pass over a task puts no copies into the memory",
        file="stream/learning.py",
        old="            if index not in self.offered:",
        new="            if True:",
        test="tests/parity/test_stream_learners.py"
        "::test_a_second_pass_puts_no_copies_into_the_memory",
    ),
    Mutation(
        promise="GDumb and joint begin at the first weights after each task",
        file="stream/rehearsing.py",
        old="        self._learning.network.load_state_dict(self._first)\n",
        new="",
        test="tests/parity/test_stream_learners.py::test_training_anew_begins_at_the_first_weights",
    ),
    Mutation(
        promise="MIR rehearses by the rise of the loss, not by the loss",
        file="stream/rehearsing.py",
        old="rise = self._losses(ahead, candidates) - self._losses(learning.network, candidates)",
        new="rise = self._losses(learning.network, candidates)",
        test="tests/parity/test_stream_learners.py::test_maximally_interfered_retrieval",
    ),
    Mutation(
        promise="a stream's run that was stopped draws what it would have drawn",
        file="stream/course.py",
        old="            learning.draw_anew(progress.moment)\n            with learning",
        new="            with learning",
        test="tests/resume/test_stream_resume.py::test_a_stopped_run_comes_to_the_same[er]",
    ),
    Mutation(
        promise="a stream's checkpoint holds the teacher",
        file="stages/stream_run.py",
        old='        self._built.own.restore(State(part("own", tensors), facts["own"]))\n',
        new="",
        test="tests/resume/test_stream_resume.py::test_a_stopped_run_comes_to_the_same[lwf]",
    ),
    Mutation(
        promise="a task that has begun does not begin again after a stop",
        file="stream/course.py",
        old="        if progress.step == 0:\n",
        new="        if True:\n",
        test="tests/resume/test_stream_resume.py::test_a_stopped_run_comes_to_the_same[icarl]",
    ),
    Mutation(
        promise="a probe is measured on examples that it was not fitted to",
        file="stream/probe.py",
        old="measured.append(drawn[middle:])",
        new="measured.append(drawn[:middle])",
        test="tests/unit/test_stream_probe.py"
        "::test_a_probe_is_dealt_from_candidates_alone_and_in_halves",
    ),
    Mutation(
        promise="the preset runs on the backbone that is probed best",
        file="stages/stream_runs.py",
        old="best = max(found, key=",
        new="best = min(found, key=",
        test="tests/unit/test_stream_probe.py"
        "::test_the_preset_takes_the_backbone_that_the_probe_finds_best",
    ),
    Mutation(
        promise="gains are held against gains seed by seed",
        file="stages/stream_result.py",
        old="found[seed] - less[0][seed] for seed",
        new="found[seed] - less[0][1] for seed",
        test="tests/unit/test_stream_result.py::test_a_gain_is_held_against_a_gain_seed_by_seed",
    ),
    Mutation(
        promise="contrasts of a stream are fixed once a run has begun",
        file="stages/stream.py",
        old="has_begun=runs.have_begun()",
        new="has_begun=False",
        test="tests/unit/test_stream_result.py::test_contrasts_are_fixed_once_a_run_has_begun",
    ),
    Mutation(
        promise="features of a text do not hang on the texts beside it",
        file="stream/network.py",
        old="self.second(hidden * there)",
        new="self.second(hidden)",
        test="tests/unit/test_stream_backbones.py"
        "::test_features_from_scratch_do_not_hang_on_the_texts_beside_them",
    ),
    Mutation(
        promise="a loss that has risen was forgotten",
        file="stream/metrics.py",
        old="[[-loss for loss in row] for row in matrix]",
        new="[[loss for loss in row] for row in matrix]",
        test="tests/unit/test_stream_corpora.py::test_metrics_of_losses_by_hand",
    ),
    Mutation(
        promise="of bits per byte fewer are better",
        file="stages/stream_result.py",
        old='is_loss = self._measure == "bits per byte" and metric in _LEVELS',
        new="is_loss = False",
        test="tests/unit/test_stream_corpora.py"
        "::test_differences_are_told_in_bits_and_less_is_better",
    ),
    Mutation(
        promise="a memory of documents keeps what was shown alone",
        file="stages/stream_corpora_plans.py",
        old="documents_of_phase(plan, task - 1, last))",
        new="range(100))",
        test="tests/unit/test_stream_corpora.py"
        "::test_a_memory_holds_what_the_tasks_before_have_shown",
    ),
    Mutation(
        promise="a memory of documents hangs on the seed",
        file="stream/documents.py",
        old="np.random.default_rng((self.seed, _MEMORY, task))",
        new="np.random.default_rng((_MEMORY, task))",
        test="tests/unit/test_stream_corpora.py"
        "::test_a_memory_of_documents_hangs_on_the_seed_and_on_what_was_shown_alone",
    ),
    Mutation(
        promise="what is replayed takes the stream's place in a step",
        file="stream/courses.py",
        old="{corpus: batch - of_memory, memory_name(task): of_memory}",
        new="{corpus: batch, memory_name(task): of_memory}",
        test="tests/unit/test_stream_corpora.py"
        "::test_tasks_are_phases_of_one_run_with_as_many_steps_for_every_learner",
    ),
    Mutation(
        promise="a row of the matrix is what was measured at the end of its task",
        file="stages/stream_corpora_records.py",
        old="            end = tasks.ends[row]\n",
        new="            end = tasks.ends[-1]\n",
        test="tests/unit/test_stream_corpora.py"
        "::test_the_matrix_is_what_was_measured_at_the_ends_of_tasks",
    ),
    Mutation(
        promise="a damaged memory is written anew",
        file="stages/stream_memory.py",
        old=" and not manifest_problems(folder, manifest)",
        new="",
        test="tests/unit/test_stream_corpora.py::test_a_damaged_memory_is_written_anew_to_the_byte",
    ),
    Mutation(
        promise="a source that holds nothing out does not send the others through curation again",
        file="stages/curating.py",
        old="if facts.held_out_documents or not facts.measured",
        new="if True",
        test="tests/unit/test_stream_corpora.py"
        "::test_a_memory_does_not_send_the_corpora_through_curation_again",
    ),
    Mutation(
        promise="a done run of a stream of corpora is held to its settings",
        file="stages/stream_corpora_keep.py",
        old="            keep_plan(run.plan, run.job, fix=FIX)\n",
        new="            if not run.launch.is_done:\n"
        "                keep_plan(run.plan, run.job, fix=FIX)\n",
        test="tests/unit/test_stream_corpora.py::test_a_run_that_is_done_is_held_to_its_settings",
    ),
    Mutation(
        promise="a run of a stream of corpora is measured in one way",
        file="stages/stream_corpora_keep.py",
        old="            _check_measured_alike(run.plan, run.job.run)\n",
        new="",
        test="tests/unit/test_stream_corpora.py::test_a_run_that_is_done_is_held_to_its_settings",
    ),
    Mutation(
        promise="figures whose plan is lost are not believed",
        file="stages/stream_corpora_keep.py",
        old="        if run.checkpoints.exists():\n",
        new="        if True:\n",
        test="tests/unit/test_stream_corpora.py::test_figures_whose_plan_is_lost_are_not_believed",
    ),
    Mutation(
        promise="backbones of one name on the disk begin from bases of their own",
        file="stages/stream_corpora_plans.py",
        old='self.written.folder / "bases" / backbone',
        new='self.written.folder / "bases"',
        test="tests/unit/test_stream_corpora.py"
        "::test_backbones_of_one_name_on_the_disk_begin_from_bases_of_their_own",
    ),
    Mutation(
        promise="MIR's looks hang on no dropout",
        file="stream/rehearsing.py",
        old="        with evaluating(learning.network):\n            gradient",
        new="        if True:\n            gradient",
        test="tests/parity/test_stream_learners.py"
        "::test_looks_at_examples_hang_on_no_dropout_and_leave_the_statistics_alone",
    ),
    Mutation(
        promise="EWC++'s looks hang on no dropout",
        file="stream/holding.py",
        old="        with evaluating(learning.network):\n            for row",
        new="        if True:\n            for row",
        test="tests/parity/test_stream_learners.py"
        "::test_looks_at_examples_hang_on_no_dropout_and_leave_the_statistics_alone",
    ),
    Mutation(
        promise="a batch of one example can be learned by a network with batch norms",
        file="stream/network.py",
        old="        norm.training = False\n",
        new="        pass\n",
        test="tests/parity/test_stream_learners.py"
        "::test_a_batch_of_one_takes_the_running_statistics",
    ),
    Mutation(
        promise="GSS gives up what is like others",
        file="stream/rehearsing.py",
        old="scores[place] / max(scores[place] + score, 1e-12)",
        new="score / max(scores[place] + score, 1e-12)",
        test="tests/parity/test_stream_learners.py"
        "::test_a_full_memory_of_diverse_gradients_gives_up_what_is_like_others",
    ),
    Mutation(
        promise="runs take no more threads than OMP_NUM_THREADS says",
        file="stages/launches.py",
        old="    return min(share, int(given)) if given.isdecimal() and int(given) else share\n",
        new="    return share\n",
        test="tests/unit/test_launches.py"
        "::test_threads_are_the_cores_dealt_out_and_no_more_than_allowed",
    ),
    Mutation(
        promise="a loss that runs away is told with its cell",
        file="stages/stream_run.py",
        old="                raise self._told(error) from error\n",
        new='                raise PlanError.one("backbones.*.lr", str(error), "") from error\n',
        test="tests/unit/test_stream_result.py::test_a_loss_that_runs_away_is_told_with_its_cell",
    ),
    Mutation(
        promise="every backbone is tried before anything runs",
        file="stages/stream.py",
        old="    runs.try_backbones(with_weights=not dry_run)\n",
        new="",
        test="tests/unit/test_stream_backbones.py"
        "::test_all_that_cannot_be_used_is_told_before_anything_runs",
    ),
    Mutation(
        promise="text that changed behind done runs of a comparison is told",
        file="stages/compare.py",
        old="        self._check_kept(planned)\n",
        new="",
        test="tests/unit/test_compare.py::test_text_that_changed_behind_done_runs_is_told",
    ),
    Mutation(
        promise="held-out text of the same size is told apart",
        file="stages/held_plans.py",
        old="        return np.array_equal(_hashes(old), _hashes(new))\n",
        new="        return True\n",
        test="tests/unit/test_stream_corpora.py::test_held_out_text_of_the_same_size_is_told_apart",
    ),
    Mutation(
        promise="a labelled run that is done again says so",
        file="stages/stream_keep.py",
        old="    if on_record:\n        tell(f",
        new="    if False:\n        tell(f",
        test="tests/unit/test_stream.py::test_runs_of_other_images_are_done_again_and_that_is_told",
    ),
    Mutation(
        promise="the script of a page without curves runs through",
        file="reporting/templates/page.js",
        old="    if (!written) return; //",
        new="    //",
        test="tests/browser/test_stream_page.py"
        "::test_the_page_of_a_stream_fits_and_its_script_runs_through",
    ),
    Mutation(
        promise="the worst of a task is after its own end",
        file="stream/metrics.py",
        old="    at_ends = [matrix[t][task] for t in range(task + 1, len(matrix))]\n",
        new="    at_ends = [matrix[t][task] for t in range(task, len(matrix))]\n",
        test="tests/unit/test_stream.py::test_the_worst_of_a_task_is_after_its_own_end",
    ),
    Mutation(
        promise="what was before a second stage counts among the worst",
        file="stream/course.py",
        old="        seen = [*looks, before] if looks else []\n",
        new="        seen = looks\n",
        test="tests/unit/test_stream.py"
        "::test_what_was_before_a_second_stage_counts_among_the_worst",
    ),
    Mutation(
        promise="a contrast of what nobody will have measured is refused",
        file="stream/contradictions.py",
        old='if isinstance(contrast, dict) and contrast.get("metric") in _OF_LOOKS:',
        new="if False:",
        test="tests/unit/test_stream_corpora.py"
        "::test_contrasts_of_what_nobody_will_have_measured_are_refused",
    ),
    Mutation(
        promise="ER fills its memory",
        file="stream/rehearsing.py",
        old="        learning.step(learning.rehearsed_loss(indices, learning.drawn()))\n"
        "        learning.keep(indices)\n",
        new="        learning.step(learning.rehearsed_loss(indices, learning.drawn()))\n",
        test="tests/parity/test_stream_steps.py::test_what_was_shown_is_offered_to_the_memory[er]",
    ),
    Mutation(
        promise="GSS compares a step's examples with the same kept ones",
        file="stream/rehearsing.py",
        old="self._consider(index, self.score(own, compared))",
        new="self._consider(index, self.score(own, self.compared()))",
        test="tests/parity/test_stream_learners.py"
        "::test_the_new_examples_of_a_step_are_compared_with_the_same_kept_ones",
    ),
    Mutation(
        promise="GSS compares with all while few are kept",
        file="stream/rehearsing.py",
        old="                compared.append(own)\n",
        new="                pass\n",
        test="tests/parity/test_stream_learners.py"
        "::test_while_few_are_kept_each_is_compared_with_all",
    ),
    Mutation(
        promise="GSS rehearses what it keeps",
        file="stream/rehearsing.py",
        old="learning.step(learning.rehearsed_loss(indices, drawn))",
        new="learning.step(learning.loss(indices))",
        test="tests/parity/test_stream_steps.py::test_a_step_of_gss_rehearses_what_it_keeps",
    ),
    Mutation(
        promise="MIR looks at the step that comes",
        file="stream/rehearsing.py",
        old="parameter.sub_(g, alpha=learning.lr)",
        new="parameter.sub_(g, alpha=1e-9)",
        test="tests/parity/test_stream_steps.py"
        "::test_interference_is_of_the_step_that_comes_and_not_of_its_slope",
    ),
    Mutation(
        promise="GDumb's memory is balanced by class",
        file="stages/stream_learners.py",
        old="            learning.memory = ClassBalanced(experiment.memory.size)\n",
        new="",
        test="tests/parity/test_stream_steps.py"
        "::test_gdumb_balances_classes_whatever_memory_the_experiment_has",
    ),
    Mutation(
        promise="iCaRL learns from its memory",
        file="stream/holding.py",
        old="            loss = loss + self.loss(remembered)\n",
        new="            pass\n",
        test="tests/parity/test_stream_steps.py::test_a_step_of_icarl",
    ),
    Mutation(
        promise="iCaRL is taught by the network of the last task",
        file="stream/holding.py",
        old="        self._teacher = _frozen(self._learning.network)\n\n",
        new="        self._teacher = self._teacher or _frozen(self._learning.network)\n\n",
        test="tests/parity/test_stream_steps.py::test_a_step_of_icarl",
    ),
    Mutation(
        promise="SCR learns from its memory",
        file="stream/holding.py",
        old="torch.cat([torch.from_numpy(indices), torch.from_numpy(learning.drawn())]).numpy()",
        new="indices",
        test="tests/parity/test_stream_steps.py::test_a_step_of_scr",
    ),
    Mutation(
        promise="SCR's head is learned too",
        file="stream/holding.py",
        old="                    parameter.sub_(parameter.grad, alpha=learning.lr)\n",
        new="                    pass\n",
        test="tests/parity/test_stream_steps.py::test_a_step_of_scr",
    ),
    Mutation(
        promise="SCR sees images a second time",
        file="stream/holding.py",
        old='if "pixel_values" in inputs:',
        new="if False:",
        test="tests/parity/test_stream_steps.py::test_a_step_of_scr",
    ),
    Mutation(
        promise="SCR moves images by up to two pixels",
        file="stream/holding.py",
        old="_MOST_SHIFT = 2",
        new="_MOST_SHIFT = 3",
        test="tests/parity/test_stream_steps.py"
        "::test_images_are_moved_by_up_to_two_pixels_each_way",
    ),
    Mutation(
        promise="LwF is taught by the network of the last task",
        file="stream/holding.py",
        old="        self._teacher = _frozen(self._learning.network)\n        self._num_done",
        new="        self._teacher = self._teacher or _frozen(self._learning.network)\n"
        "        self._num_done",
        test="tests/parity/test_stream_learners.py"
        "::test_learning_without_forgetting_is_taught_by_the_network_of_the_last_task",
    ),
    Mutation(
        promise="EWC++ holds weights where the last task ended",
        file="stream/holding.py",
        old="        self._anchor = Anchor.at(",
        new="        self._anchor = self._anchor or Anchor.at(",
        test="tests/parity/test_stream_learners.py"
        "::test_elastic_weights_are_looked_at_now_and_then_and_held_where_the_last_task_ended",
    ),
    Mutation(
        promise="EWC++ looks every so many steps",
        file="stream/holding.py",
        old="if self._num_steps % self._every == 0:",
        new="if True:",
        test="tests/parity/test_stream_learners.py"
        "::test_elastic_weights_are_looked_at_now_and_then_and_held_where_the_last_task_ended",
    ),
    Mutation(
        promise="what is no name of an algorithm is told",
        file="stream/corpora_problems.py",
        old="replayed = any(algorithm in REPLAYS for algorithm in algorithms)",
        new="replayed = bool({*algorithms} & {*REPLAYS})",
        test="tests/unit/test_stream_corpora.py::test_what_means_nothing_is_refused",
    ),
    Mutation(
        promise="a gain from a cell to itself is refused",
        file="stream/cells.py",
        old="        if side.cell == side.less:\n",
        new="        if False:\n",
        test="tests/unit/test_stream_result.py::test_contrasts_that_mean_nothing_are_refused",
    ),
    Mutation(
        promise="a tie of probes is told as one",
        file="stages/stream_result.py",
        old="    if tied:\n",
        new="    if False:\n",
        test="tests/unit/test_stream_result.py::test_a_tie_of_probes_is_told_as_one",
    ),
    Mutation(
        promise="a source that is not there is told as that",
        file="stream/source.py",
        old="    if not path.exists():\n",
        new="    if False:\n",
        test="tests/unit/test_stream.py::test_a_source_that_is_not_there_is_told_as_that",
    ),
    Mutation(
        promise="a file of a folder that cannot be read is told by its name",
        file="stream/source.py",
        old='yield str(file.relative_to(path)), file, label, ""',
        new='yield str(file.relative_to(path)), file.read_bytes(), label, ""',
        test="tests/unit/test_stream.py::test_each_file_of_a_folder_that_is_no_image_is_told",
    ),
    Mutation(
        promise="an image that lies in no folder of a class has none",
        file="stream/source.py",
        old="is_stray = file.parent == path and not file.is_dir()",
        new="is_stray = False",
        test="tests/unit/test_stream.py::test_each_file_of_a_folder_that_is_no_image_is_told",
    ),
    Mutation(
        promise="what is not a number names no class",
        file="stream/source.py",
        old="if isinstance(said, int | float) and math.isfinite(said):",
        new="if isinstance(said, int | float):",
        test="tests/unit/test_stream.py::test_a_label_of_parquet_that_names_no_class_is_told",
    ),
    Mutation(
        promise="a truth value is a label as JSON has it",
        file="stream/source.py",
        old="    if isinstance(said, bool):\n",
        new="    if False:\n",
        test="tests/unit/test_stream.py::test_labels_of_json_are_texts_and_numbers",
    ),
    Mutation(
        promise="a split that parts nothing is told with what it holds",
        file="stream/source.py",
        old="        if is_test.all() or not is_test.any():\n            raise _one",
        new="        if False:\n            raise _one",
        test="tests/unit/test_stream.py::test_a_split_that_parts_nothing_is_told_with_what_it_holds",
    ),
    Mutation(
        promise="a split may be written in large letters",
        file="stream/source.py",
        old="[split.strip().lower() == _TEST for split in splits]",
        new="[split == _TEST for split in splits]",
        test="tests/unit/test_stream.py::test_a_split_says_test_in_large_or_small_letters",
    ),
    Mutation(
        promise="a folder of a stream that cannot be made is told by its key",
        file="stream/experiment.py",
        old='            raise PlanError.one("folder", what, fix) from error\n',
        new="            raise\n",
        test="tests/unit/test_stream.py::test_a_folder_that_cannot_be_made_is_told_by_its_key",
    ),
    Mutation(
        promise="a head is as wide as what the backbone makes of an example",
        file="stream/network.py",
        old="width: int = backbone(**example).shape[1]",
        new="width: int = backbone.model.config.hidden_size",
        test="tests/unit/test_stream_backbones.py::test_the_head_is_as_wide_as_what_the_backbone_makes_of_a_text",
    ),
    Mutation(
        promise="of a model of images and texts it is the tower that reads the examples",
        file="stream/network.py",
        old="return towers[0] if has_towers and towers else model",
        new="return model",
        test="tests/unit/test_stream_backbones.py::test_the_head_is_as_wide_as_what_the_backbone_makes_of_an_image",
    ),
    Mutation(
        promise="drawn weights do not hang on what a backbone draws while it is looked at",
        file="stream/network.py",
        old="    with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(backbone):\n",
        new="    with torch.no_grad(), evaluating(backbone):\n",
        test="tests/unit/test_stream_backbones.py::test_drawn_heads_do_not_hang_on_what_a_backbone_draws_while_it_looks",
    ),
    Mutation(
        promise="a model without hidden states is told as that",
        file="stream/network.py",
        old="        if not isinstance(hidden, Tensor):\n            raise",
        new="        if False:\n            raise",
        test="tests/unit/test_stream_backbones.py::test_a_model_without_hidden_states_is_told",
    ),
    Mutation(
        promise="a key of another algorithm is refused",
        file="stream/contradictions.py",
        old="            if key in learner and algorithm not in owners:\n",
        new="            if key == 'temperature' and key in learner and algorithm not in owners:\n",
        test="tests/unit/test_stream.py::test_what_is_set_without_effect_is_told_at_once",
    ),
    Mutation(
        promise="passes of a stream that is passed over once are refused",
        file="stream/contradictions.py",
        old='if "epochs" in scenario and scenario.get("mode", "online") == "online":',
        new='if "epochs" in scenario and scenario.get("mode") == "online":',
        test="tests/unit/test_stream.py::test_what_is_set_without_effect_is_told_at_once",
    ),
    Mutation(
        promise="what of a source changes nothing is refused",
        file="stream/contradictions.py",
        old='if "test_share" in source and "split" in source:',
        new="if False:",
        test="tests/unit/test_stream.py::test_what_is_set_without_effect_is_told_at_once",
    ),
    Mutation(
        promise="runs hang on the commit that was loaded",
        file="stages/stream_backbones.py",
        old='return f"{recipe.path}@{self._commit(name, recipe)}"',
        new="return recipe.path",
        test="tests/unit/test_stream_backbones.py"
        "::test_what_a_branch_was_at_the_first_run_is_held_to",
    ),
    Mutation(
        promise="a branch that moves makes no runs again",
        file="stages/stream_backbones.py",
        old="known = self._held().get(key) or self._found.get(key)",
        new="known = self._found.get(key)",
        test="tests/unit/test_stream_backbones.py"
        "::test_what_a_branch_was_at_the_first_run_is_held_to",
    ),
    Mutation(
        promise="a backbone's revision is what is loaded",
        file="stages/stream_backbones.py",
        old="self._find(name, recipe.revision, False).name",
        new="self._find(name, None, False).name",
        test="tests/unit/test_stream_backbones.py::test_a_revision_is_what_is_loaded",
    ),
    Mutation(
        promise="a whole commit is looked up nowhere",
        file="stages/stream_backbones.py",
        old="if recipe.revision is not None and _COMMIT.fullmatch(recipe.revision) is not None:",
        new="if False:",
        test="tests/unit/test_stream_backbones.py::test_a_revision_is_what_is_loaded",
    ),
    Mutation(
        promise="weights that are drawn anew are not downloaded",
        file="stages/stream_backbones.py",
        old="with_weights and not recipe.from_scratch",
        new="with_weights",
        test="tests/unit/test_stream_backbones.py"
        "::test_weights_that_are_not_needed_are_not_asked_for",
    ),
    Mutation(
        promise="a folder has no revision",
        file="stages/stream_backbones.py",
        old="        if recipe.revision is not None:\n            what",
        new="        if False:\n            what",
        test="tests/unit/test_stream_backbones.py::test_what_leads_to_no_model_is_told",
    ),
    Mutation(
        promise="runs over labelled examples are planned before the first begins",
        file="stages/stream_runs.py",
        old="        self._keep_plans(runs)\n",
        new="",
        test="tests/unit/test_stream_records.py::test_all_is_planned_before_the_first_run_begins",
    ),
    Mutation(
        promise="a labelled run under way is not mixed with another plan",
        file="stages/stream_keep.py",
        old="    _clear(run)\n",
        new="",
        test="tests/unit/test_stream_records.py"
        "::test_a_run_under_way_is_not_mixed_with_another_plan",
    ),
    Mutation(
        promise="what is not known to be a labelled run's is not deleted",
        file="stages/stream_keep.py",
        old="    if old is None and run.has_begun():\n",
        new="    if False:\n",
        test="tests/unit/test_stream_records.py"
        "::test_a_folder_of_which_it_is_not_known_what_began_is_left_alone",
    ),
    Mutation(
        promise="a labelled run's checkpoint comes after the records of what it has taken",
        file="stages/stream_run.py",
        old="        self._log.flush()  # what",
        new="        # what",
        test="tests/unit/test_stream_records.py"
        "::test_a_checkpoint_comes_after_the_records_of_what_it_has_taken",
    ),
    Mutation(
        promise="a labelled run that went on counts its updates on",
        file="stream/learning.py",
        old='        self.num_updates = int(state.facts["num_updates"])\n',
        new="",
        test="tests/resume/test_stream_resume.py::test_a_stopped_run_comes_to_the_same[er]",
    ),
    Mutation(
        promise="a signal ends a labelled run with a checkpoint",
        file="stages/stream_run.py",
        old=" or requests.stop_signal is not None:",
        new=":",
        test="tests/unit/test_stream_records.py::test_a_signal_ends_a_run_with_a_checkpoint",
    ),
    Mutation(
        promise="SIGTERM to a stream ends it as a key press does",
        file="stages/stream.py",
        old="        with sigterm_raises():\n",
        new="        if True:\n",
        test="tests/unit/test_stream_records.py"
        "::test_sigterm_ends_streams_of_corpora_and_the_demo_in_good_order",
    ),
    Mutation(
        promise="SIGTERM to the demo ends it as a key press does",
        file="stages/demo.py",
        old="        with sigterm_raises():\n",
        new="        if True:\n",
        test="tests/unit/test_stream_records.py"
        "::test_sigterm_ends_streams_of_corpora_and_the_demo_in_good_order",
    ),
    Mutation(
        promise="a plan of a labelled run is told as that",
        file="planning/plan.py",
        old='    if isinstance(value, dict) and value.get("kind") == STREAM_PLAN:\n',
        new="    if False:\n",
        test="tests/unit/test_stream_records.py::test_a_plan_of_a_labelled_run_is_told_as_that",
    ),
    Mutation(
        promise="runs without a revision stay what they were",
        file="stream/sections.py",
        old='unsaid = {"revision"} if self.revision is None else None',
        new="unsaid = None",
        test="tests/unit/test_stream_backbones.py::test_runs_without_a_revision_hang_on_what_they_did_before_there_were_any",
    ),
    Mutation(
        promise="the revision of a backbone of corpora is that of the base",
        file="stream/courses.py",
        old="is_hubs = self.base == backbone.path and",
        new="is_hubs = False and",
        test="tests/unit/test_stream_corpora.py::test_the_revision_of_a_backbone_is_that_of_the_base",
    ),
    Mutation(
        promise="a second stage is drawn",
        file="reporting/stream_page.py",
        old="    if cell.mean_second_stage:\n",
        new="    if False:\n",
        test="tests/unit/test_stream_result.py::test_a_second_stage_is_drawn_beside_what_was_before_it",
    ),
    Mutation(
        promise="results from before second stages were drawn are read",
        file="records/stream.py",
        old="mean_second_stage: tuple[float, ...] = Field((), description",
        new="mean_second_stage: tuple[float, ...] = Field(description",
        test="tests/unit/test_stream_result.py::test_results_from_before_second_stages_were_drawn_are_read",
    ),
    Mutation(
        promise="a backbone that cannot be loaded is told by its key",
        file="stream/trial.py",
        old="        raise BaseModelError(told) from error\n",
        new="        raise\n",
        test="tests/unit/test_stream_backbones.py"
        "::test_all_that_cannot_be_used_is_told_before_anything_runs",
    ),
    Mutation(
        promise="a stream is not watched as a comparison that has not begun",
        file="stages/watch.py",
        old="    _refuse_streams(path)\n",
        new="",
        test="tests/unit/test_watch_experiment.py"
        "::test_a_stream_is_refused_by_its_folder_and_by_its_file",
    ),
    Mutation(
        promise="a backbone's folder counts from the experiment's file",
        file="stages/stream_backbones.py",
        old="path, beside = self._recipe(name).path, self.written.path.resolve().parent",
        new="path, beside = self._recipe(name).path, Path()",
        test="tests/unit/test_stream_backbones.py::test_a_backbones_folder_counts_from_the_file",
    ),
]


@pytest.fixture(scope="module")
def forked() -> Iterator[ForkedPytest]:
    running = ForkedPytest()
    yield running
    running.close()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.promise)
def test_the_broken_line_is_noticed(
    mutation: Mutation, tmp_path: Path, forked: ForkedPytest
) -> None:
    shutil.copytree(REPOSITORY / "src" / "rewarm", tmp_path / "rewarm")
    target = tmp_path / "rewarm" / mutation.file
    source = target.read_text(encoding="utf-8")
    assert source.count(mutation.old) == 1, f"{mutation.file}: the line to break is not there once"
    target.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")

    arguments = ("-q", "-x", "-p", "no:cacheprovider", "-m", "", mutation.test)
    finished = forked.run(tmp_path, *arguments)

    # 1 means that tests ran and failed; 4 or 5 that the test is not there, 2 that it broke loading.
    assert finished.exit_code == 1, finished.output[-4000:]
