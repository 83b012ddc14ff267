"""The errors a caller would catch: ValueErrors whose text is one line with field, value and what is allowed."""


class InvalidInput(ValueError):
    """Something the user gave cannot be used; the command line prints it as one line and exits with status 2."""


class InvalidArchitecture(InvalidInput):
    """A description of a network breaks a rule: an unknown operator, a value out of range, a missing field."""


class ImpossibleBudget(InvalidInput):
    """No network of the family meets the budget, or the budget contradicts itself."""


class InvalidData(InvalidInput):
    """Images, labels or a run folder cannot be used as they are."""


class Failed(RuntimeError):
    """Work that was asked for rightly stopped half-way: a full disk, a lost process; what was saved stands."""


class Stopped(BaseException):
    """A training was told to stop and has saved where it is; status: what a command exits with (143 or 130).

    As KeyboardInterrupt, it is no Exception: what catches those must not swallow it.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status
