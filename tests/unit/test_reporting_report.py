"""The pages: safe, whole, and with the numbers that the records give when worked out here."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from rewarm.artifacts import append_json_line
from rewarm.errors import PlanError
from rewarm.evaluation.forgetting import domain_verdicts
from rewarm.planning.plan import load_plan, save_plan
from rewarm.planning.probed import with_probe
from rewarm.records.facts import EvalRecord
from rewarm.records.memory import LaunchMemory
from rewarm.records.run_folder import RunFolder
from rewarm.reporting import numbers
from rewarm.reporting.report import (
    load_arm,
    main_figure_svg,
    render_comparison_report,
    render_run_report,
    write_comparison_report,
    write_run_report,
)
from rewarm.reporting.run_sections import training_figures
from rewarm.reporting.run_view import load_run_view
from tests.support.fake_runs import (
    HOSTILE_LICENCE,
    HOSTILE_PHASE,
    Arm,
    eval_record,
    fake_losses,
    make_fake_run,
)
from tests.support.html_page import Page
from tests.unit.test_probe import made_probe

NUM_STEPS = 60
NAIVE = Arm(old_weight=0.0, jump=0.4, forgetting=0.7, learning=-0.6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_fake_run(tmp_path_factory.mktemp("run"), num_steps=NUM_STEPS)


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_fake_run(tmp_path_factory.mktemp("naive"), num_steps=NUM_STEPS, arm=NAIVE)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("hostile")
    return make_fake_run(folder, num_steps=NUM_STEPS, hostile=True)


def bits_per_byte(record: EvalRecord) -> float:
    return sum(record.item_values) / (math.log(2) * sum(record.item_weights))


def at(run: RunFolder, step: int, metric: str = "bits_per_byte") -> dict[str, EvalRecord]:
    return {r.domain: r for r in run.evals() if r.step == step and r.metric == metric}


def minus(text: str) -> str:
    return text.replace("-", "−")


# Safety


def pages(run: RunFolder, hostile: RunFolder) -> list[str]:
    arms = [load_arm("plain", "a run", run), load_arm("<b>bold</b>", "</summary>", hostile)]
    comparison = render_comparison_report("<i>title</i>", arms, ["see https://example.org/x"])
    return [render_run_report(run), render_run_report(hostile), comparison]


def test_pages_are_balanced_and_fetch_nothing(run: RunFolder, hostile: RunFolder) -> None:
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    for html in pages(run, hostile):
        page = Page(html)
        assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes
        assert ("meta", "content", policy) in page.attributes
        for tag, name, value in page.attributes:
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert value.startswith(("#", "data:")), (tag, name, value)
            assert not name.startswith("on"), (tag, name)
        assert not re.search(r"url\(|@import|\beval\(|innerHTML|fetch\(|XMLHttp", html)
        assert len(page.ids) == len(set(page.ids))
        for _, name, value in page.attributes:
            if name == "href" and len(value) > 1 and value.startswith("#"):
                assert value[1:] in page.ids


def test_names_show_as_text(run: RunFolder, hostile: RunFolder) -> None:
    for html in pages(run, hostile)[1:]:
        assert "<script>alert" not in html
        assert "<img" not in html
        assert "\x00" not in html
        html.encode("utf-8")  # no half of a surrogate pair is left
    page = Page(render_run_report(hostile))
    assert page.text["h1"] == "<script>alert('run')</script>��"
    assert page.rows("source", "licence")[0][1] == HOSTILE_LICENCE
    assert any(HOSTILE_PHASE in row[0] for row in page.rows("field", "value"))


def test_a_hostile_task_shows_as_text(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=8, evaluated=False)
    name = '"><script>x</script>'
    for step, right in ((0, 0.0), (8, 1.0)):
        record = eval_record(step, name, "general", "multiple_choice", [right] * 9, [1] * 9)
        run.append_evals([record.model_copy(update={"role": "task"})])
    html = render_run_report(run)
    assert "<script>x" not in html
    assert Page(html).rows("domain", "items")[0][:4] == [
        f"{name}|task, choice",
        "9",
        "0.0 %",
        "100.0 %",
    ]


# Numbers of a run


def test_verdicts_have_the_records_numbers(run: RunFolder) -> None:
    page = Page(render_run_report(run))
    rows = {row[0]: row for row in page.rows("domain", "items", "step 0")}
    first, last = at(run, 0), at(run, NUM_STEPS)
    verdicts = {verdict.domain: verdict for verdict in domain_verdicts(run.evals())}
    for name, role in (("english", "general"), ("python", "new"), ("qa", "qa")):
        before, after = bits_per_byte(first[name]), bits_per_byte(last[name])
        verdict = verdicts[name]
        row = rows[f"{name}|{role}, text"]
        assert row[1:5] == ["60", f"{before:.3f}", f"{after:.3f}", minus(f"{after - before:+.3f}")]
        assert row[5] == minus(f"{verdict.low:+.3f}\u00a0to\u00a0{verdict.high:+.3f}")
        assert row[6].startswith(verdict.verdict)


def test_the_headline_says_what_was_learned_and_forgotten(run: RunFolder) -> None:
    page = Page(render_run_report(run))
    first, last = at(run, 0), at(run, NUM_STEPS)
    before, after = bits_per_byte(first["python"]), bits_per_byte(last["python"])
    change = minus(f"{after - before:+.3f}")
    assert (
        f" python: {before:.3f} → {after:.3f} bits per byte ({change}); qa answers: "
        in page.text["p"]
    )
    assert "Learned" in page.text["b"]
    assert "Forgot" in page.text["b"]
    assert "evaluation noise of one seed" in page.text["p"]


def test_the_ledger_has_planned_and_seen_exposure(run: RunFolder) -> None:
    plan = load_plan(run.plan)
    seen = np.sum([record.samples for record in run.steps()], axis=0)
    rows = {row[0].split("|")[0]: row for row in Page(render_run_report(run)).rows("source")}
    for index, source in enumerate(plan.science.sources):
        epochs = seen[index] / ((plan.conduct.corpora[source.name].num_tokens - 1) // 128)
        row = rows[source.name]
        assert row[6].split("|")[0] == f"{epochs:.2f}"
        assert row[7] == row[6]
    assert rows["english"][8] == "44"
    assert rows["english"][1:4] == ["CC BY 4.0", "1,000", "900k"]


def test_blend_by_phase_is_counted_from_the_steps(run: RunFolder) -> None:
    plan = load_plan(run.plan)
    rows = Page(render_run_report(run)).rows("phase", "", "english")
    assert [row[:2] for row in rows] == [
        ["general blend", "planned"],
        ["general blend", "seen"],
        ["qa blend", "planned"],
        ["qa blend", "seen"],
    ]
    for phase, row in zip(plan.science.phases, rows[1::2], strict=True):
        steps = [r.samples for r in run.steps() if phase.start_step <= r.step < phase.end_step]
        shares = 100 * np.sum(steps, axis=0) / np.sum(steps)
        assert row[2:] == [f"{share:.2f} %" for share in shares]
    assert rows[0][2:] == rows[1][2:]


def test_actual_time_stands_beside_the_estimate(run: RunFolder) -> None:
    rows = {row[0].split("|")[0]: row for row in Page(render_run_report(run)).rows("quantity")}
    steps = sum(record.step_s for record in run.steps())
    evals = sum(record.seconds for record in run.evals())
    assert rows["time"][2].startswith(f"{round(steps + evals) // 60} min ")
    assert rows["speed"][2] == f"{NUM_STEPS * 2048 / steps / 1000:.3g}k tokens/s"


def test_measured_memory_stands_beside_the_estimate(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, steps_taken=5)

    def row() -> list[str]:
        rows = {row[0].split("|")[0]: row for row in Page(render_run_report(run)).rows("quantity")}
        return rows["peak memory"]

    assert row()[2] == numbers.MISSING
    memory = LaunchMemory(
        process_bytes=200 * 2**20,
        peak_bytes=812 * 2**20,
        held_bytes=812 * 2**20,
        other_bytes=950 * 2**20,
        told_apart=True,
    )
    run.append_event("finish", 5, "finished", memory=memory.model_dump())
    about = "in steps, beside the process's own 200 MiB; 950 MiB in all around them"
    assert row()[2] == f"612 MiB|{about}"
    of_gpu = memory.model_copy(update={"process_bytes": 0, "peak_bytes": 900 * 2**20})
    run.append_event("finish", 5, "finished", memory=of_gpu.model_dump())
    assert row()[2] == "900 MiB|in steps; 950 MiB in all around them"
    whole = of_gpu.model_copy(update={"peak_bytes": 901 * 2**20, "told_apart": False})
    run.append_event("finish", 5, "finished", memory=whole.model_dump())
    assert row()[2] == "950 MiB|of the process, steps or not"


def test_a_profiled_peak_is_told_as_one(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, steps_taken=5)
    profiled = LaunchMemory(
        process_bytes=0,
        peak_bytes=900 * 2**20,
        held_bytes=900 * 2**20,
        other_bytes=950 * 2**20,
        told_apart=True,
        profiled=True,
    )
    told = "; with a profiler's events: no other launch ended in good order"

    def cell() -> str:
        rows = {row[0].split("|")[0]: row for row in Page(render_run_report(run)).rows("quantity")}
        return rows["peak memory"][2]

    run.append_event("stop", 5, "stopped", memory=profiled.model_dump())
    assert cell() == f"900 MiB|in steps; 950 MiB in all around them{told}"
    plain = profiled.model_copy(update={"peak_bytes": 800 * 2**20, "profiled": False})
    run.append_event("stop", 5, "stopped", memory=plain.model_dump())
    assert cell() == "800 MiB|in steps; 950 MiB in all around them"


def test_what_a_probe_measured_stands_beside_the_same_of_the_run(tmp_path: Path) -> None:
    """A launch that takes what the probe's trial took has the plan's figure."""
    run = make_fake_run(tmp_path, steps_taken=5)
    plan = load_plan(run.plan)
    took = LaunchMemory(
        process_bytes=200 * 2**20,
        peak_bytes=812 * 2**20,
        held_bytes=812 * 2**20,
        other_bytes=950 * 2**20,
        told_apart=True,
    )
    probe = made_probe(
        plan,
        process_bytes=took.process_bytes,
        peak_bytes=took.held_bytes,
        other_peak_bytes=took.other_bytes,
        steps_bytes=took.steps_bytes,
    )
    save_plan(with_probe(plan, probe), run.plan)
    run.append_event("finish", 5, "finished", memory=took.model_dump())
    rows = {row[0].split("|")[0]: row for row in Page(render_run_report(run)).rows("quantity")}
    assert rows["peak memory"][1] == "612 MiB"
    assert rows["peak memory"][2].startswith("612 MiB|")


def test_reasons_and_provenance_are_told(run: RunFolder) -> None:
    page = Page(render_run_report(run))
    plan = load_plan(run.plan)
    assert len(page.rows("field", "value")) == len(plan.reasons)
    provenance = dict(page.rows("what", "which"))
    assert provenance["plan"] == plan.fingerprint
    assert provenance["packages"] == "rewarm 0.1.0, torch 2.13.0, transformers 5.23.0"
    assert json.loads(page.text["pre"])["name"] == "made-up"


def test_a_rate_that_is_not_the_planned_one_is_told(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    assert "every recorded rate is the planned one" in render_run_report(run)
    record = run.steps()[7]
    run.append_step(record.model_copy(update={"lr": record.lr + 3e-5}))
    assert "differs from the planned one by up to 3e-5, at step 7" in render_run_report(run)


def test_a_spike_is_not_thinned_away_and_long_runs_stay_small(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=8, evaluated=False)
    view = load_run_view(run)
    record = view.steps[0]
    steps = tuple(
        record.model_copy(update={"step": step, "loss": 50.0 if step == 31_234 else 2.0})
        for step in range(60_000)
    )
    loss, _ = training_figures(dataclasses.replace(view, steps=steps))
    assert max(len(loss.wide), len(loss.hover)) < 60_000
    faint = re.search(r'class="faint" d="M([^"]+)"', loss.wide)
    assert faint is not None
    rows = [float(pair.split(" ")[1]) for pair in faint[1].split("L")]
    plot = re.search(r'data-plot="([^"]+)"', loss.wide)
    assert plot is not None
    _, top, _, height = (float(part) for part in plot[1].split())
    # From 2 to 50 with a margin of 6 % at both ends, the spike stands 6/112 below the top.
    assert min(rows) == pytest.approx(top + height * 0.06 / 1.12, abs=0.01)
    assert sum(row < top + height / 2 for row in rows) == 1


# What is missing


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20, steps_taken=0, evaluated=False)
    page = Page(render_run_report(run))
    assert "no step was taken yet" in page.text["li"]
    assert "nothing was evaluated yet" in page.text["li"]
    assert "not begun" in page.text["span"]
    assert page.rows("field", "value")
    assert page.rows("phase", "", "english")[1][2:] == ["0.00 %"] * 3


def test_a_run_that_stopped_half_way(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=40, steps_taken=10)
    page = Page(render_run_report(run))
    assert "at step 10 of 40" in page.text["span"]
    assert page.rows("domain", "items")


def test_a_base_that_was_not_evaluated(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    kept = [record for record in run.evals() if record.step > 0]
    run.evals_log.unlink()
    run.append_evals(kept)
    page = Page(render_run_report(run))
    assert "the base (step 0) was not evaluated" in page.text["li"]
    assert "Nothing can be said yet" in page.text["p"]


def test_only_the_base_evaluated_so_far(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    kept = [record for record in run.evals() if record.step == 0 and record.domain != "qa"]
    run.evals_log.unlink()
    run.append_evals(kept)
    page = Page(render_run_report(run))
    assert "only the base (step 0) was evaluated so far" in page.text["li"]
    assert "never evaluated: qa" in page.text["li"]


def test_torn_and_lost_records_are_counted(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    lines = run.steps_log.read_bytes().splitlines(keepends=True)
    run.steps_log.write_bytes(b"".join([*lines[:7], lines[7][:30] + b"\n", *lines[8:], b'{"st']))
    page = Page(render_run_report(run))
    assert "2 lines of steps.jsonl cannot be read" in page.text["li"]
    assert "1 of 20 steps have no record" in page.text["li"]


def test_steps_of_another_plan_are_left_out(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    record = run.steps()[-1]
    run.append_step(record.model_copy(update={"step": 20}))
    run.append_step(record.model_copy(update={"step": 21, "samples": (16,)}))
    page = Page(render_run_report(run))
    assert "2 steps in steps.jsonl are not of this plan" in page.text["li"]
    assert "finished" in page.text["span"]


def test_missing_placement_and_recipe(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    run.placement.write_text("{")
    run.recipe.unlink()
    page = Page(render_run_report(run))
    assert "placement.json is missing" in page.text["li"]
    assert "recipe.json is missing" in page.text["li"]


def test_warnings_and_checkpoints_passed_over_are_told(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20, arm=NAIVE)
    run.append_event("passed_over", 10, "step-10 is damaged: model.safetensors was altered")
    page = Page(render_run_report(run))
    assert "no phase shows text of the old domain" in page.text["li"]
    assert "step 10: step-10 is damaged" in page.text["li"]
    assert page.rows("time (UTC)")[-1][1:3] == ["passed_over", "10"]


def test_a_plan_that_cannot_be_trusted_is_an_error(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    run.plan.write_text(run.plan.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(PlanError, match="its fingerprint does not match its contents"):
        render_run_report(run)


# Comparisons


def test_arms_have_the_records_numbers(run: RunFolder, naive: RunFolder) -> None:
    arms = [load_arm("reuse", "with replay", run), load_arm("naive", "new text only", naive)]
    page = Page(render_comparison_report("Two arms", arms))
    rows = page.rows("arm", "old text, bits per byte")
    assert [row[0] for row in rows] == ["reuse|with replay", "naive|new text only"]
    for folder, row in zip((run, naive), rows, strict=True):
        first, last = at(folder, 0), at(folder, NUM_STEPS)
        for column, name in ((1, "english"), (2, "python")):
            before, after = bits_per_byte(first[name]), bits_per_byte(last[name])
            assert row[column].startswith(minus(f"{after - before:+.3f}|"))
            assert row[column].endswith(f"→ {after:.3f}")
        accuracy = at(folder, NUM_STEPS, "matched_continuation")["english"]
        right = float(np.mean(accuracy.item_values))
        error = math.sqrt(right * (1 - right) / (len(accuracy.item_values) - 1))
        assert row[4].startswith(f"{100 * right:.1f} ± {100 * error:.1f} %")
        plan = load_plan(folder.plan)
        area = sum(plan.science.lr(step) for step in range(plan.science.num_steps))
        assert float(row[7]) == pytest.approx(area, rel=5e-3)
        assert row[6] == f"{NUM_STEPS * 2048 / 1000:.3g}k"


def test_several_domains_of_one_kind_count_with_their_mean(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    for step, change in ((0, 0.0), (20, 0.5)):
        run.append_evals([fake_losses(step, "news", "replay", "bits_per_byte", 2.0, change, 30, 9)])
    first, last = at(run, 0), at(run, 20)
    old = load_arm("two old domains", "", run).old
    assert old is not None
    changes = [bits_per_byte(last[n]) - bits_per_byte(first[n]) for n in ("english", "news")]
    assert old.change.value == pytest.approx(sum(changes) / 2)
    verdicts = {verdict.domain: verdict for verdict in domain_verdicts(run.evals())}
    below = [verdicts[n].delta - (verdicts[n].low or 0.0) for n in ("english", "news")]
    assert old.change.low is not None
    expected = math.sqrt(below[0] ** 2 + below[1] ** 2) / 2
    assert old.change.value - old.change.low == pytest.approx(expected)


def test_questions_are_what_is_new_where_nothing_else_is(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    kept = [record for record in run.evals() if record.domain != "python"]
    run.evals_log.unlink()
    run.append_evals(kept)
    new = load_arm("questions only", "", run).new
    assert new is not None
    assert new.last == pytest.approx(bits_per_byte(at(run, 20)["qa"]))


def test_what_the_base_knew_stands_first(run: RunFolder, tmp_path: Path) -> None:
    view = load_run_view(run)
    records = [record.model_copy(update={"role": "quality"}) for record in view.evals]
    assert view.domains == ("english", "python", "qa")
    run_again = RunFolder(tmp_path)
    for path in (view.run.plan, view.run.placement, view.run.recipe):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run_again.make_log_folder()
    run_again.append_evals([r for r in records if r.domain == "qa"])
    again = load_run_view(run_again)
    assert again.domains == ("english", "qa", "python")
    assert again.verdicts[0].domain == "qa"


def test_choices_at_both_ends_have_a_verdict_and_no_curve(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    kept = [r for r in run.evals() if r.metric != "matched_continuation" or r.step in (0, 20)]
    run.evals_log.unlink()
    run.append_evals(kept)
    html = render_run_report(run)
    assert "Matched continuation: change since step 0" in html
    assert "Matched continuation, known to the base" not in html


def test_an_arms_interval_is_around_its_change(run: RunFolder) -> None:
    arm = load_arm("reuse", "", run)
    verdict = domain_verdicts(run.evals())[0]
    assert arm.old is not None
    assert arm.old.change.value == pytest.approx(verdict.delta)
    assert (arm.old.change.low, arm.old.change.high) == pytest.approx((verdict.low, verdict.high))


def test_the_trade_off_has_forgetting_and_adaptation(run: RunFolder, naive: RunFolder) -> None:
    arms = [load_arm("reuse", "", run), load_arm("naive", "", naive)]
    page = Page(render_comparison_report("Two arms", arms))
    rows = page.rows("arm", "forgetting: bits per byte above the base on old text")
    for folder, row in zip((run, naive), rows, strict=True):
        first, last = at(folder, 0), at(folder, NUM_STEPS)
        forgot = bits_per_byte(last["english"]) - bits_per_byte(first["english"])
        learned = bits_per_byte(first["python"]) - bits_per_byte(last["python"])
        assert row[1] == f"{forgot:+.4f}"
        assert row[3] == f"{learned:.4f}"
        low, high = (float(end) for end in row[4].split("\u00a0to\u00a0"))
        assert low < learned < high
    assert "Learned most:" in page.text["b"]


def test_the_main_figure_stands_alone(run: RunFolder, naive: RunFolder) -> None:
    svg = main_figure_svg([load_arm("reuse", "", run), load_arm("naive & co", "", naive)])
    assert svg.startswith("<svg ")
    assert "naive &amp; co" in svg


def test_arms_of_different_bases_are_told_apart(run: RunFolder, tmp_path: Path) -> None:
    other = make_fake_run(tmp_path, seed=5, num_steps=NUM_STEPS, steps_taken=30)
    arms = [load_arm("one", "", run), load_arm("other", "", other)]
    page = Page(render_comparison_report("Two arms", arms))
    assert (
        "the arms do not share one base: on old text their step 0 lies between" in page.text["li"]
    )
    assert "other stands at step 30 of 60" in page.text["li"]


def test_arms_without_evaluations_still_make_a_page(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20, steps_taken=0, evaluated=False)
    arms = [load_arm("empty", "nothing yet", run)]
    page = Page(render_comparison_report("One arm", arms))
    assert page.rows("arm", "tokens") == [["empty|nothing yet", "0", "0", "0.0 s"]]
    assert "which no arm has" in page.text["p"]
    with pytest.raises(ValueError, match="no arm was evaluated"):
        main_figure_svg(arms)
    with pytest.raises(ValueError, match="at least one arm"):
        render_comparison_report("None", [])


def test_a_single_item_has_no_interval(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=8, num_documents=1)
    arm = load_arm("one document", "", run)
    assert arm.old is not None
    assert arm.old.change.low is None
    page = Page(render_comparison_report("One arm", [arm]))
    assert "interval not known" in page.rows("arm", "old text, bits per byte")[0][1]
    assert Page(render_run_report(run)).rows("domain", "items")[0][5] == "not known"


def test_pages_are_written_and_linked(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path / "runs" / "an arm", num_steps=20)
    assert write_run_report(run) == run.report
    assert run.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    arms = [load_arm("an arm", "", run)]
    path = write_comparison_report(tmp_path / "out" / "report.html", "One arm", arms)
    links = [value for _, name, value in Page(path.read_text()).attributes if name == "href"]
    assert "../runs/an%20arm/report.html" in links


def test_a_report_of_a_run_is_the_same_twice(run: RunFolder) -> None:
    assert render_run_report(run) == render_run_report(run)


def test_a_later_record_of_a_step_counts(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=20)
    append_json_line(run.steps_log, run.steps()[3].model_dump())
    assert load_run_view(run).num_tokens == load_plan(run.plan).science.num_tokens
