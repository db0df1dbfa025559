"""How a command family writes its rows down: group and ACL categories follow from the family and the flags.

Guarantees: ``categories`` holds what COMMAND INFO and ACL CAT show, without the ``@``: the family's own category and
those that the flags imply (read, write, fast, slow).
Reference: Redis ACL categories.
"""

from __future__ import annotations

from typing import Final

from kvservice.commands.table import Command, GroupHandler, GrowthCheck, Handler, KeySpec, flags

IMPLIED_CATEGORIES: Final = {
    "write": ("write",),
    "readonly": ("read",),
    "fast": ("fast",),
    "blocking": ("blocking",),
    "pubsub": ("pubsub",),
    "admin": ("admin", "dangerous"),
}

OF_KEYS: Final = "O(N) where N is the number of keys named"
OF_VALUE: Final = "O(N) where N is the size of the value"
"""Costs that several rows have."""


class Family:
    """A group of commands that share their documentation group and ACL category."""

    def __init__(self, group: str, category: str) -> None:
        self.group = group
        self.category = category

    def row(
        self,
        name: str,
        run: Handler,
        arity: int,
        words: str,
        keys: KeySpec,
        since: str,
        summary: str,
        complexity: str = "O(1)",
        run_group: GroupHandler | None = None,
        quick: bool | None = None,
        check_growth: GrowthCheck | None = None,
    ) -> Command:
        """Return the row of one command of this family; ``words`` are its flags."""
        its_flags = flags(words)
        categories = {self.category}
        for flag, implied in IMPLIED_CATEGORIES.items():
            if flag in its_flags:
                categories.update(implied)
        if "fast" not in its_flags:
            categories.add("slow")
        return Command(
            name,
            run,
            arity,
            its_flags,
            keys,
            self.group,
            since,
            summary,
            complexity,
            frozenset(categories),
            run_group=run_group,
            quick=quick,
            check_growth=check_growth,
        )
