"""How the package is laid out: layers, sizes and names, read from its source. Nothing is imported."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = "hf_pretext"
LAYERS = (  # imports go from a later layer to an earlier one, or stay in one
    ("encoders", "features", "registry", "samples", "utils"),
    ("data",),
    ("modeling", "checkpoints"),
    ("modules", "presets", "stream"),
    ("objectives", "modalities"),
    ("evaluation", "audit"),
    ("trainer", "callbacks", "cards"),
    ("run", "doctor", "interop", "look"),
    ("cli", "recipe"),
)
MOST_ROOT_FILES, MOST_LINES = 10, {"function": 50, "class": 200, "file": 350}
LIST_A = {
    "told", "tell", "found", "there", "own", "said", "whole", "both", "another", "again", "anew", "desk", "laid",
    "taken", "ledger", "hear", "news",
}  # fmt: skip


@cache
def sources(*folders: str) -> dict[str, str]:
    """The Python files below folders of the repository, by their paths there."""
    files = sorted(file for folder in folders for file in (REPOSITORY / folder).rglob("*.py"))
    return {file.relative_to(REPOSITORY).as_posix(): file.read_text(encoding="utf-8") for file in files}


@cache
def nodes_of(path: str) -> list[ast.AST]:
    """All nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))))


def everything() -> dict[str, str]:
    """Sources of all that is not a test, by path."""
    return sources(PACKAGE, "recipes", "benchmarks")


def running_imports(nodes: list[ast.AST]) -> list[ast.Import | ast.ImportFrom]:
    """The imports among nodes, but for what stands under `if TYPE_CHECKING:`."""
    hidden = {
        id(below)
        for node in nodes
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in node.body
        for below in ast.walk(child)
    }
    return [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in hidden]


def module_of(path: str) -> str:
    """hf_pretext/data/rows.py -> hf_pretext.data.rows"""
    return ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports() -> dict[str, set[str]]:
    """The package's modules that each of its modules imports, at its top or in a function."""
    paths = {module_of(path): path for path in sources(PACKAGE)}
    graph = {}
    for module, path in paths.items():
        folder = module if path.endswith("__init__.py") else module.rpartition(".")[0]
        targets = set()
        for node in running_imports(nodes_of(path)):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(folder.split(".")[: len(folder.split(".")) - node.level + 1]) if node.level else ""
                base = ".".join(part for part in (base, node.module) if part)
                names = [f"{base}.{alias.name}" for alias in node.names]
                targets.update(name if name in paths else base for name in names)
        graph[module] = (targets & paths.keys()) - {module}
    return graph


def layer_of(module: str) -> int | None:
    """The number of a module's layer; None where it is in none, as the package itself."""
    _, name, *_ = [*module.split("."), ""]
    return next((i for i, names in enumerate(LAYERS) if name in names), None)


def upward_imports() -> Iterator[tuple[str, str]]:
    paths = {module_of(path): path for path in sources(PACKAGE)}
    for module, targets in imports().items():
        for target in targets:
            if None not in (layer_of(module), layer_of(target)) and layer_of(module) < layer_of(target):
                yield paths[module], f"imports {target}, which is of a later layer"


def cyclic_imports() -> Iterator[tuple[str, str]]:
    paths = {module_of(path): path for path in sources(PACKAGE)}

    def reached(module: str) -> set[str]:
        seen, left = set(), [*imports()[module]]
        while left:
            if (one := left.pop()) not in seen:
                seen.add(one)
                left += imports()[one]
        return seen

    for module in imports():
        if module in reached(module):
            yield paths[module], "imports itself, by way of others"


def long_parts(kind: str, types: tuple[type, ...]) -> Iterator[tuple[str, str]]:
    for path in everything():
        for node in nodes_of(path):
            if isinstance(node, types) and (lines := node.end_lineno - node.lineno + 1) > MOST_LINES[kind]:
                yield path, f"{node.name} has {lines} lines"


def long_files() -> Iterator[tuple[str, str]]:
    for path, source in everything().items():
        if (lines := len(source.splitlines())) > MOST_LINES["file"]:
            yield path, f"it has {lines} lines"


def questions_to_models() -> Iterator[tuple[str, str]]:
    for path, source in everything().items():
        for number, line in enumerate(source.splitlines(), 1):
            if "hasattr(model" in line:
                yield path, f"line {number}: {line.strip()}"


def pair_strings() -> Iterator[tuple[str, str]]:
    for path in everything():
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and node.value == "image_text":
                yield path, f"line {node.lineno}: 'image_text'"


def names_in(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and name of all that is given a name: what is assigned, arguments, functions, classes, attributes."""
    for node in nodes:
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
            yield node.lineno, node.name or ""
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def words_of(name: str) -> set[str]:
    """The parts of a snake_case or CamelCase name, in small letters."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def list_a_names() -> Iterator[tuple[str, str]]:
    for path in everything():
        for line, name in names_in(nodes_of(path)):
            if words_of(name) & LIST_A:
                yield path, f"line {line}: {name}"


RULES = {
    "layers": upward_imports,
    "cycles": cyclic_imports,
    "functions": lambda: long_parts("function", (ast.FunctionDef, ast.AsyncFunctionDef)),
    "classes": lambda: long_parts("class", (ast.ClassDef,)),
    "files": long_files,
    "hasattr": questions_to_models,
    "image_text": pair_strings,
    "list A": list_a_names,
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    broken = [f"{path}: {message}" for path, message in RULES[rule]()]
    assert not broken, "\n".join(broken)


def test_the_root_holds_few_files():
    files = sorted(path.name for path in (REPOSITORY / PACKAGE).glob("*.py"))
    assert len(files) <= MOST_ROOT_FILES, files


def test_each_part_of_the_package_has_a_layer():
    assert [module for module in imports() if "." in module and layer_of(module) is None] == []


def test_no_two_test_files_have_the_same_name():
    """Without packages of tests, pytest can't collect the second one."""
    names = Counter(path.name for path in (REPOSITORY / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


OBJECTIVES = [path.stem for path in sorted((REPOSITORY / PACKAGE / "objectives").glob("[!_]*.py"))]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_has_a_test_a_recipe_and_a_card(objective):
    """Or, in place of a card, recipes that say that nothing was measured yet."""
    assert (REPOSITORY / "tests" / "objectives" / f"test_{objective}.py").exists()
    recipes = [
        Path(path).stem
        for path in sources("recipes")
        for node in nodes_of(path)
        if isinstance(node, ast.keyword) and node.arg == "objective" and ast.unparse(node.value) == repr(objective)
    ]
    assert recipes, f"no recipe says objective={objective!r}"
    for name in recipes:
        text = (REPOSITORY / "recipes" / f"{name}.py").read_text(encoding="utf-8")
        card = REPOSITORY / "model_cards" / name / "README.md"
        assert card.exists() != ("\nMeasured: nothing yet." in text), (
            f"no card of {name} in model_cards/, or a second claim"
        )


def test_the_rules_see_what_they_forbid():
    """Each on a line that breaks it."""
    tree = ast.parse(
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef find_own(whole, *, x=1):\n    self.news = 1\n"
        "class Ledger: pass\ntry: pass\nexcept E as told: pass\nlookup = shown = 1\nfrom c import d as both\n"
    )
    nodes = list(ast.walk(tree))
    assert {node.names[0].name for node in running_imports(nodes)} == {"b", "d"}
    broken = {name for _, name in names_in(nodes) if words_of(name) & LIST_A}
    assert broken == {"find_own", "whole", "news", "Ledger", "told", "both"}
    assert layer_of("hf_pretext.data.rows") < layer_of("hf_pretext.trainer") and layer_of("hf_pretext") is None
