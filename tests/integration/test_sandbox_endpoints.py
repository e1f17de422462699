"""The stand-in's endpoints answer as the Exam Registrations document says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.control import Sandbox, start
from tests.integration.sandbox_rhythm import COMPLETE, TENANT, Rhythm, add, guard, ids, patch_of


@pytest.fixture(scope="module")
def process() -> Iterator[Sandbox]:
    with start() as running:
        yield running


@pytest.fixture
def sandbox(process: Sandbox) -> Sandbox:
    process.reset()
    process.seed(TENANT, [{"id": f"reg-{n}", "student_id": f"student-{n}"} for n in range(1, 6)])
    return process


@pytest.fixture
def rhythm(sandbox: Sandbox) -> Iterator[Rhythm]:
    with Rhythm(sandbox.url) as client:
        yield client


def test_create_generates_an_id_and_the_sys_members(rhythm: Rhythm, sandbox: Sandbox) -> None:
    made = rhythm.call("POST", "", COMPLETE)
    assert made.status_code == 200
    assert made.json().items() >= {**COMPLETE, "sys_version": 1, "sys_created_by_id": "api"}.items()
    assert rhythm.get(made.json()["id"]).json() == made.json()
    assert [entry["operation"] for entry in sandbox.history(TENANT, made.json()["id"])] == ["create"]


@pytest.mark.parametrize(
    "body",
    [
        {**COMPLETE, "id": "mine"},
        {name: value for name, value in COMPLETE.items() if name != "exam_id"},
        {**COMPLETE, "status": "done"},
        {**COMPLETE, "score": "81"},
        {**COMPLETE, "score": True},
        {**COMPLETE, "location": "home"},
        {**COMPLETE, "retest": "yes"},
        {**COMPLETE, "custom_field_values": {"custom_field_id": "a__c"}},
        [COMPLETE],
        None,
    ],
)
def test_create_refuses_what_is_not_valid(rhythm: Rhythm, sandbox: Sandbox, body: Any) -> None:
    assert rhythm.call("POST", "", body).status_code == 400
    assert len(sandbox.registrations(TENANT)) == 5


def test_create_keeps_custom_and_unknown_fields(rhythm: Rhythm) -> None:
    fields = {"custom_field_values": [{"custom_field_id": "a__c", "numeric_value": 7}], "made_up": {"a": 1}}
    assert rhythm.call("POST", "", COMPLETE | fields).json().items() >= fields.items()


def test_a_reference_to_an_unknown_exam_or_student_is_409_once_the_known_ones_are_told(
    rhythm: Rhythm, sandbox: Sandbox
) -> None:
    assert rhythm.call("POST", "", COMPLETE).status_code == 200
    sandbox.options(known_exam_ids=["exam-1"], known_student_ids=["student-1"])
    assert rhythm.call("POST", "", COMPLETE).status_code == 200
    assert rhythm.call("POST", "", COMPLETE | {"exam_id": "exam-9"}).status_code == 409
    assert rhythm.patch("reg-1", add("student_id", "student-9")).status_code == 409
    assert rhythm.patch("reg-2", add("score", 1)).status_code == 200, "an untouched reference is not looked at"


def test_get_gives_the_registration_or_the_fields_asked_for(rhythm: Rhythm) -> None:
    assert rhythm.get("reg-1").json()["student_id"] == "student-1"
    assert rhythm.get("reg-1", fields="id,status,score", consistentRead="true").json() == {
        "id": "reg-1",
        "status": "registered",
    }
    assert rhythm.get("nobody").status_code == 404


def test_an_id_may_hold_every_sign_the_document_allows(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, [{"id": "a|b:c-d_e"}])
    assert rhythm.get("a%7Cb%3Ac-d_e").json()["id"] == "a|b:c-d_e"
    assert rhythm.get("a|b:c-d_e").json()["id"] == "a|b:c-d_e"
    assert sandbox.record(TENANT, "a|b:c-d_e")["history"] == []


def test_get_all_is_a_bare_array_of_them_all(rhythm: Rhythm) -> None:
    assert [item["id"] for item in rhythm.call("GET").json()] == [f"reg-{n}" for n in range(1, 6)]
    assert rhythm.call("GET", params={"fields": "id"}).json()[0] == {"id": "reg-1"}


def test_put_replaces_all_but_rhythms_own_members(rhythm: Rhythm) -> None:
    before = rhythm.get("reg-1").json()
    given = COMPLETE | {"id": "reg-1", "score": 50, "sys_version": 99, "sys_created_at": "1999-01-01T00:00:00Z"}
    after = rhythm.call("PUT", "/reg-1", given)
    assert after.status_code == 200
    assert after.json().items() >= {**COMPLETE, "score": 50, "sys_version": 2}.items()
    assert after.json()["sys_created_at"] == before["sys_created_at"]
    assert "status" not in after.json()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/reg-1", COMPLETE, 400),
        ("/reg-1", COMPLETE | {"id": "reg-2"}, 400),
        ("/reg-1", {"id": "reg-1"}, 400),
        ("/reg-1", COMPLETE | {"id": "reg-1", "status": "done"}, 400),
        ("/nobody", COMPLETE | {"id": "nobody"}, 404),
    ],
)
def test_put_refuses_what_is_not_valid(rhythm: Rhythm, path: str, body: Any, status: int) -> None:
    assert rhythm.call("PUT", path, body).status_code == status
    assert rhythm.get("reg-1").json()["sys_version"] == 1


def test_patch_applies_rfc_6902_and_gives_the_whole_registration(rhythm: Rhythm) -> None:
    directives = [
        guard(1),
        add("score", 81.5),
        add("status", "passed"),
        add("custom_field_values", []),
        add("custom_field_values/-", {"custom_field_id": "a__c", "string_value": "x"}),
        {"op": "copy", "from": "/name", "path": "/notes"},
        {"op": "replace", "path": "/notes", "value": "n"},
        {"op": "move", "from": "/notes", "path": "/job_title"},
        {"op": "remove", "path": "/job_title"},
    ]
    patched = rhythm.patch("reg-1", *directives)
    assert patched.status_code == 200
    wanted = {"score": 81.5, "status": "passed", "sys_version": 2, "name": "Jo Example"}
    assert patched.json().items() >= wanted.items()
    assert patched.json()["custom_field_values"] == [{"custom_field_id": "a__c", "string_value": "x"}]
    assert "notes" not in patched.json()
    assert rhythm.get("reg-1").json() == patched.json()


@pytest.mark.parametrize(
    "directives",
    [
        [guard(2)],
        [add("score", 1), {"op": "test", "path": "/nothing", "value": 1}],
        [{"op": "replace", "path": "/score", "value": 1}],
        [{"op": "remove", "path": "/score"}],
        [{"op": "remove", "path": "/exam_id"}],
        [{"op": "add", "path": "/score"}],
        [{"op": "upsert", "path": "/score", "value": 1}],
        [{"op": ["add"], "path": "/score", "value": 1}],
        [{"op": "add", "path": "score", "value": 1}],
        [{"op": "add", "value": 1}],
        [{"op": "move", "from": 1, "path": "/score"}],
        [add("name/deep", 1)],
        [add("deep", json.loads("[" * 700 + "]" * 700))],
        [add("custom_field_values/9", {})],
        [{"op": "add", "path": "", "value": 1}],
        [{"op": "add", "path": "", "value": {"id": "reg-1"}}],
        [add("status", "done")],
        [add("status", None)],
        [add("status", ["passed"])],
        [add("score", "81")],
        [add("score", None)],
        [add("exam_date", 20260101)],
        [add("id", "other")],
        [add("sys_version", 7)],
        [add("sys_created_at", "1999-01-01T00:00:00Z")],
        ["add"],
    ],
)
def test_patch_refuses_what_is_not_valid_and_applies_nothing(
    rhythm: Rhythm, sandbox: Sandbox, directives: list[Any]
) -> None:
    before = sandbox.registration(TENANT, "reg-1")
    assert rhythm.patch("reg-1", add("custom_field_values", []), *directives).status_code == 400
    assert sandbox.record(TENANT, "reg-1") == {"registration": before, "history": [], "letters": []}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[NaN]", b"\xff", b"[" * 20_000, b'[{"op":"add","path":"/score","value":NaN}]']
)
def test_patch_refuses_a_body_that_is_not_an_array_of_directives(rhythm: Rhythm, body: bytes) -> None:
    assert rhythm.call("PATCH", "/reg-1", data=body).status_code == 400


def test_a_patch_of_the_whole_is_checked_as_a_whole(rhythm: Rhythm) -> None:
    whole = rhythm.get("reg-1").json()
    assert rhythm.patch("reg-1", {"op": "replace", "path": "", "value": whole | {"status": "done"}}).status_code == 400
    replaced = rhythm.patch("reg-1", {"op": "replace", "path": "", "value": whole | {"status": "passed"}})
    assert (replaced.status_code, replaced.json()["status"], replaced.json()["sys_version"]) == (200, "passed", 2)


def test_a_refused_patch_leaves_nested_values_alone(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.seed(
        TENANT, [{"id": "nested", "custom_field_values": [{"custom_field_id": "a__c", "string_value": "old"}]}]
    )
    deep = {"op": "replace", "path": "/custom_field_values/0/string_value", "value": "new"}
    assert rhythm.patch("nested", deep, add("status", "done")).status_code == 400
    assert rhythm.get("nested").json()["custom_field_values"][0]["string_value"] == "old"
    assert rhythm.patch("nested", deep).json()["custom_field_values"][0]["string_value"] == "new"
    assert sandbox.history(TENANT, "nested")[0]["changes"]["custom_field_values"][0][0]["string_value"] == "old"


def test_patch_of_an_unknown_registration_is_404(rhythm: Rhythm) -> None:
    assert rhythm.patch("nobody", add("score", 1)).status_code == 404


def test_delete_gives_the_id_and_removes_the_registration(rhythm: Rhythm, sandbox: Sandbox) -> None:
    deleted = rhythm.call("DELETE", "/reg-1")
    assert (deleted.status_code, deleted.json()) == (200, "reg-1")
    assert rhythm.get("reg-1").status_code == 404
    assert rhythm.call("DELETE", "/reg-1").status_code == 404
    assert rhythm.call("GET", "/student/student-1").status_code == 404
    assert sandbox.registration(TENANT, "reg-1") is None
    assert [entry["operation"] for entry in sandbox.history(TENANT, "reg-1")] == ["delete"]


def test_a_locked_registration_is_not_written_and_can_be_read(rhythm: Rhythm, sandbox: Sandbox) -> None:
    sandbox.seed(TENANT, [{"id": "locked", "sys_locked": True}])
    assert rhythm.get("locked").status_code == 200
    assert rhythm.patch("locked", add("score", 1)).status_code == 403
    assert rhythm.call("PUT", "/locked", COMPLETE | {"id": "locked"}).status_code == 403
    assert rhythm.call("DELETE", "/locked").status_code == 403
    assert rhythm.batch(patch_of("locked", add("score", 1))).json()["results"][0]["status_code"] == 403
    assert sandbox.history(TENANT, "locked") == []


@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("student/x", {"student_id": "x"}),
        ("exam/x", {"exam_id": "x"}),
        ("examOffering/x", {"exam_offering_id": "x"}),
        ("studentExam/x/y", {"student_id": "x", "exam_id": "y"}),
        ("courseRegistration/x", {"course_registration_id": "x"}),
        ("application/x", {"application_id": "x"}),
    ],
)
def test_a_lookup_gives_those_that_match(rhythm: Rhythm, sandbox: Sandbox, path: str, member: dict[str, str]) -> None:
    assert rhythm.call("GET", f"/{path}").status_code == 404
    sandbox.seed(TENANT, [{"id": "one", **member}, {"id": "two", **member}, {"id": "half", "student_id": "x"}])
    found = rhythm.call("GET", f"/{path}", params={"fields": "id"}).json()
    wanted = ["one", "two", "half"] if path == "student/x" else ["one", "two"]
    assert found == {"Count": len(wanted), "Items": [{"id": name} for name in wanted]}


def test_a_lookup_follows_a_patch(rhythm: Rhythm) -> None:
    rhythm.patch("reg-1", add("student_id", "moved"))
    assert ids(rhythm.call("GET", "/student/moved")) == ["reg-1"]
    assert rhythm.call("GET", "/student/student-1").status_code == 404


def test_generate_order_needs_a_known_registration(rhythm: Rhythm) -> None:
    assert rhythm.call("POST", "/generateOrder", {"id": "reg-1"}).json() == {}
    assert rhythm.call("POST", "/generateOrder", {}).status_code == 400
    assert rhythm.call("POST", "/generateOrder", {"id": "nobody"}).status_code == 404


def test_generate_registration_makes_a_draft_for_the_contact(rhythm: Rhythm, sandbox: Sandbox) -> None:
    made = rhythm.call("POST", "/generateRegistration/process-1/contact-1")
    assert made.status_code == 200
    assert made.json().items() >= {"process_id": "process-1", "student_id": "contact-1", "status": "draft"}.items()
    sandbox.options(known_student_ids=["contact-1"])
    assert rhythm.call("POST", "/generateRegistration/process-1/contact-2").status_code == 404


def test_send_notice_sends_a_letter(rhythm: Rhythm, sandbox: Sandbox) -> None:
    assert rhythm.call("POST", "/sendNotice/reg-1/notice-1").json() == {}
    assert [(one["registration"], one["notice"]) for one in sandbox.letters()] == [("reg-1", "notice-1")]
    assert rhythm.call("POST", "/sendNotice/nobody/notice-1").status_code == 404


def test_preview_email_needs_an_address_and_a_registration(rhythm: Rhythm, sandbox: Sandbox) -> None:
    body = {"destination_email_address": "jo@example.org", "registration_id": "reg-1"}
    assert rhythm.call("POST", "/previewEmail", body).json() == {}
    assert rhythm.call("POST", "/previewEmail", {"registration_id": "reg-1"}).status_code == 400
    assert rhythm.call("POST", "/previewEmail", body | {"registration_id": "nobody"}).status_code == 404
    assert sandbox.letters() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/x/y/z"), ("POST", "/reg-1"), ("POST", "/x/y"), ("PATCH", ""), ("GET", "/studentExam/x")],
)
def test_an_unknown_path_is_404(rhythm: Rhythm, sandbox: Sandbox, method: str, path: str) -> None:
    assert rhythm.call(method, path).status_code == 404
    assert rhythm.session.get(f"{sandbox.url}/elsewhere", timeout=5).status_code == 404
