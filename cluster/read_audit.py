"""What pip-audit's reports say, and an exit code: 0 nothing is known, 1 something is, 3 nothing was asked.

    python cluster/read_audit.py ACCEPTED REPORT...

pip-audit takes a package that its service does not know for a harmless one, and ends with 0 though nothing
was looked up. Behind a mirror of the registry that is all of them: here it is said. Standard library only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTHING_KNOWN, KNOWN, MISTAKE, NOT_DONE = 0, 1, 2, 3
_NAMED = 10


def read_accepted(path: Path) -> dict[str, str]:
    """ID → why it does not concern music_ray.

    Raises:
        ValueError: an ID without a reason.
    """
    accepted = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        one, _, why = line.partition(" ")
        if one and not one.startswith("#"):
            if not why.strip():
                raise ValueError(f"{path} gives no reason for {one}: write one behind it")
            accepted[one] = why.strip()
    return accepted


def judge(accepted: dict[str, str], packages: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    """What is to be said of the packages of all reports, and the exit code."""
    unknown = [f"{one['name']} ({one['skip_reason']})" for one in packages if "skip_reason" in one]
    looked_up = [one for one in packages if "skip_reason" not in one]
    if not looked_up:
        reason = f": {unknown[0]}" if unknown else ""
        return [
            f"NOT DONE: the advisory service told of none of the {len(packages)} packages{reason}"
        ], NOT_DONE
    lines, used = [], set()
    for package in looked_up:
        for found in package["vulns"]:
            ids = [found["id"], *found.get("aliases", [])]
            if known := [one for one in ids if one in accepted]:
                used.update(known)
                continue
            fixed = ", ".join(found.get("fix_versions", [])) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {' '.join(ids)}; fixed in {fixed}")
    code = KNOWN if lines else NOTHING_KNOWN
    found_in = "known vulnerabilities, see above" if lines else "no known vulnerability"
    lines.append(f"{found_in}, in {len(looked_up)} of {len(packages)} packages; accepted: {len(used)}")
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        lines.append(f"not looked up: {', '.join(unknown[:_NAMED])}{more}")
    lines += [f"accepted, and not found any more: {one}" for one in sorted(accepted.keys() - used)]
    return lines, code


def main(words: Sequence[str]) -> int:
    """Reads the files that are named, and prints."""
    try:
        accepted = read_accepted(Path(words[0]))
    except ValueError as error:
        sys.stderr.write(f"audit: {error}\n")
        return MISTAKE
    packages = [
        package for name in words[1:] for package in json.loads(Path(name).read_text())["dependencies"]
    ]
    lines, code = judge(accepted, packages)
    for line in lines:
        sys.stdout.write(f"audit: {line}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
