"""Known bugs, put back one at a time in a copy of the tree: the proof that the checker would see them.

Run: `python -m chaos.bugs [NAME ...]`. Each is tried with one seed after another until one fails, `--seeds` at most.
Exit code 0 when each was caught.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

from tests.running import ROOT

#: By name: each a list of replacements, `{file, old, new}`.
BUGS: Final[dict[str, list[dict[str, str]]]] = tomllib.loads((Path(__file__).parent / "bugs.toml").read_text())


def main() -> int:
    """Try the bugs asked for."""
    parser = argparse.ArgumentParser(prog="python -m chaos.bugs", description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(BUGS))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=1)
    asked = parser.parse_args()
    escaped = [name for name in asked.names or BUGS if not _caught(name, range(asked.first, asked.first + asked.seeds))]
    return 1 if escaped else 0


def _caught(name: str, seeds: range) -> bool:
    with tempfile.TemporaryDirectory(prefix="examrelay-bug-") as folder:
        _put_back(name, Path(folder) / "tree")
        for tried, seed in enumerate(seeds, 1):
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "chaos", "--seed", str(seed), "--folder", f"{folder}/seen"],
                cwd=Path(folder) / "tree",
                capture_output=True,
                text=True,
                timeout=900,
            )
            if done.returncode:
                violated = next((line for line in done.stdout.splitlines() if "VIOLATED" in line), done.stderr[-300:])
                seconds = time.monotonic() - began
                print(f"{name}: caught by seed {seed} ({tried} tried, {seconds:.0f} s): {violated.strip()}")
                return True
    print(f"{name}: NOT caught by {len(seeds)} seeds")
    return False


def _put_back(name: str, tree: Path) -> None:
    """A copy of the tree with the bug in it."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for file in files:
        if not file.startswith(("tests/samples", "tests/cases", "docs")):
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                (tree / file).write_bytes((ROOT / file).read_bytes())
    for edit in BUGS[name]:
        text = (tree / edit["file"]).read_text()
        if edit["old"] not in text:
            raise SystemExit(
                f"{name}: {edit['file']} does not have {edit['old']!r} any more: say where the bug would be now"
            )
        (tree / edit["file"]).write_text(text.replace(edit["old"], edit["new"]))


if __name__ == "__main__":
    sys.exit(main())
