"""What is said about a flow: the lines of a report, and the report that prints as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["NOTE", "OK", "SKIPPED", "WRONG", "Finding", "NotTried", "Outcome", "Report"]

OK, NOTE, WRONG, SKIPPED = "ok", "note", "wrong", "not tried"


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        line: the question.
        verdict: ``"ok"``, ``"wrong"``, ``"note"`` (true of some flows that are right), or
            ``"not tried"``.
        measured: what was seen, or why it was not tried.
        cause: what it usually comes from.
        cure: what to do.
        mistakes: rows of the page *Common mistakes*.
    """

    line: str
    verdict: str
    measured: str
    cause: str = ""
    cure: str = ""
    mistakes: tuple[int, ...] = ()


class Report:
    """What :func:`check_flow` found; it prints as a table.

    Attributes:
        name: the class of the flow.
        findings: one :class:`Finding` a line, in the order in which they were tried.
    """

    def __init__(self, name: str, findings: Iterable[Finding]) -> None:
        self.name = name
        self.findings = list(findings)

    def __getitem__(self, line: str) -> Finding:
        for finding in self.findings:
            if finding.line == line:
                return finding
        lines = ", ".join(finding.line for finding in self.findings)
        raise KeyError(f"expected one of the lines {lines}; got {line!r}")

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; notes are allowed."""
        return not self.wrong

    @property
    def wrong(self) -> list[Finding]:
        """The findings whose verdict is ``"wrong"``."""
        return [finding for finding in self.findings if finding.verdict == WRONG]

    @property
    def notes(self) -> list[Finding]:
        """The findings whose verdict is ``"note"``."""
        return [finding for finding in self.findings if finding.verdict == NOTE]

    def __str__(self) -> str:
        wide = max(len(finding.line) for finding in self.findings)
        counts = ", ".join(
            f"{n} {verdict}"
            for verdict in (WRONG, NOTE, OK, SKIPPED)
            if (n := sum(finding.verdict == verdict for finding in self.findings))
        )
        rows = [f"{self.name}: {counts}"]
        for finding in self.findings:
            head = f"{finding.verdict:<9}  {finding.line:<{wide}}  "
            rows += _filled(head, finding.measured)
            for name, text in (("cause", finding.cause), ("cure", finding.cure)):
                if text:
                    rows += _filled(" " * (11 + 2) + f"{name:<5}  ", text)
            if finding.mistakes:
                which = ", ".join(map(str, finding.mistakes))
                rows += _filled(" " * 13, f"Common mistakes: row {which}")
        return "\n".join(rows)

    __repr__ = __str__


def _filled(head: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, 88 - len(head)) or [""]
    return [head + lines[0], *(" " * len(head) + line for line in lines[1:])]


class Outcome(NamedTuple):
    verdict: str
    measured: str
    cause: str = ""
    cure: str = ""
    mistakes: tuple[int, ...] = ()


class NotTried(Exception):
    """A line that cannot be tried on this flow; the message says why."""
