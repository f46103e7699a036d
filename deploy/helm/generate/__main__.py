"""Write the generated files, or with ``--check`` say which are stale."""

from __future__ import annotations

import sys

from deploy.helm.generate.outputs import outputs


def main(arguments: list[str]) -> int:
    """Write or check; gives the exit code."""
    found = outputs()
    stale = [path for path, text in found.items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            sys.stderr.write(f"stale: {path}; run python -m deploy.helm.generate\n")
        return int(bool(stale))
    for path in stale:
        path.write_text(found[path])
        sys.stdout.write(f"written: {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
