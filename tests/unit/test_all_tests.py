"""What the tool that runs all tests keeps on record."""

from __future__ import annotations

from tools.test_all import with_part


def test_a_part_takes_its_place_on_record_whether_or_not_it_was_there() -> None:
    first, last = "all tests but the broken lines", "broken lines"
    peers = {"name": "tests against peers", "exit_code": 0}
    results = [{"name": first, "exit_code": 1}, {"name": last, "exit_code": 0}]
    found = with_part(results, peers)
    assert [result["name"] for result in found] == [first, "tests against peers", last]
    again = {"name": first, "exit_code": 0}
    assert with_part(found, again) == [again, peers, results[1]]
