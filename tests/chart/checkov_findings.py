"""Run checkov over rendered manifests and the Dockerfile; every finding must have been reviewed.

Started by nox in checkov's own environment, so it imports nothing of this project. What was
reviewed is in checkov_reviewed.yaml, with reasons; an entry that nothing needs any more is an error
too, so that the list does not outlive what it is about.
"""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

_ROOT = Path(__file__).parents[2]
_REVIEWED = Path(__file__).with_name("checkov_reviewed.yaml")


def findings(framework: str, *files: Path) -> tuple[int, set[tuple[str, str, str]]]:
    """Give how many checks passed, and what was found: check, resource, what it says."""
    # By name: in a directory, checkov leaves out whatever begins with a dot, and nox's does.
    where = [word for file in files for word in ("--file", str(file))]
    got = subprocess.run(
        [
            *("checkov", "--framework", framework, "--output", "json", "--compact", "--quiet"),
            # No key, no platform, no look for newer policies: what is installed, and nothing else.
            *("--skip-download", "--soft-fail", *where),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    report: Any = json.loads(got.stdout)
    failed = report["results"]["failed_checks"]
    passed: int = report["summary"]["passed"]
    assert not report["summary"]["parsing_errors"], report["summary"]
    return passed, {(f["check_id"], f["resource"], f["check_name"]) for f in failed}


def finds_what_is_there() -> bool:
    """Whether checkov, as it is run here, would find a privileged container."""
    with tempfile.TemporaryDirectory() as scratch:
        container = {"name": "c", "image": "i:1", "securityContext": {"privileged": True}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
        file = Path(scratch) / "pod.yaml"
        file.write_text(yaml.safe_dump({**pod, "spec": {"containers": [container]}}))
        _, found = findings("kubernetes", file)
    return "CKV_K8S_16" in {check for check, _, _ in found}


def main(manifests: str) -> int:
    """Print what was not reviewed; gives the exit code."""
    if not finds_what_is_there():
        print("checkov does not find a privileged container", file=sys.stderr)
        return 1
    passed, found = findings("kubernetes", *sorted(Path(manifests).glob("*.yaml")))
    dockerfile = _ROOT / "deploy" / "Dockerfile"
    if dockerfile.exists():
        more, images = findings("dockerfile", dockerfile)
        passed, found = passed + more, found | images
    reviewed = yaml.safe_load(_REVIEWED.read_text())
    used = set()
    wrong = 0
    for check, resource, says in sorted(found):
        entry = next(
            (
                number
                for number, known in enumerate(reviewed)
                if known["check"] == check and fnmatch.fnmatch(resource, known["resource"])
            ),
            None,
        )
        if entry is None:
            print(f"{check} {resource}: {says}", file=sys.stderr)
            wrong += 1
        else:
            used.add(entry)
    for number, known in enumerate(reviewed):
        if number not in used:
            print(f"nothing needs any more: {known['check']} {known['resource']}", file=sys.stderr)
            wrong += 1
    print(f"checkov: {passed} checks passed, {len(found)} findings reviewed, {wrong} wrong")
    return 1 if wrong or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
