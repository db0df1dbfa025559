"""The documents are true where a machine can tell: generated pages are fresh, and what they name exists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.generate_commands import PAGE, page
from kvservice.commands.registry import TABLE
from kvservice.commands.table import Command, CommandTable
from kvservice.config import SETTINGS
from kvservice.logs import Event

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "helm/redan/*.md", "clients/*/README.md")
    for path in ROOT.glob(pattern)
    if not path.name.startswith(".")
)
OPERATIONS = ROOT / "docs" / "operations.md"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
PYTHON_FILE = re.compile(r"[a-z_/]+\.py")


def prose_of(path: Path) -> str:
    """Return a document without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors_of(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> Iterator[str]:
    """Yield the links of a document that lead nowhere."""
    for link in LINK.findall(prose_of(path)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            yield link


def source_of(*folders: str) -> str:
    """Return all Python source of some folders."""
    return "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))


def section_of(path: Path, heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    return re.split(r"^#+ ", path.read_text().partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(table: str) -> set[str]:
    """Return the code spans in the first column of a table."""
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return {span for cell in rows for span in SPAN.findall(cell)}


def test_the_command_reference_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(TABLE), "run: python docs/generate_commands.py"


def test_the_command_reference_follows_the_table() -> None:
    row = Command("frob", lambda _ctx, _args: None, -3, frozenset({"write"}), group="frobs", summary="Frobs.")
    text = page(CommandTable([row]))
    assert "## Frobs\n" in text
    assert "| `FROB` | Frobs. | 2 or more |  | write | O(1) | 1.0.0 |" in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_heading_that_is_there(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# One `two`\n[a](#one-two) [b](#three) [c](b.md) [d](a.md#one-two)\n```\n[e](e.md)\n```\n")
    assert list(broken_links(document)) == ["#three", "b.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_files_that_are_named_exist(path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    files = ["/" + name for name in listed.stdout.split()]
    named = {span for span in SPAN.findall(prose_of(path)) if PYTHON_FILE.fullmatch(span)}
    assert {span for span in named if not any(file.endswith("/" + span) for file in files)} == set()


def test_the_operators_guide_has_every_metric_and_no_other() -> None:
    sources = [(ROOT / "kvservice" / name).read_text(encoding="utf-8") for name in ("metrics.py", "api/metrics.py")]
    made = set(re.findall(r'"(redan_[a-z_]+)"', "\n".join(sources)))
    told = {name.removesuffix("_total") for name in first_cells(section_of(OPERATIONS, "Metrics"))}
    assert told == made


def test_metrics_that_the_operators_guide_names_elsewhere_exist() -> None:
    table = first_cells(section_of(OPERATIONS, "Metrics"))
    assert set(re.findall(r"redan_[a-z_]+", OPERATIONS.read_text())) <= table


def test_the_operators_guide_has_every_event_that_is_logged_and_no_other() -> None:
    logged = {str(Event[name]) for name in re.findall(r"\bEvent\.([A-Z_]+)", source_of("kvservice"))}
    assert first_cells(section_of(OPERATIONS, "Logs")) == logged


def test_settings_that_the_operators_guide_explains_exist() -> None:
    named = first_cells(section_of(OPERATIONS, "Configure")) | first_cells(section_of(OPERATIONS, "Run"))
    assert len(named) > 6
    assert named <= set(SETTINGS)
