"""What the doctor says, as values: findings, and what was looked at."""

from __future__ import annotations

from dataclasses import dataclass

from trifold.errors import InvalidInput

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found.

    severity: "error" (results would be wrong, or training would stop), "warning" (results would be worse) or "note".
    what: a short code, such as "leakage". text, advice: one line each; the text has the numbers.
    """

    severity: str
    what: str
    text: str
    advice: str

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise InvalidInput(f"severity must be {', '.join(SEVERITIES)}, got {self.severity!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at.

    what: a short code, such as "mode_gap". number: one line with what was measured, or why nothing was.
    findings: what is wrong; looked: whether anything could be measured.
    """

    what: str
    number: str
    findings: tuple[Finding, ...] = ()
    looked: bool = True

    @property
    def state(self) -> str:
        """The gravest severity found, "fine", or "not checked"."""
        found = {finding.severity for finding in self.findings}
        return next((name for name in SEVERITIES if name in found), "fine" if self.looked else "not checked")


def in_order_of_severity(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The same findings, errors first, then warnings, then notes."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
