"""The exceptions a person can meet. Each says what is wrong, where, and what to do.

A mistake of the user's (recipe, data, model folder) is a `UserError`: it lists *everything* wrong
at once and ends the command with exit code 2. A fault of the machine's (disk full, no network) is
an `EnvironmentFault`: exit code 1. Neither prints a traceback unless `--traceback` is given.
`assert` and built-in exceptions remain for the programmer's own errors.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = [
    "BaseModelError",
    "CheckpointError",
    "CorpusError",
    "EnvironmentFault",
    "FaultElsewhere",
    "LostRankFault",
    "PlanError",
    "Problem",
    "Problems",
    "RecipeError",
    "RewarmError",
    "RunFolderError",
    "UserError",
    "holds_access_token",
    "is_out_of_memory",
    "masked",
    "remedy_of",
]

_ACCESS_TOKEN = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16})\b")
_PASSWORD = re.compile(r"(?<=://)[^\s/'\"@]*:[^\s/'\"]*@")
_QUERY = re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]*")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|KEY|CREDENTIAL|SAS|CONNECTION_STRING", re.IGNORECASE)
_LEAST_SECRET = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `where` names the field or file (`phases[1].weights.qa`, `web.idx`), `what` the offending value
    and why it cannot be used, `fix` what the person should do.
    """

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    → {self.fix}"

    @property
    def brief(self) -> str:
        """The problem and its remedy on one line."""
        return f"{self.where}: {self.what} ({self.fix})"


_NO_MEMORY = ("can't allocate memory", "out of memory")


class RewarmError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class EnvironmentFault(RewarmError):  # noqa: N818 - not an error of the program's or the person's
    """The machine cannot do it now (disk, network, permission)."""

    exit_code = 1

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}\n    → {fix}")
        self.what = what
        self.fix = fix


class FaultElsewhere(EnvironmentFault):
    """Another rank of this launch failed, and tells why; this one ends with it, in silence."""

    def __init__(self, rank: int, what: str, exit_code: int) -> None:
        super().__init__(f"rank {rank} failed: {what}", "see what that rank says")
        self.exit_code = exit_code


class LostRankFault(EnvironmentFault):
    """Another rank is dead, stopped or cut off, and this one has waited long enough."""


class UserError(RewarmError):
    """A mistake in what the person gave; carries every problem that was found, in order."""

    exit_code = 2

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        if not self.problems:
            raise ValueError("a UserError needs at least one problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def one(cls, where: str, what: str, fix: str) -> UserError:
        """Return the error that holds this single problem."""
        return cls(Problem(where, what, fix))


class RecipeError(UserError):
    """The recipe cannot be read or contradicts itself."""


class PlanError(UserError):
    """The recipe cannot be carried out on this base and these corpora."""


class CorpusError(UserError):
    """A source of text or a token shard cannot be used."""


class BaseModelError(UserError):
    """The base checkpoint or its tokenizer cannot be used."""


class CheckpointError(UserError):
    """No checkpoint of the run can be trusted."""


class RunFolderError(UserError):
    """The run folder is in use, or holds another run than the one asked for."""


class Problems:
    """Collects problems so that all are told at once, and each of them once.

    >>> problems = Problems()
    >>> problems.add("budget.tokens", "-5 is not a number of tokens", "give e.g. 300M")
    >>> problems.raise_as(RecipeError)
    Traceback (most recent call last):
    ...
    rewarm.errors.RecipeError: budget.tokens: -5 is not a number of tokens
        → give e.g. 300M
    """

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, where: str, what: str, fix: str) -> None:
        """Note one problem."""
        self.extend([Problem(where, what, fix)])

    def extend(self, problems: Iterable[Problem]) -> None:
        """Take over the problems of another error."""
        self._problems.extend(p for p in problems if p not in self._problems)

    def reword(self, reworded: Callable[[Problem], Problem]) -> None:
        """Say every problem noted so far in another way."""
        self._problems = [reworded(problem) for problem in self._problems]

    def __len__(self) -> int:
        return len(self._problems)

    @property
    def noted(self) -> tuple[Problem, ...]:
        """Every problem noted so far."""
        return tuple(self._problems)

    def raise_as(self, error: type[UserError]) -> None:
        """Raise `error` with all that was noted; return where nothing was."""
        if self._problems:
            raise error(self._problems)


def holds_access_token(text: str) -> bool:
    """Tell whether a text holds what looks like an access token."""
    return _ACCESS_TOKEN.search(text) is not None


def masked(text: str) -> str:
    """Return a text without what must not be told: passwords and queries of URLs, access tokens,
    and the values of environment variables whose names say that they are secret.

    >>> masked("no route to ftp://me:word@host/run")
    'no route to ftp://***@host/run'
    """
    for name, value in os.environ.items():
        if len(value) >= _LEAST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    text = _PASSWORD.sub("***@", text)
    return _ACCESS_TOKEN.sub("***", _QUERY.sub(r"\1***", text))


_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})


def remedy_of(
    error: OSError,
    *,
    absent: str = "check the path: a relative one counts from the folder of the file that names it",
) -> str:
    """Return what to do about a file that the system does not let be read.

    `absent` is what to do where it is not there.

    >>> remedy_of(PermissionError(errno.EACCES, "Permission denied"))
    'check its permissions'
    """
    if error.errno in _NOWHERE:
        return absent
    if error.errno == errno.EISDIR:
        return "give a file: this is a folder"
    if error.errno in _REFUSED:
        return "check its permissions"
    if error.errno == errno.ELOOP:
        return "mend the link: it leads back to itself"
    return "check that it is whole (fetch it again if it was copied)"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is a device's, or the machine's, that has no memory left."""
    told = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in told for words in _NO_MEMORY)
    )
