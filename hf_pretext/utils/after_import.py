"""Calls a function after the import of a module of another package, without importing it."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


def after_import(module: str, action: Callable[[], None]) -> None:
    """Calls `action` right after the first import of `module`, or now if it is already imported."""
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Watcher(module, action))


class _Watcher(MetaPathFinder):
    """Import hook for one module. Removes itself when the module is imported."""

    def __init__(self, module: str, action: Callable[[], None]):
        self.module, self.action = module, action

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target=None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module) -> None:
                execute(module)
                self.action()

            spec.loader.exec_module = exec_module
        return spec
