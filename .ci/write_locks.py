"""Write requirements.lock and requirements-dev.lock from what is installed in the running virtual environment.

With the argument `chart`, write .ci/chart-tools/requirements.lock instead: the tools that the chart is checked with
have an environment of their own (build/chart-tools/venv), which is then the running one.

Guarantees: requirements.lock holds exactly what the program needs at run time, with all that those need;
    requirements-dev.lock holds what the `dev` group of pyproject.toml adds. One exact version a line, sorted, and no
    registry.
Leaves to the caller: putting the wanted versions into the environment first.
"""

import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def closure(requirements: list[str]) -> dict[str, str]:
    """Return name and installed version of the requirements and of everything that they require."""
    pins: dict[str, str] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        installed = distribution(name)
        if not requirement.specifier.contains(installed.version, prereleases=True):
            raise SystemExit(f"{name} {installed.version} is installed, and {requirement} is wanted")
        if name not in pins:
            pins[name] = installed.version
            waiting.extend(Requirement(text) for text in installed.requires or ())
    return pins


def write(file_name: str, purpose: str, pins: dict[str, str]) -> None:
    """Write one lock file."""
    lines = [f"# {purpose}. Written by `make lock` from pyproject.toml; do not edit."]
    lines += [f"{name}=={version}" for name, version in sorted(pins.items())]
    (ROOT / file_name).write_text("\n".join(lines) + "\n")


def main() -> None:
    """Write the files of the running environment."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if sys.argv[1:] == ["chart"]:
        write(
            ".ci/chart-tools/requirements.lock", "Tools for the chart", closure(declared["dependency-groups"]["chart"])
        )
        return
    runtime = closure(declared["project"]["dependencies"])
    development = closure(declared["dependency-groups"]["dev"])
    added = {name: version for name, version in development.items() if name not in runtime}
    write("requirements.lock", "Run time", runtime)
    write("requirements-dev.lock", "Development, on top of requirements.lock", added)


if __name__ == "__main__":
    main()
