"""A plain HTTP client for the stand-in's own tests, written only from the vendor's document."""

import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote

import requests

from sandbox.control import API_KEY, Sandbox

TENANT = "acme.org"
TO_PASSED = [{"op": "add", "path": "/status", "value": "passed"}]


def seeded(sandbox: Sandbox) -> Sandbox:
    """Reset, then seeded with reg-1 to reg-5, one for each student."""
    sandbox.reset()
    sandbox.seed(TENANT, [{"id": f"reg-{n}", "student_id": f"student-{n}", "exam_id": "exam-1"} for n in range(1, 6)])
    return sandbox


class Rhythm:
    """Calls under `/examRegistrations/{tenant}` with the raw API key of the document."""

    def __init__(self, url: str, tenant: str = TENANT, authorization: str | None = API_KEY) -> None:
        self.url, self.tenant = url, tenant
        self.session = requests.Session()
        self.session.trust_env = False
        if authorization is not None:
            self.session.headers["Authorization"] = authorization

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def call(self, method: str, path: str = "", json: Any = None, **more: Any) -> requests.Response:
        url = f"{self.url}/examRegistrations/{self.tenant}{path}"
        return self.session.request(method, url, json=json, **{"timeout": 10, **more})

    def get(self, registration_id: str, **query: str) -> requests.Response:
        return self.call("GET", f"/{registration_id}", params=query)

    def patch(self, registration_id: str, *directives: Any, **more: Any) -> requests.Response:
        return self.call("PATCH", f"/{registration_id}", list(directives), **more)

    def student_exam(self, student_id: str, exam_id: str, **query: str) -> requests.Response:
        return self.call("GET", f"/studentExam/{quote(student_id, safe='')}/{quote(exam_id, safe='')}", params=query)

    def search(self, body: Any, **query: str) -> requests.Response:
        return self.call("POST", "/search", body, params=query)

    def batch(self, *operations: Any) -> requests.Response:
        return self.call("POST", "/batch", {"operations": list(operations)})


def add(member: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": f"/{member}", "value": value}


def guard(version: Any) -> dict[str, Any]:
    return {"op": "test", "path": "/sys_version", "value": version}


def patch_of(registration_id: str, *directives: Any) -> dict[str, Any]:
    return {"id": registration_id, "operation": "patch", "patch_directives": list(directives)}


def ids(response: requests.Response) -> list[str]:
    return [item["id"] for item in response.json()["Items"]]


def eventually(holds: Callable[[], Any], seconds: float = 5) -> Any:
    """What `holds` returns once it is true. It reads over HTTP, so no pause is needed between two tries."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "did not come to hold in time"
    return found
