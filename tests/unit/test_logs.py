"""What `examrelay up` shows and keeps of its children's lines."""

import io
import sys
from contextlib import closing
from pathlib import Path

import pytest

from worker.local.logs import Output


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_message_about_a_child_may_come_before_its_first_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    with closing(Output(tmp_path, quiet=False)) as output:
        output.about("valkey", "had 4 zero bytes")
        output.line("web", "\x1b[1mup\x1b[0m")
        assert (tmp_path / "web.log").read_text() == "up\n", "written at once, without colours"
    assert (tmp_path / "up.log").read_text() == "valkey had 4 zero bytes\n"
    assert sys.stdout.getvalue().splitlines() == [
        "\x1b[36mvalkey   |\x1b[0m valkey had 4 zero bytes",
        "\x1b[32mweb      |\x1b[0m \x1b[1mup\x1b[0m",
    ]
