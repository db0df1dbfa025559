"""Fill the figures of docs from bench/results, so that no number there comes from memory.

Usage: python -m bench.render [--check]. Between ``<!-- figures: NAME -->`` and ``<!-- /figures -->`` stands what NAME
means: a result file, or ``compare`` with one of its parts (``compare targets`` is every figure that has a target).

Guarantees: rendering the same results again changes nothing; --check writes nothing and ends with 1 if a page is stale.
Leaves to the caller: the words around the tables.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from bench.compare import SECTIONS, TITLES
from bench.comparison import figure_table
from bench.experiment import Cell, table_text
from bench.report import RESULTS, ROOT

PAGES: Final = ("docs/performance.md", "docs/decisions.md")
NOT_YET: Final = "*Not measured yet.*"
_BLOCK: Final = re.compile(r"<!-- figures: (?P<name>[a-z_ -]+) -->\n.*?<!-- /figures -->", re.DOTALL)


def render_page(text: str, results: Path = RESULTS) -> str:
    """Return a page with all its figures filled in."""
    return _BLOCK.sub(
        lambda block: f"<!-- figures: {block['name']} -->\n{figures_of(block['name'], results)}\n<!-- /figures -->",
        text,
    )


def figures_of(name: str, results: Path) -> str:
    """Return the Markdown that a name means."""
    source, _, part = name.partition(" ")
    try:
        content: dict[str, Any] = json.loads((results / f"{source}.json").read_text())
    except FileNotFoundError:
        return NOT_YET
    if source == "compare":
        return compared(content["runs"], part)
    texts = "\n\n".join(map(table_text, tables_of(content)))
    return f"{texts}\n\n{origin(content['environment'])}"


def compared(runs: dict[str, Any], part: str) -> str:
    """Return one part of the comparison with redis-server, or all figures that have a target."""
    blocks: list[str] = []
    for section in SECTIONS:
        if section not in runs:
            continue
        figures = runs[section]["figures"]
        if part == "targets":
            chosen = [figure for figure in figures if figure["met"] is not None]
        else:
            chosen = [figure for figure in figures if figure["section"] == part]
        if chosen:
            settings = runs[section]["settings"]
            title = "" if part == "targets" else f"{TITLES[part]}:\n\n"
            said = f"Medians of {settings['rounds']} rounds. {origin(runs[section]['environment'])}"
            blocks.append(f"{title}{figure_table(chosen)}\n\n{said}")
    return "\n\n".join(blocks) or NOT_YET


def tables_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a result; one that has none is {settings, row: {column: figure or {…}}}."""
    if "tables" in content:
        tables: list[dict[str, Any]] = content["tables"]
        return tables
    own = {key: entry for key, entry in content.items() if key not in ("name", "environment")}
    settings = [f"{entry:,} {_words(key)}" for key, entry in own.items() if not isinstance(entry, dict)]
    flat = {key: flattened(entry) for key, entry in own.items() if isinstance(entry, dict)}
    columns = list(dict.fromkeys(column for figures in flat.values() for column in figures))
    rows: list[list[Cell]] = [[key, *map(figures.get, columns)] for key, figures in flat.items()]
    return [{"title": ", ".join(settings), "head": ["", *columns], "rows": rows}]


def flattened(figures: dict[str, Any], before: str = "") -> dict[str, Cell]:
    """Return nested figures as one level, with names that people read."""
    flat: dict[str, Cell] = {}
    for key, entry in figures.items():
        words = f"{before}, {_words(key)}" if before else _words(key)
        flat |= flattened(entry, words) if isinstance(entry, dict) else {words: entry}
    return flat


def origin(machine: dict[str, Any]) -> str:
    """Return when and where figures were measured, and whether the machine had other work."""
    versions = machine["versions"]
    words = (
        f"Measured {machine['date']} at {machine['commit']} on {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['system']}, {machine['file_system']}; Python {versions['python']}, redis-server "
        f"{versions['redis-server']}."
    )
    if machine["load_at_start"] > machine["cores"] / 2:
        words += f" The machine had other work (load {machine['load_at_start']:g}): only ratios mean something."
    return f"*{words}*"


def _words(key: str) -> str:
    return key.replace("_", " ")


def main(arguments: list[str]) -> int:
    """Render or check all pages; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.render")
    parser.add_argument("--check", action="store_true", help="only tell whether the pages show the results")
    check = parser.parse_args(arguments).check
    stale: list[str] = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = render_page(before)
        if after != before:
            stale.append(page)
            if not check:
                path.write_text(after, encoding="utf-8")
    for page in stale:
        print(f"{page} {'is stale: make bench-docs' if check else 'filled'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
