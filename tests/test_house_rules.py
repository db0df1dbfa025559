"""The rules of the house that no reader can check by eye: imports, purity, sizes, names, lock files."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kvservice", "replication", "persistence")
CLIENTS = "clients"
FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70

# Imports go one way: a package may import itself and what stands to its right.
MAY_IMPORT = {
    "kvservice": {"kvservice", "replication", "persistence"},
    "replication": {"replication", "persistence"},
    "persistence": {"persistence"},
}
IMPURE = {"asyncio", "time", "random", "os", "socket", "grpc", "threading", "secrets", "uvloop", "datetime"}
# The commands about the server itself (INFO, CLIENT, DEBUG …) are answered by the node and not by the replicated state:
# they say so by importing the door to the node. All other commands must be pure.
SERVER_PLANE = "kvservice.commands.ports"
PURE_FOLDERS = ("replication/core", "kvservice/commands", "kvservice/keyspace")
FORBIDDEN_WORDS = {
    "manager",
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "misc",
    "data",
    "obj",
}  # info is Redis's word
SHARED_NAMES = {
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
}
FORBIDDEN_STARTS = ("process_", "do_")


def source_files(*folders: str) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if not re.search(r"_pb2(_grpc)?\.py$", path.name)
        and not {"__pycache__", "build", "node_modules"} & set(path.parts[len(ROOT.parts) :])
    )


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def at_run_time(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk a module without what stands under `if TYPE_CHECKING:`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def imported_modules(nodes: Iterator[ast.AST]) -> set[str]:
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            modules.add(node.module or "")
    return modules


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    wrong = [
        f"{named(path)} imports {module}"
        for path in source_files(package)
        for module in imported_modules(ast.walk(tree_of(path)))
        if (top := module.partition(".")[0]) in (*PACKAGES, "tests", "bench") and top not in MAY_IMPORT[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", PURE_FOLDERS)
def test_pure_modules_reach_neither_clock_nor_chance_nor_the_world(folder: str) -> None:
    wrong = [
        f"{named(path)} imports {module}"
        for path in source_files(folder)
        if SERVER_PLANE not in imported_modules(ast.walk(tree_of(path)))
        for module in imported_modules(at_run_time(tree_of(path)))
        if module.partition(".")[0] in IMPURE
    ]
    assert wrong == []


def test_the_keyspace_does_not_reach_the_node() -> None:
    wrong = [
        named(path)
        for path in source_files("kvservice/keyspace", "replication/core")
        if SERVER_PLANE in imported_modules(ast.walk(tree_of(path)))
    ]
    assert wrong == []


def test_persistence_knows_no_event_loop() -> None:
    wrong = [path for path in source_files("persistence") if "asyncio" in imported_modules(ast.walk(tree_of(path)))]
    assert wrong == []


def test_gateway_and_api_never_import_each_other() -> None:
    wrong = [
        f"{named(path)} imports {module}"
        for folder, other in (("kvservice/gateway", "kvservice.api"), ("kvservice/api", "kvservice.gateway"))
        for path in source_files(folder)
        for module in imported_modules(ast.walk(tree_of(path)))
        if module.startswith(other)
    ]
    assert wrong == []


def test_files_are_short_enough_to_have_one_reason_to_change() -> None:
    long = {
        named(path): lines
        for path in source_files(*PACKAGES, "tests", "bench", CLIENTS)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert long == {}


def test_functions_are_short_enough_to_be_seen_at_once() -> None:
    long = [
        f"{named(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in source_files(*PACKAGES, "tests", "bench", CLIENTS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_names_of_modules_classes_and_functions_say_something() -> None:
    def says_nothing(name: str) -> bool:
        bare = name.strip("_")
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).lower().split("_")
        return "manager" in words or bare.startswith(FORBIDDEN_STARTS) or bare.lower() in FORBIDDEN_WORDS

    wrong = [f"{named(path)}" for path in source_files(*PACKAGES, "tests", "bench", CLIENTS) if says_nothing(path.stem)]
    wrong += [
        f"{named(path)}:{node.lineno} {node.name}"
        for path in source_files(*PACKAGES, "tests", "bench", CLIENTS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and says_nothing(node.name)
    ]
    assert wrong == []


def test_every_module_opens_with_its_contract() -> None:
    silent = [
        named(path)
        for path in source_files(*PACKAGES, CLIENTS)
        if path.name != "__init__.py" and len(ast.get_docstring(tree_of(path)) or "") < 40
    ]
    assert silent == []


def test_no_module_leaves_work_marked_for_later() -> None:
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX)\b")
    marked = [
        f"{named(path)}:{number}"
        for path in source_files(*PACKAGES, "tests", "bench", CLIENTS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if marks.search(line) and path != Path(__file__)
    ]
    assert marked == []


def test_names_of_tests_are_sentences() -> None:
    short = [
        f"{named(path)}:{node.lineno} {node.name}"
        for path in source_files("tests", CLIENTS)
        for node in tree_of(path).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and node.name.count("_") < 3
    ]
    assert short == []


def test_the_lock_files_pin_what_is_declared_and_name_no_registry() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[^A-Za-z0-9_.-]", text)[0].lower().replace("_", "-") for text in declared}
    pins: dict[str, str] = {}
    for file_name in ("requirements.lock", "requirements-dev.lock"):
        for line in (ROOT / file_name).read_text().splitlines():
            if not line.startswith("#"):
                name, equals, pinned = line.partition("==")
                assert equals, f"{file_name}: '{line}' pins nothing"
                assert name not in pins, f"{name} is pinned twice"
                pins[name] = pinned
            assert "://" not in line
    assert names <= pins.keys()
    assert {name: version(name) for name in names} == {name: pins[name] for name in names}


def test_the_rules_see_what_they_forbid() -> None:
    text = "import time\nfrom os import path\nif TYPE_CHECKING:\n    import random\ndef later():\n    import socket.x\n"
    assert imported_modules(at_run_time(ast.parse(text))) == {"time", "os", "socket.x"}
    assert all(source_files(package) for package in PACKAGES)


def test_every_declared_dependency_is_imported_and_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = {re.split(r"[^A-Za-z0-9_.-]", text)[0].lower() for text in project["project"]["dependencies"]}
    modules = {module for path in source_files(*PACKAGES) for module in imported_modules(ast.walk(tree_of(path)))}
    tops = {module.partition(".")[0] for module in modules} - {*PACKAGES, "redan", "redan_client", "google", "grpc"}
    distributions = packages_distributions()
    imported = {distributions[top][0].lower().replace("_", "-") for top in tops if top not in sys.stdlib_module_names}
    # Two names that many distributions share: which of them is meant shows in the next part of the name.
    for prefix, name in SHARED_NAMES.items():
        if any(module == prefix or module.startswith(prefix + ".") for module in modules):
            imported.add(name)
    assert declared == imported
