"""The command line: what a launch sets, and errors as messages and exit codes."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from rewarm.errors import FaultElsewhere, RewarmError, UserError, is_out_of_memory
from rewarm.verbs import EndedError, app

__all__ = ["main"]

_INTERRUPTED = 130


@functools.cache
def _command() -> Callable[..., Any]:
    """Return the command line; of all its verbs it is made once, however often one is called."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 where done, 1 for the machine's fault, 2 for the input's."""
    # Read when torch is loaded. Threads that spin for long while they wait make steps slower as
    # soon as anything else wants a core (docs/decisions/0004-waiting-threads.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks "→" shows "?" instead
            stream.reconfigure(errors="replace")
    try:
        code = _command()(
            args=list(arguments) if arguments is not None else None, standalone_mode=False
        )
        # click answers a key press (130) in silence.
        return _stopped_by_keyboard() if code == _INTERRUPTED else int(code or 0)
    except EndedError as ended:
        return ended.code
    except typer.Abort:  # a question that was not answered
        return _say("stopped", _INTERRUPTED)
    except KeyboardInterrupt:
        return _stopped_by_keyboard()
    except RewarmError as error:
        if os.environ.get("REWARM_TRACEBACK"):
            raise
        if isinstance(error, FaultElsewhere):
            return error.exit_code  # the rank that failed tells why
        many = isinstance(error, UserError) and len(error.problems) > 1
        heading = f"{len(error.problems)} problems:" if many else "error:"  # type: ignore[attr-defined]
        return _say(f"{heading}{chr(10) if many else ' '}{error}", error.exit_code)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - nobody reads; silence the flush at exit
        return 1
    except Exception as error:
        if os.environ.get("REWARM_TRACEBACK"):
            raise
        show = getattr(error, "show", None)
        if show is not None:  # click's own usage errors
            show()
            return int(getattr(error, "exit_code", 2))
        if is_out_of_memory(error):
            told = str(error).strip().partition(". ")[0] or "there is none left"
            return _say(
                f"error: no memory: {told}\n"
                "    → a smaller training.micro_batch_sequences, or "
                'training.activation_checkpointing = "full";\n'
                "      `rewarm plan --probe` finds what fits",
                1,
            )
        return _say(
            f"unexpected fault: {type(error).__name__}: {error}\n"
            "    → run `rewarm --traceback …` to see where, and please report it",
            1,
        )


def _stopped_by_keyboard() -> int:
    return _say("stopped by the keyboard; the same command goes on where it was", _INTERRUPTED)


def _say(message: str, code: int) -> int:
    """Say it; what text and files are called in it comes from anywhere, and a terminal obeys."""
    from rewarm.reporting.text import harmless

    sys.stderr.write(f"rewarm: {harmless(message)}\n")
    return code
