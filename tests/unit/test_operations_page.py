"""The operators' page has every reason."""

import re
from pathlib import Path

from schemas.event import Policy, Reason

PAGE = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text()
REASONS = PAGE.partition("## Every reason")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", REASONS, re.MULTILINE))
ENDS = {
    Policy.DEAD: "dead",
    Policy.HELD: "held",
    Policy.RETRY: "ready",
    Policy.RETRY_THEN_HELD: "ready, then held",
    Policy.GATE: "gate",
    Policy.DISCARDED: "discarded",
}


def test_every_reason_is_on_the_page_with_the_state_it_leads_to() -> None:
    assert set(ROWS) == set(Reason)
    for reason in Reason:
        assert ROWS[reason].strip().startswith(ENDS[reason.policy]), reason
