"""The law over imports: data flows one way, and the folders show it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kernels", "engine", "connectors", "simulations")
# part -> the parts that it may import
MAY_IMPORT = {
    "kernels": set(),
    "engine": {"kernels"},
    "connectors": {"engine"},
    "simulations": {"engine", "kernels", "connectors"},
    "cli": {"engine", "connectors", "simulations"},
}
# modules of the engine that others may import, beside what packages export
PUBLIC = {
    "engine.clock",
    "engine.config",
    "engine.devices",
    "engine.monitoring.drift",
    "engine.recommender",
    "engine.engine",
    "engine.errors",
    "engine.events",
    "engine.failpoints",
    "engine.results",
    "engine.verify",
    "engine.versions",
    "engine.warmup",
    "kernels.arrays",
    "kernels.jit",
}


class Import(NamedTuple):
    part: str
    file: str
    line: int
    module: str
    name: str | None


def _folder(part: str) -> Path:
    return ROOT / "src" / "recurra" / "cli" if part == "cli" else ROOT / part


def _module_of(part: str, file: Path) -> list[str]:
    inside = file.relative_to(_folder(part)).with_suffix("").parts
    return [part, *(name for name in inside if name != "__init__")]


def _imports(part: str) -> Iterator[Import]:
    for file in sorted(_folder(part).rglob("*.py")):
        module = _module_of(part, file)
        package = module if file.name == "__init__.py" else module[:-1]
        place = str(file.relative_to(ROOT))
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield Import(part, place, node.lineno, name.name.removeprefix("recurra."), None)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                target = ".".join([*base, *([node.module] if node.module else [])]).removeprefix("recurra.")
                for name in node.names:
                    yield Import(part, place, node.lineno, target, name.name)


def _is_package(module: str) -> bool:
    part, *inside = module.split(".")
    return part in (*PARTS, "cli") and (_folder(part).joinpath(*inside) / "__init__.py").is_file()


def _path(module: str) -> Path:
    part, *inside = module.split(".")
    return _folder(part).joinpath(*inside)


def _exports(package: str, name: str) -> bool:
    file = _path(package) / "__init__.py"
    tree = ast.parse(file.read_text())
    lists = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return any(name in ast.literal_eval(value) for value in lists)


ALL = [found for part in (*PARTS, "cli") for found in _imports(part)]
# importing a package's module by `from package import module` names the module, unless the package exports that name
OURS = [
    found._replace(module=f"{found.module}.{found.name}", name=None)
    if found.name is not None
    and _is_package(found.module)
    and _path(f"{found.module}.{found.name}").with_suffix(".py").is_file()
    and not _exports(found.module, found.name)
    else found
    for found in ALL
    if found.module.split(".")[0] in (*PARTS, "cli")
]


def test_there_is_something_to_judge() -> None:
    assert {found.part for found in OURS} == {*PARTS, "cli"}
    assert len(OURS) > 100


@pytest.mark.parametrize("part", [*PARTS, "cli"])
def test_data_flows_one_way(part: str) -> None:
    allowed = MAY_IMPORT[part] | {part}
    wrong = [found for found in OURS if found.part == part and found.module.split(".")[0] not in allowed]
    assert not wrong


@pytest.mark.parametrize("part", ["connectors", "simulations", "cli"])
def test_others_use_what_the_engine_makes_public(part: str) -> None:
    wrong = [
        found
        for found in OURS
        if found.part == part
        # what measures a kernel has to name it
        and (found.module.startswith("engine") or not found.file.startswith("simulations/bench/"))
        and found.module.split(".")[0] in ("engine", "kernels")
        and not _is_package(found.module)
        and found.module not in PUBLIC
    ]
    assert not wrong


def test_private_names_stay_in_their_file() -> None:
    wrong = [found for found in OURS if found.name is not None and found.name.startswith("_")]
    assert not wrong


def _all_of(file: Path) -> list[str] | None:
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(at, ast.Name) and at.id == "__all__" for at in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def _sort_key(name: str) -> tuple[int, str]:
    # constants, then classes, then functions: as the linter sorts them
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def test_every_module_says_what_is_public() -> None:
    wrong = []
    for part in (*PARTS, "cli"):
        for file in sorted(_folder(part).rglob("*.py")):
            names = _all_of(file)
            if names is None:
                # a package may have a docstring only, a program is run and not imported
                if file.name not in ("__init__.py", "__main__.py"):
                    wrong.append(str(file.relative_to(ROOT)))
            elif names != sorted(names, key=_sort_key):
                wrong.append(f"{file.relative_to(ROOT)}: not sorted")
    assert not wrong


def test_nothing_of_ours_is_importable_under_its_folder_name() -> None:
    outside = [found for found in ALL if found.module.split(".")[0] == "src"]
    assert not outside


def _edges(part: str) -> set[tuple[str, str]]:
    """Return the imports between the modules of a part, those for types only included."""
    edges = {
        (".".join(_module_of(part, ROOT / found.file)), found.module)
        for found in OURS
        if found.part == part and found.module.split(".")[0] == part
    }
    return {(source, target) for source, target in edges if source != target}


def _circles(edges: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Return the groups of nodes that reach each other."""
    graph: dict[str, set[str]] = {}
    for source, target in edges:
        graph.setdefault(source, set()).add(target)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        pending = [start]
        while pending:
            for node in graph.get(pending.pop(), ()):
                if node not in seen:
                    seen.add(node)
                    pending.append(node)
        return seen

    reach = {node: reached(node) for node in graph}
    return sorted({tuple(sorted(n for n in reach[node] if node in reach.get(n, ()))) for node in graph} - {()})


@pytest.mark.parametrize("part", [*PARTS, "cli"])
def test_files_inside_a_part_import_in_no_circle(part: str) -> None:
    assert not _circles(_edges(part))


@pytest.mark.parametrize("part", [*PARTS, "cli"])
def test_no_import_inside_a_part_runs_back_up(part: str) -> None:
    # every folder is one room: what a room needs lies below it, and needs nothing of it
    folders = {source.rpartition(".")[0] for source, _ in _edges(part)} | {part}
    parents = {".".join(folder.split(".")[:depth]) for folder in folders for depth in range(1, folder.count(".") + 2)}
    wrong = {}
    for folder in sorted(parents):
        depth = folder.count(".") + 2
        rooms = {
            (".".join(source.split(".")[:depth]), ".".join(target.split(".")[:depth]))
            for source, target in _edges(part)
            if source.startswith(f"{folder}.") and target.startswith(f"{folder}.")
        }
        circles = _circles({(source, target) for source, target in rooms if source != target})
        if circles:
            wrong[folder] = circles
    assert not wrong


def test_the_law_finds_a_circle() -> None:
    assert _circles({("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")}) == [("a", "b", "c")]
    assert _circles({("a", "b"), ("b", "c"), ("d", "a")}) == []


def test_rooms_stay_small() -> None:
    # the root of the engine is a hall of doors: few enough to read at a glance
    assert len(list((ROOT / "engine").glob("*.py"))) <= 19
    files = [file for part in (*PARTS, "cli") for file in _folder(part).rglob("*.py")]
    assert not [str(file) for file in files if len(file.read_text().splitlines()) > 400]


def test_nine_functions_in_ten_fit_a_glance() -> None:
    lengths = []
    for part in (*PARTS, "cli"):
        for file in _folder(part).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    lengths.append((body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0)
    assert sorted(lengths)[int(0.9 * len(lengths))] <= 20
