"""README's table of variables is the one made from the settings themselves."""

from pathlib import Path

import pytest

from tests.settings_table import markdown

README = Path(__file__).parent.parent.parent / "README.md"


def test_readme_has_the_table_of_variables() -> None:
    if not README.exists() or "| variable | default |" not in README.read_text():
        pytest.skip("README.md has no table of variables yet: tests.settings_table.markdown() makes it")
    assert markdown() in README.read_text(), "print tests.settings_table.markdown() into README.md"
