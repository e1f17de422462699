"""The tenant that tests use: `acme`, with the stand-in as its Rhythm."""

from pathlib import Path

ENVIRON = {"ACME_RHYTHM": "sandbox-key", "ACME_CERTIVERSE": "s3cret", "ACME_READ": "r3ad"}


def write_tenants(folder: Path, rhythm_url: str, *, rhythm: str = "", tenant: str = "", more: str = "") -> Path:
    """A tenants file for `acme`. `rhythm`, `tenant`: more lines for those tables; `more`: more tables."""
    path = folder / "examrelay.toml"
    path.write_text(f"""
[tenants.acme]
read_credentials = {{ kind = "bearer", token = "env:ACME_READ" }}
{tenant}
[tenants.acme.rhythm]
url = "{rhythm_url}"
tenant_id = "acme.org"
credentials = {{ kind = "api_key", key = "env:ACME_RHYTHM" }}
{rhythm}
[tenants.acme.sources.certiverse]
credentials = [ {{ kind = "basic", user = "certiverse", password = "env:ACME_CERTIVERSE" }} ]
[[tenants.acme.exams]]
exam_id = "exam-1"
codes = ["CERT-1", "CERT-1B"]
score = "scaled"
{more}
""")
    return path
