"""`sacroleak`: the one entry point. It imports no room: each command does when it runs, so that `--help` is quick."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Sequence

import typer

from sacroleak.cli.cohort import cohort
from sacroleak.cli.demo import demo
from sacroleak.cli.model import list_models, show_model
from sacroleak.cli.score import score
from sacroleak.cli.simulate import simulate
from sacroleak.core.errors import SacroleakError

WRONG_CALL, OWN_FAULT = 2, 3


def build() -> typer.Typer:
    """The command tree."""
    top = typer.Typer(name="sacroleak", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                      help="Finds bone cement on CT after sacroplasty and says where it leaked. "
                           "For research only; not a medical device.")
    top.command("score")(score)
    top.command("demo")(demo)
    top.command("simulate")(simulate)
    top.command("cohort")(cohort)
    model = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The released models of this installation.")
    model.command("list")(list_models)
    model.command("show")(show_model)
    top.add_typer(model, name="model")
    return top


app = build()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 all done, 1 some scans refused, 2 wrong call, 3 own fault, 130 interrupted.

    Whatever goes wrong is said in one line on stderr. With `--debug` the error itself is raised.
    """
    # NumPy's products here are small: threads that wait for busy cores take longer over them than one does, and round
    # otherwise than one. Scans share the cores instead.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A virtual machine may have to be given each huge page by its host: with them a scan took a quarter longer.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    atexit.register(gc.freeze)  # else Python looks for garbage in all it holds before it ends: 0.5 s
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if not debug:
        warnings.simplefilter("ignore")
    try:
        code = typer.main.get_command(app)(args=given, prog_name="sacroleak", standalone_mode=False)
    except (SacroleakError, OSError) as error:
        if debug:
            raise
        return _complain(_one_line(error), WRONG_CALL)
    except Exception as error:  # the last place where a fault can become a sentence
        if _is_usage(error):
            return _complain(f"{_one_line(error)} See 'sacroleak {_command(given)}--help'.", WRONG_CALL)
        if debug:
            raise
        return _complain(f"fault in the software ({type(error).__name__}); --debug shows where.", OWN_FAULT)
    return code if isinstance(code, int) else 0


def _complain(sentence: str, code: int) -> int:
    print(f"sacroleak: {sentence}", file=sys.stderr)
    return code


def _is_usage(error: Exception) -> bool:
    """Typer carries its own copy of click or uses the installed one; both mark wrong calls by this method."""
    return hasattr(error, "format_message") and getattr(error, "exit_code", None) == WRONG_CALL


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"the file system refuses: {error.strerror}: {error.filename or 'unnamed file'}"
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(str(text).split())


def _command(given: Sequence[str]) -> str:
    return f"{given[0]} " if given and given[0] in ("score", "demo", "simulate", "cohort", "model") else ""


if __name__ == "__main__":
    raise SystemExit(main())
