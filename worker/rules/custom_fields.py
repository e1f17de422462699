"""Custom fields: what the exam map fills them with, and how Rhythm holds them. Pure.

Rhythm keeps them as an array of `{custom_field_id, string_value | numeric_value | boolean_value | ...}` (Rhythm, custom
field values), so a field is found by its id, and a patch names it by where it stands.
"""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schemas.outcome import ExamOutcome
from schemas.rhythm import PatchOperation
from worker.exam_map import CustomField

_MEMBERS: Final = {"string": "string_value", "numeric": "numeric_value", "boolean": "boolean_value"}
#: Field id -> {member: value}.
Fields = dict[str, dict[str, Any]]


def fields_of(outcome: ExamOutcome, wanted: Sequence[CustomField]) -> Fields:
    """Each wanted field's value, as far as the outcome has it."""
    values = ((field, _value(outcome, field.value.split("."))) for field in wanted)
    return {field.id: _member(field, value) for field, value in values if value is not None}


def _value(outcome: ExamOutcome, path: list[str]) -> Any:
    """What a path names: `details.examFormName`, `scores.percent`, `parts.topic.Ethics.percent`, `delivery`."""
    match path:
        case ["details", *name]:
            return outcome.details.get(".".join(name))
        case ["scores", name]:
            return outcome.scores.get(name)
        case ["parts", kind, *name, score]:
            parts = (part for part in outcome.parts if part.kind == kind and part.name == ".".join(name))
            return next((part.scores[score] for part in parts if score in part.scores), None)
        case [name]:
            value = getattr(outcome, name)
            return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value
    return None


def _member(field: CustomField, value: Any) -> dict[str, Any]:
    kind = field.kind or {bool: "boolean", Decimal: "numeric"}.get(type(value), "string")
    return {_MEMBERS[kind]: str(value) if kind == "string" else value}


def difference(fields: Mapping[str, Mapping[str, Any]], present: Sequence[Mapping[str, Any]] | None) -> Fields:
    """The `fields` that the registration does not have yet."""
    held = {entry.get("custom_field_id"): entry for entry in present or ()}
    return {
        id: dict(member)
        for id, member in fields.items()
        if not all(_same(value, held.get(id, {}).get(name)) for name, value in member.items())
    }


def cleared(fields: Fields, wrote: Mapping[str, Mapping[str, Any]], wanted: Collection[str]) -> Fields:
    """`fields`, and None for each `wanted` one that was written before and has no value now."""
    gone = {id: dict.fromkeys(member) for id, member in wrote.items() if id in wanted and id not in fields}
    return fields | gone


def operations(
    changed: Mapping[str, Mapping[str, Any]], present: Sequence[Mapping[str, Any]] | None
) -> list[PatchOperation]:
    """The patch for `changed`: into its entry, as a new entry, or as the whole array if the registration has none."""
    if present is None:
        entries = [{"custom_field_id": id, **member} for id, member in changed.items()]
        return [PatchOperation(op="add", path="/custom_field_values", value=entries)]
    places = {entry.get("custom_field_id"): place for place, entry in enumerate(present)}
    made: list[PatchOperation] = []
    for id, member in changed.items():
        if id not in places:
            value = {"custom_field_id": id, **member}
            made.append(PatchOperation(op="add", path="/custom_field_values/-", value=value))
            continue
        entry = f"/custom_field_values/{places[id]}"
        made.append(PatchOperation(op="test", path=f"{entry}/custom_field_id", value=id))
        made += [
            PatchOperation(op="remove" if value is None else "add", path=f"{entry}/{name}", value=value)
            for name, value in member.items()
        ]
    return made


def _same(ours: Any, theirs: Any) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    if isinstance(ours, bool) != isinstance(theirs, bool):
        return False
    try:
        return Decimal(str(ours)) == Decimal(str(theirs))
    except InvalidOperation:
        return str(ours) == str(theirs)
