"""Known bugs, put back one at a time in a copy of the tree: the proof that the checker would see them.

Run: `python -m chaos.bugs [NAME ...]`. Each is tried with seed after seed until one fails, `--seeds` at most.
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
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    asked = parser.parse_args()
    seeds = ["--from", asked.first, "--new", asked.seeds, "--jobs", asked.jobs]
    escaped = [name for name in asked.names or BUGS if not _caught(name, [str(each) for each in seeds])]
    return 1 if escaped else 0


def _caught(name: str, seeds: list[str]) -> bool:
    with tempfile.TemporaryDirectory(prefix="examrelay-bug-") as folder:
        _put_back(name, Path(folder) / "tree")
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "chaos", *seeds, "--folder", f"{folder}/seen"],
            cwd=Path(folder) / "tree",
            stdout=subprocess.PIPE,
            text=True,
        )
    seconds, lines = time.monotonic() - began, done.stdout.splitlines()
    kept = sum("every promise was kept" in line for line in lines)
    violated = [line.strip() for line in lines if "VIOLATED" in line]
    if done.returncode and not violated:
        raise SystemExit(f"{name}: the run itself failed")
    by = f"caught after {kept + 1} seeds: {violated[0]}" if violated else f"NOT caught by {kept} seeds"
    print(f"{name}: {by} ({seconds:.0f} s)", flush=True)
    return bool(violated)


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
