"""The table of faults names a test that exists for every fault, or says why there is none."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.*?) \| (.+) \|$", re.M)
# partitions are assigned: there are no members of a group
_ABSENT = {18, 19, 21}


def test_every_fault_has_a_test_that_exists() -> None:
    rows = {int(number): rest for number, *rest in _ROW.findall((ROOT / "docs/explanation/faults.md").read_text())}
    assert list(rows) == list(range(1, 43))
    for number, (_, promise, last) in rows.items():
        tests = re.findall(r"`([^\s`]+)::(\w+)`", last)
        if number in _ABSENT:
            assert not tests
            assert last.startswith("does not apply: ")
            continue
        assert tests, number
        assert promise, number
        for path, name in tests:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), f"{number}: {path} has no {name}"
