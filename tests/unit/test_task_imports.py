"""Whoever imports a task needs no environment: a command, a test or a shell, before anything is configured."""

import subprocess
import sys

from tests.running import ROOT

IMPORT_ALL = """
import importlib, pkgutil, tasks
names = [module.name for module in pkgutil.walk_packages(tasks.__path__, "tasks.")]
for name in names:
    importlib.import_module(name)
print(*names)
"""


def test_each_module_of_tasks_can_be_imported_with_an_empty_environment() -> None:
    imported = subprocess.run([sys.executable, "-c", IMPORT_ALL], env={}, cwd=ROOT, capture_output=True, text=True)
    assert imported.returncode == 0, imported.stderr
    assert {"tasks.process", "tasks.sync", "tasks.operator.plan"} <= set(imported.stdout.split())
