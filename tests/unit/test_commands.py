"""The processes that `examrelay up` starts are those of the Procfile."""

import shlex

from tests.running import ROOT
from worker.local.commands import ARGUMENTS, command
from worker.local.up import STOPS


def test_the_procfile_says_the_same() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    written = {name: shlex.split(line) for name, _, line in (line.partition(":") for line in lines)}
    ours = {name: ["python", *command(name)[1:]] for name in ARGUMENTS}
    assert {
        name: words if words[0] == "python" else ["python", "-m", *words] for name, words in written.items()
    } == ours


def test_each_is_stopped() -> None:
    assert {name for wave in STOPS for name in wave} == {*ARGUMENTS, "valkey", "sandbox"}
