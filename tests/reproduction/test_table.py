"""The table of results is what the results say; pairs of sentences and the larger edition."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import threading
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "reproduction"))

import claims  # noqa: E402
import kept  # noqa: E402
import large  # noqa: E402
import suite  # noqa: E402
import table  # noqa: E402
from bases import FULL, LARGE  # noqa: E402
from pairs import paired_sentences  # noqa: E402
from pieces import NUM_CHARACTERS, cut  # noqa: E402

from rewarm.comparison.arms import arms_of  # noqa: E402
from rewarm.comparison.experiment import read_experiment  # noqa: E402
from rewarm.comparison.paired import LEVEL, smallest_detectable  # noqa: E402
from rewarm.recipe.presets import PRESETS  # noqa: E402
from rewarm.records.comparison import ComparisonResult  # noqa: E402
from rewarm.reporting import numbers  # noqa: E402
from tests.support.fake_comparison import fake_comparison, made_up  # noqa: E402


def test_the_page_is_what_the_committed_results_give() -> None:
    page = table.README.read_text(encoding="utf-8")
    results = kept.read_results(table.RESULTS, suite.EVERY, ComparisonResult)
    assert table.readme_with(page, results, table.RESULTS) == page


def test_the_claims_are_what_the_committed_results_give() -> None:
    page = table.README.read_text(encoding="utf-8")
    results = kept.read_results(table.RESULTS, suite.EVERY, ComparisonResult)
    assert table.with_claims(page, results) == page


def test_the_opening_counts_the_rows_that_stand_below_it() -> None:
    page = table.README.read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| Ibrahim et al. |")]
    words = Counter(row.rpartition(" | ")[2].strip("*| ") for row in rows)
    assert words.pop("as expected") == 1
    assert words.pop("not resolved") == 4
    assert list(words.values()) == [1]
    opening = " ".join(page.partition("## What was seen")[2].partition("<!--")[0].split())
    assert "six claims one comes as expected" in opening
    assert "Four are not resolved" in opening


def figures_of(result: ComparisonResult) -> set[str]:
    """Return what a result says to three decimals: means of arms, differences, areas."""
    found = [effect.mean for effect in (*result.primary, *result.secondary)]
    for effect in result.primary:
        runs = {(run.arm, run.seed): run.values[effect.metric] for run in result.runs}
        found += [runs[effect.arm, s] - runs[effect.against, s] for s in effect.seeds]
    for arm in result.arms:
        values = [run.values for run in result.runs_of(arm.name)]
        for metric in set.intersection(*(set(each) for each in values)):
            found.append(statistics.fmean(each[metric] for each in values))
        found.append(result.lr_area(arm.name))
    return {f"{abs(value):.3f}" for value in found if value is not None}


def test_what_the_recipes_pages_say_was_measured_is_in_the_results() -> None:
    results = kept.read_results(table.RESULTS, suite.EVERY, ComparisonResult)
    known = {result.name: figures_of(result) for result in results}
    told = 0
    for path in sorted((REPOSITORY / "docs" / "recipes").glob("*.md")):
        said = path.read_text(encoding="utf-8").partition("Measured here")[2]
        said = said.partition("\n## ")[0].partition("\n**")[0]
        links = [name for name in re.findall(r"README\.md#([\w-]+)\)", said) if name in known]
        there = set().union(*(known[name] for name in links))
        figures = re.findall(r"(?<![\d.])\d\.\d{3}(?!\d)", said)
        assert not [figure for figure in figures if figure not in there], path.name
        told += len(figures)
    assert told > 80


def test_what_is_detectable_follows_from_the_runs_of_each_result() -> None:
    """By the ends of the claim: none of a side, one of no worse, two of equal."""
    ends = {"lower": 0, "higher": 0, "not_higher": 1, "not_lower": 1, "equal": 2}
    seen = set()
    for result in kept.read_results(table.RESULTS, suite.EVERY, ComparisonResult):
        runs = {(run.arm, run.seed): run.values for run in result.runs}
        for effect in result.primary:
            assert effect.expect is not None
            seen.add(effect.expect)
            differences = [
                runs[effect.arm, seed][effect.metric] - runs[effect.against, seed][effect.metric]
                for seed in effect.seeds
            ]
            sd, number = statistics.stdev(differences), len(differences)
            for level, found in (
                (LEVEL, effect.detectable),
                (LEVEL / len(result.primary), effect.detectable_holm),
            ):
                wanted = smallest_detectable(sd, number, level=level, num_ends=ends[effect.expect])
                assert found == pytest.approx(wanted, rel=1e-6), (result.name, effect.arm)
    assert {"lower", "higher", "equal"} <= seen


def test_stored_sentences_are_what_their_own_figures_say(tmp_path: Path) -> None:
    stored = [table.RESULTS / f"{name}.json" for name in suite.EVERY]
    for path in (*(path for path in stored if path.is_file()), *large.GAP):
        assert kept.sentences_again(path, write=False), path.name
    text = (table.RESULTS / "german.json").read_text(encoding="utf-8")
    old = tmp_path / "german.json"
    old.write_text(text.replace("at Holm's strictest step", "at 5 %"), encoding="utf-8")
    before = old.read_bytes()
    assert not kept.sentences_again(old, write=False)
    assert old.read_bytes() == before
    assert not kept.sentences_again(old, write=True)
    assert old.read_text(encoding="utf-8") == text


def test_results_are_kept_without_folders_of_the_machine(tmp_path: Path) -> None:
    made, place = tmp_path / "result.json", tmp_path / "kept" / "a.json"
    command = ["suite.py", "--data", "/home/somebody/data", "streams/a.toml"]
    value = {"name": "a", "provenance": {"command": command, "python": "3.11"}}
    made.write_text(json.dumps(value), encoding="utf-8")
    for on_one_line in (False, True):
        kept.keep_result(made, place, on_one_line=on_one_line)
        found = json.loads(place.read_text(encoding="utf-8"))
        assert found["provenance"].pop("command") == [
            "suite.py",
            "--data",
            "data",
            "streams/a.toml",
        ]
        assert found == {"name": "a", "provenance": {"python": "3.11"}}
        assert (len(place.read_text(encoding="utf-8").splitlines()) == 1) == on_one_line


def test_a_result_that_is_replaced_tells_of_runs_that_were_known(tmp_path: Path) -> None:
    """A new folder knows of no runs, and would have claimed what they showed before any."""
    made, place = tmp_path / "result.json", tmp_path / "a.json"
    for time, hypothesis in (("2026-01-01T00:00", "less"), ("2026-01-02T00:00", "more")):
        claims = {"hypothesis": hypothesis}
        registration = {"file_sha256": "0", "file_name": "a.toml", "time": time, "claims": claims}
        value = {
            "runs": [{}, {}],
            "registration": {**registration, "before_runs": True},
            "provenance": {"command": []},
        }
        made.write_text(json.dumps(value), encoding="utf-8")
        kept.keep_result(made, place)
    found = json.loads(place.read_text(encoding="utf-8"))["registration"]
    assert (found["time"], found["before_runs"]) == ("2026-01-01T00:00", False)
    (again,) = found["again"]
    assert (again["time"], again["num_runs"], again["changed"]) == (
        "2026-01-02T00:00",
        2,
        ["hypothesis"],
    )


def test_no_committed_result_names_a_folder_of_a_machine() -> None:
    results = list(table.RESULTS.rglob("*.json"))
    assert results
    for path in results:
        command = json.loads(path.read_text(encoding="utf-8")).get("provenance", {}).get("command")
        assert not [part for part in command or () if Path(part).is_absolute()], path


def test_the_table_of_the_gpu_is_what_the_committed_losses_give() -> None:
    page = table.README.read_text(encoding="utf-8")
    assert large.page_with(page) == page


def test_the_gap_at_two_sizes_is_what_the_comparisons_said() -> None:
    """The page's table is made from runs; each comparison told its own differences."""
    page = table.README.read_text(encoding="utf-8")
    assert large.with_gap(page) == page
    rows = [line.split(" | ") for line in page.partition(large._GAP_BEGIN)[2].splitlines()]
    shown = {(row[0].strip("| "), row[1].strip("`")): row for row in rows if len(row) == 9}
    told = 0
    for path, column in [(table.RESULTS / "gap.json", 3), *((part, 5) for part in large.GAP)]:
        result = ComparisonResult.model_validate_json(path.read_text(encoding="utf-8"))
        for effect in result.primary:
            row = shown[f"{effect.arm} − {effect.against}", effect.metric]
            assert row[column] == numbers.signed(effect.mean, 3)
            told += 1
    assert told == 22 + 14 + 6
    assert len(shown) - 1 == 22


def test_a_row_of_the_gpu_by_hand(tmp_path: Path) -> None:
    # Forgetting 2, 2, 2 and 1, 0.9, 0.8 of each arm but naive: −1, −1.1, −1.2, sd 0.1, SE 0.057735,
    # ± 4.30265 SE = 0.248; mean loss is half of it, for new text is 1 everywhere.
    def runs(*ends: float) -> list[dict[str, float]]:
        return [
            {"seed": seed, "base_old": 1.0, "old": 1.0 + end, "new": 1.0}
            for seed, end in enumerate(ends)
        ]

    arms = {name: runs(1.0, 0.9, 0.8) for names in large._PAIRS for name in names}
    arms["naive"] = runs(2.0, 2.0, 2.0)
    part = tmp_path / "part.json"
    part.write_text(json.dumps({"arms": arms}), encoding="utf-8")
    row = large.page_with(f"{large._BEGIN}\n{large._END}", part).splitlines()[4]
    shown = "−1.100 | −1.348 to −0.852 | −1.000, −1.100, −1.200 | 0.0027 | −0.550 | 0.0027"
    assert row == f"| replay-1 − naive | {shown} |"


def test_every_claim_is_called_by_tests_that_its_experiments_name() -> None:
    """Also those of experiments that have no result yet."""
    for entry in tomllib.loads(claims.CLAIMS.read_text(encoding="utf-8"))["claims"]:
        assert entry["tests"]
        told = re.findall(r"\{([^{}]+)\}", entry["seen"])
        for named in (*entry["tests"], *told):
            name, arm, against, metric = named.removesuffix(" %").split()
            written = read_experiment(suite.HERE / "experiments" / f"{name}.toml").experiment
            pairs = [pair[:2] for pair in written.pairs()]
            pairs += written.explored() if named not in entry["tests"] else []
            assert (arm, against) in pairs, named
            assert metric in [primary.metric for primary in written.primary], named


def claimed(folder: Path, seen: str, *tests: str, late: str = "") -> str:
    """The last row of the table of one claim on the made-up result."""
    path = folder / "claims.toml"
    named = ", ".join(f'"{test}"' for test in tests)
    claim = f'[[claims]]\nof = "X"\nclaim = "C"\nseen = "{seen}"\ntests = [{named}]\n'
    path.write_text(f"{late}{claim}", encoding="utf-8")
    return claims.claims_table(path, [fake_comparison()]).splitlines()[-1]


def test_a_claim_has_the_words_and_the_differences_of_its_tests(tmp_path: Path) -> None:
    # Forgetting 0.50, 0.52, 0.48 and 0.20, 0.21, 0.16: −0.31, which is 62 % of 0.5.
    both = ("made-up replay none forgetting", "made-up broken none forgetting")
    row = claimed(tmp_path, "it is {%s}, {%s %%}" % (both[0], both[0]), both[0])  # noqa: UP031
    seen = "It is 0.310 lower, 62 % lower ([made-up](#made-up))"
    assert row == f"| X | C | {seen} | **as expected** |"
    words = [e.word for e in fake_comparison().primary if e.metric == "forgetting"]
    assert words == ["as expected", "as expected"]
    assert claimed(tmp_path, "it", *both).endswith("| **as expected** |")


def test_tests_of_a_claim_that_came_out_unlike_are_counted(tmp_path: Path) -> None:
    row = claimed(tmp_path, "it", "made-up replay none forgetting", "other a b forgetting")
    assert row.endswith("| **1 of 2 as expected, 1 of 2 not run** |")


def test_a_claim_may_tell_a_difference_that_was_not_tested(tmp_path: Path) -> None:
    values = {name: {"forgetting": [0.5 * i, 0.5 * i, 0.5 * i]} for i, name in enumerate("abc")}
    primary = {"metric": "forgetting", "expect": "higher"}
    result = made_up(values, [primary], contrasts=[("b", "a", {})], explored=[("c", "a")])
    path = tmp_path / "claims.toml"
    seen = "{made-up c a forgetting}, and {made-up b a forgetting}"
    claim = f'[[claims]]\nof = "X"\nclaim = "C"\nseen = "{seen}"\n'
    path.write_text(f'{claim}tests = ["made-up b a forgetting"]\n', encoding="utf-8")
    row = claims.claims_table(path, [result]).splitlines()[-1]
    assert row.startswith("| X | C | 1.000 higher, and 0.500 higher (")
    path.write_text(f'{claim}tests = ["made-up c a forgetting"]\n', encoding="utf-8")
    with pytest.raises(ValueError, match="no primary test c - a, forgetting"):
        claims.claims_table(path, [result])


def test_a_claim_on_what_was_not_run_says_so_and_one_on_no_test_is_refused(tmp_path: Path) -> None:
    row = claimed(tmp_path, "it is {other a b forgetting}", "other a b forgetting")
    assert row == "| X | C |  (other) | **not run** |"
    with pytest.raises(ValueError, match=r"no primary test replay - none, adaptation\.new"):
        claimed(tmp_path, "it", "made-up replay none adaptation.new")


def late(experiment: str, *tests: str) -> str:
    """Tests of an experiment that two runs had shown, as claims.toml says it."""
    named = ", ".join(f'"{test}"' for test in tests)
    head = f'[[named_after]]\nexperiment = "{experiment}"\nruns = "two runs"\nwhat = "the end"\n'
    return f"{head}tests = [{named}]\n"


def test_a_claim_whose_answer_runs_had_shown_says_so_behind_its_verdict(tmp_path: Path) -> None:
    words = "named after two runs had shown it: a repeat on new bases, no prediction |"
    both = ("made-up replay none forgetting", "made-up broken none forgetting")
    shown = late("made-up", "replay none forgetting")
    row = claimed(tmp_path, "it", both[0], late=shown)
    assert row.endswith(f"| **as expected**; {words}")
    row = claimed(tmp_path, "it", *both, late=shown)
    assert row.endswith(f"| **as expected**; 1 of 2, of made-up, {words}")
    assert claimed(tmp_path, "it", both[1], late=shown).endswith("| **as expected** |")
    other = late("another", "replay none forgetting")
    assert claimed(tmp_path, "it", both[0], late=other).endswith("| **as expected** |")


def test_tests_whose_answer_runs_had_shown_are_marked_in_their_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(late("made-up", "replay none forgetting"), encoding="utf-8")
    monkeypatch.setattr(table, "CLAIMS", path)
    rows = table.tables_of(fake_comparison(), tmp_path).splitlines()
    marked = [row for row in rows if row.startswith("| ") and "†" in row]
    assert [row.split(" | ")[:2] for row in marked] == [["| replay − none", "`forgetting`"]]
    assert marked[0].endswith("| **as expected** † |")
    (told,) = [row for row in rows if row.startswith("*But:*")]
    assert told.startswith("*But:* the end and the tests marked † were named after two runs")
    assert told.endswith("(1 as expected).")


def test_what_was_named_after_runs_are_tests_of_their_experiments() -> None:
    entries = tomllib.loads(claims.CLAIMS.read_text(encoding="utf-8"))["named_after"]
    assert [entry["experiment"] for entry in entries] == ["keep", "reuse-area"]
    for entry in entries:
        path = suite.HERE / "experiments" / f"{entry['experiment']}.toml"
        written = read_experiment(path).experiment
        for named in entry["tests"]:
            arm, against, metric = named.split()
            assert (arm, against) in [pair[:2] for pair in written.pairs()], named
            assert metric in [primary.metric for primary in written.primary], named


def test_every_primary_effect_stands_in_the_table_with_its_word(tmp_path: Path) -> None:
    result = fake_comparison()
    (tmp_path / f"{result.name}.json").write_text(result.model_dump_json(), encoding="utf-8")
    (tmp_path / f"{result.name}.md").write_text("The reason sought.\n", encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- results: written by table.py -->\n<!-- end of results -->\nafter\n"
    )
    table.write_results(tmp_path, readme, [result.name, "not run"])
    page = readme.read_text(encoding="utf-8")
    for effect in result.primary:
        (row,) = [
            line
            for line in page.splitlines()
            if line.startswith(f"| {effect.arm} − {effect.against} | `{effect.metric}`")
        ]
        assert row.endswith(f"| **{effect.word}** |")
    assert "The reason sought." in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    for figure in tmp_path.glob("*.svg"):
        assert f"](results/{figure.name})" in page
    assert list(tmp_path.glob("*.svg"))
    table.write_results(tmp_path, readme, [result.name])
    assert readme.read_text(encoding="utf-8") == page, "written twice, it is the same"


def test_what_was_expected_stands_in_the_table_with_its_margin() -> None:
    primary = {"metric": "mean_loss", "expect": "not_higher", "within": 0.05}
    zero = {"mean_loss": [0.0, 0.0, 0.0]}
    values = {"a": zero, "b": {"mean_loss": [0.01, 0.02, 0.03]}, "c": zero}
    result = made_up(
        values,
        [primary],
        contrasts=[("b", "a", {}), ("c", "b", {"mean_loss": "lower"})],
    )
    rows = table.tables_of(result, Path()).splitlines()
    cells = [row.split(" | ")[2] for row in rows if " − " in row and "`mean_loss`" in row]
    # The margin is the metric's; a contrast that expects a side is not held to it.
    assert cells == ["not higher by more than 0.05", "lower"]
    # What could have been found is of the same kind: a margin with its sign, or a difference. By
    # hand, of two tests at 2.5 % and SE 0.0057735: margin_in_errors and detectable_in_errors.
    found = [row.split(" | ")[8] for row in rows if " − " in row and "`mean_loss`" in row]
    assert found == ["+0.033", "0.046"]


def test_a_second_suite_waits_until_the_bases_are_there(tmp_path: Path) -> None:
    lock = tmp_path / "making.lock"
    done: list[str] = []

    def second() -> None:
        with suite._alone(lock, Console(quiet=True)):
            done.append("second")

    with suite._alone(lock, Console(quiet=True)):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.3)
        done.append("first")
    other.join(10)
    assert done == ["first", "second"]


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no place between"):
        table.readme_with("nothing", [], Path())


def test_sentences_are_paired_where_there_are_as_many_of_alike_length() -> None:
    assert paired_sentences("It rains. We stay.", "Es regnet. Wir bleiben.") == [
        ("It rains.", "Es regnet."),
        ("We stay.", "Wir bleiben."),
    ]
    assert paired_sentences("It rains. We stay.", "Es regnet, wir bleiben.") == []
    assert paired_sentences("Oh. We stay.", "Es regnet sehr lange. Wir.") == []


@pytest.mark.parametrize("name", suite.EVERY)
def test_the_larger_edition_has_four_times_the_tokens_in_as_many_steps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "WORK", tmp_path)
    place = suite._place(argparse.Namespace(smoke=False, large=True, arms=None), [name])
    larger = arms_of(read_experiment(place / "experiments" / f"{name}.toml"))
    usual = arms_of(read_experiment(suite.HERE / "experiments" / f"{name}.toml"))
    for one, other in zip(usual, larger, strict=True):
        small, large = one.recipe(1), other.recipe(1)
        assert large.budget.tokens == 4 * small.budget.tokens
        assert large.batch.tokens == 4 * small.batch.tokens
        assert large.base.pretraining.tokens == LARGE.tokens
        assert large.base.pretraining.peak_lr == LARGE.peak_lr
        assert small.base.pretraining.tokens == FULL.tokens
        assert small.base.pretraining.peak_lr == FULL.peak_lr


def test_of_an_experiment_some_arms_and_their_contrasts_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "WORK", tmp_path)
    some = ["full", "full-40", "best-mixture"]
    place = suite._place(argparse.Namespace(smoke=False, large=True, arms=some), ["gap"])
    left = read_experiment(place / "experiments" / "gap.toml")
    whole = read_experiment(suite.HERE / "experiments" / "gap.toml")
    assert [arm.name for arm in arms_of(left)] == some
    assert left.experiment.primary == whole.experiment.primary
    assert left.experiment.hypothesis == whole.experiment.hypothesis
    assert [(c.arm, c.against) for c in left.experiment.contrasts or []] == [
        ("best-mixture", None),
        ("best-mixture", "full-40"),
    ]


@given(
    st.lists(st.tuples(st.sampled_from(["a", "word ", "line\n", "\n", "ü"]), st.integers(1, 3000)))
)
def test_pieces_are_the_text_and_none_is_long(runs: list[tuple[str, int]]) -> None:
    text = "".join(what * times for what, times in runs)
    pieces = cut(text)
    assert "".join(pieces) == text
    assert all(len(piece) >= NUM_CHARACTERS for piece in pieces[:-1])
    assert all(len(piece.rstrip()) <= 2 * NUM_CHARACTERS for piece in pieces)


def test_the_experiment_on_the_preset_summary_does_what_the_preset_does() -> None:
    """Its arm is written out, for the others differ from it in a part each."""
    written = read_experiment(REPOSITORY / "reproduction/experiments/summary.toml")
    (arm,) = (arm for arm in arms_of(written) if arm.name == "summary")
    recipe = arm.recipe(1).model_dump(mode="json")
    preset = {setting.key: setting.value for setting in PRESETS["summary"].settings}
    rates = (preset["schedule.peak_lr"], preset["schedule.final_lr"])
    assert rates == ("pretraining.final", "peak/100")
    assert len(preset) > 5
    preset |= {
        "schedule.peak_lr": {"name": "pretraining.final", "factor": 1.0},
        "schedule.final_lr": {"name": "peak", "factor": 0.01},
    }
    for key, value in preset.items():
        found = recipe
        for part in key.split("."):
            found = found[part]
        assert found == value, key
