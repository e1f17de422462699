"""examrelay.example.toml loads, and shows every option."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from worker import exam_map, remote, tenants, users
from worker.tenants import load_tenants

EXAMPLE = Path(__file__).parent.parent.parent / "examrelay.example.toml"
TEXT = EXAMPLE.read_text()
MODELS = [
    model
    for module in (tenants, remote, exam_map, users)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.__name__
]


def test_the_example_loads() -> None:
    environ = {name: f"secret-{name}" for name in re.findall(r"env:(\w+)", TEXT)}
    found = load_tenants(EXAMPLE, environ)
    assert set(found.tenants) == {"acme"}
    assert len(found["acme"].exams) == 2
    assert set(found.console.users) == {"ann"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_example_shows_every_option_and_every_kind(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        if name == "kind" and get_args(field.annotation) and field.is_required():
            assert f'"{get_args(field.annotation)[0]}"' in TEXT
        elif name != "digest":
            assert re.search(rf"\b{name}\b", TEXT), f"{model.__name__}.{name}"
