"""The errors a caller would catch: ValueErrors whose text is one line with field, value and what is allowed."""


class InvalidInput(ValueError):
    """Something the user gave cannot be used; the command line prints it as one line and exits with status 2."""


class InvalidArchitecture(InvalidInput):
    """A description of a network breaks a rule: an unknown operator, a value out of range, a missing field."""


class ImpossibleBudget(InvalidInput):
    """No network of the family meets the budget, or the budget contradicts itself."""


class InvalidData(InvalidInput):
    """Images, labels or a run folder cannot be used as they are."""
