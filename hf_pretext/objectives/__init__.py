"""One file for each objective: its settings, corruption, head and loss. The name of the file is the objective's."""

import ast
from pathlib import Path


def files() -> dict[str, Path]:
    """The file of each objective, by the objective's name."""
    return {file.stem: file for file in sorted(Path(__file__).parent.glob("[!_]*.py"))}


def find(objective: str) -> Path:
    """The file of an objective. Raises `ValueError` for an unknown one, with those there are."""
    found = files()
    if objective not in found:  # a config.json from anywhere must not choose what is imported
        raise ValueError(f"No objective {objective!r} in this version of hf_pretext. Known: {', '.join(found)}.")
    return found[objective]


def told_of(objective: str) -> dict:
    """What an objective's file says of itself, read without importing its model: the constants of its class by name
    (`modality`, `formula`, `limits`, ...), and of its docstring the task in words (`summary`) and where it is from
    (`sources`). Raises `ValueError` for an unknown objective."""
    tree = ast.parse(find(objective).read_text(encoding="utf-8"))
    bodies = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    assigned = [node for body in bodies for node in body if isinstance(node, ast.Assign)]
    found = {node.targets[0].id: ast.literal_eval(node.value) for node in assigned if is_constant(node.value)}
    summary, sources, *_ = [" ".join(part.split()) for part in ast.get_docstring(tree).split("\n\n")]
    return {**found, "summary": summary, "sources": sources}


def is_constant(value: ast.expr) -> bool:
    """Whether an expression says its value by itself."""
    return all(isinstance(part, (ast.Constant, ast.Tuple, ast.Load)) for part in ast.walk(value))
