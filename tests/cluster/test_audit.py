"""The dependency audit: what is said of pip-audit's reports, above all where nothing was looked up."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, ROOT, script

audit = script("read_audit")
CLEAN = {"name": "a", "version": "1.0", "vulns": []}
WEAK = {
    "name": "b",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2026-1", "GHSA-x"], "fix_versions": ["2.1"]}],
}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


def test_nothing_looked_up_is_no_good_news() -> None:
    """pip-audit itself ends with 0 and "No known vulnerabilities found"."""
    assert audit.judge({}, [UNKNOWN, UNKNOWN]) == (
        ["NOT DONE: the advisory service told of none of the 2 packages: c (Dependency not found on PyPI)"],
        3,
    )
    assert audit.judge({}, []) == (["NOT DONE: the advisory service told of none of the 0 packages"], 3)


def test_what_is_known_is_named_with_the_version_that_mends_it() -> None:
    assert audit.judge({}, [CLEAN, WEAK, UNKNOWN]) == (
        [
            "b 2.0: PYSEC-1 CVE-2026-1 GHSA-x; fixed in 2.1",
            "known vulnerabilities, see above, in 2 of 3 packages; accepted: 0",
            "not looked up: c (Dependency not found on PyPI)",
        ],
        1,
    )


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-2026-1", "GHSA-x"])
def test_what_is_accepted_goes_by_any_of_its_names(name: str) -> None:
    assert audit.judge({name: "not used"}, [WEAK]) == (
        ["no known vulnerability, in 1 of 1 packages; accepted: 1"], 0
    )  # fmt: skip
    assert audit.judge({name: "not used", "CVE-0": "gone"}, [WEAK])[0][1:] == [
        "accepted, and not found any more: CVE-0"
    ]


def test_nothing_is_accepted_without_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted = tmp_path / "accepted.txt"
    accepted.write_text("# a comment\n\nCVE-1 not called by us\nCVE-2 \n")
    assert audit.main([str(accepted)]) == 2
    assert capsys.readouterr().err == (f"audit: {accepted} gives no reason for CVE-2: write one behind it\n")
    accepted.write_text("CVE-1  not called by us\n")
    assert audit.read_accepted(accepted) == {"CVE-1": "not called by us"}
    audit.read_accepted(CLUSTER / "audit-accepted.txt")


def test_reports_are_read_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = []
    for number, package in enumerate([CLEAN, WEAK]):
        names.append(str(tmp_path / f"{number}.json"))
        Path(names[-1]).write_text(json.dumps({"dependencies": [package], "fixes": []}))
    assert audit.main([str(CLUSTER / "audit-accepted.txt"), *names]) == 1
    assert "audit: b 2.0: PYSEC-1" in capsys.readouterr().out


def test_the_tool_is_pinned_and_check_runs_it() -> None:
    text = (CLUSTER / "audit.sh").read_text()
    assert "PIP_AUDIT=pip-audit==" in text
    subprocess.run(["bash", "-n", str(CLUSTER / "audit.sh")], check=True)
    assert "cluster/audit.sh --warn" in (ROOT / "Makefile").read_text()
    for lock in ("requirements-cpu.lock", "requirements-gpu.lock", "cluster/requirements-clouds.lock"):
        assert lock in text
        assert (ROOT / lock).is_file()
    assert "\nrequests==" in (ROOT / "requirements-cpu.lock").read_text()  # what is asked for first
