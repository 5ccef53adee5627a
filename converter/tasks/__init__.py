"""What a network is for: each task is one file here, with all that the rest of the package must know of it."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from paddle2torch.converter.tasks.task import Answer, Batch, Task, Value

__all__ = ["Answer", "Batch", "Task", "Value", "find_task", "tasks"]


@cache
def tasks() -> dict[str, Task]:
    """All tasks by name; a module of this folder that has a `TASK` is one."""
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    found: list[Task] = [module.TASK for module in modules if hasattr(module, "TASK")]
    return {task.name: task for task in found}


def find_task(name: str) -> Task:
    """The task of that name: "det", "rec" or "cls".

    Raises:
        KeyError: there is none.
    """
    return tasks()[name]
