"""The executable: registers the commands, and turns errors into one message and an exit code."""

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from icsr_cli import __version__
from icsr_cli.cli import (
    assign,
    compare,
    demo,
    doctor,
    embed,
    evaluate,
    export,
    labels_generate,
    labels_inspect,
    labels_review,
    methods,
    models,
    prepare,
    report,
    search,
    train,
)
from icsr_cli.cli.console import message
from icsr_cli.cli.help import Commands
from icsr_cli.errors import IcsrError, UsageError, reason
from icsr_cli.recipes.interruption import AtOnce, Stop


class _Commands(TyperGroup):
    """The root group: every fault of a command passes here, in the shell and in tests alike."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _explained(debug="--debug" in sys.argv):  # --help is printed on the way
            return super().make_context(*args, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # --debug may stand anywhere, since one adds it to the end of the line that failed.
        ctx.obj = {"debug": "--debug" in args}
        _refuse_empty(args)
        return super().parse_args(ctx, [argument for argument in args if argument != "--debug"])

    def invoke(self, ctx: Any) -> Any:
        with _explained(debug=ctx.obj["debug"]):
            return super().invoke(ctx)


def _refuse_empty(args: list[str]) -> None:
    """Refuse a value of nothing: as a path it would be the current folder, as others none at all."""
    for before, given in zip(["", *args], args, strict=False):
        option = before if before.startswith("-") else ""
        if given == "" or re.fullmatch("--[a-z-]+=", given):
            what = f"{given or option or 'An argument'} is empty"
            raise UsageError(
                f"{what}: a variable of the shell that is not set? Say a value, or leave it out."
            )


@contextmanager
def _explained(*, debug: bool) -> Iterator[None]:
    """Turn a fault into one message and an exit code; with ``debug``, or if nobody foresaw it, show it."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        text, code = _explain(error)
        text = _explain_plugin(error, text)
        if text is None:
            said = getattr(error, "message", None)
            if isinstance(said, str):  # Typer says some with pydantic's words
                error.message = said.replace("Value error, ", "")  # type: ignore[union-attr]
            raise
        with _undisturbed():
            if debug:
                traceback.print_exception(error)
            else:
                _say(text, "red" if code < 128 else "yellow")
        raise typer.Exit(code) from None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let the last words be said to their end, whatever keys are pressed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str, style: str) -> None:
    try:
        message(text, style=style)
    except (MemoryError, ImportError):
        sys.stderr.write(f"{text}\n")


def _explain(error: BaseException) -> tuple[str | None, int]:
    """Give the message and the exit code of a fault; no message means: a defect of ours, show it all."""
    if isinstance(error, IcsrError):
        return f"Error: {error}" if error.exit_code < 128 else str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        code = error.exit_code if isinstance(error, Stop) else 130
        stopped = "Interrupted" if code == 130 else f"{signal.Signals(code - 128).name}: stopped"
        return f"{stopped}. What was there before is untouched; the same command starts again.", code
    if isinstance(error, MemoryError) or _lacks_memory(error):
        return _memory_message(error), 1
    if type(error).__name__ in ("InductorError", "BackendCompilerFailed"):
        return f"Error: torch.compile failed ({reason(error)}). Start a new run without --compile.", 1
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        if error.errno in _FULL:
            place = error.filename or "while writing"
            return (
                f"Error: {_FULL[error.errno]} ({place}). What was there before is intact. "
                "Make room, then the same command; a training that has begun goes on with --resume.",
                1,
            )
        text = f"Error: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
        if error.errno in _REFUSED:
            text += f". {_REFUSED[error.errno]}, or name another place (--out, --runs, --data-root)."
        return text, 1
    return None, 1


def _explain_plugin(error: BaseException, text: str | None) -> str | None:
    """Give the message of a fault that a file of the user's has made; ``text``, where none has."""
    # Of wrong usage, or after the last word: those of click, which newer releases of typer hold themselves.
    ends = type(error).__module__.partition(".")[0] in ("click", "typer")
    if ends or isinstance(error, IcsrError | KeyboardInterrupt | MemoryError) or _lacks_memory(error):
        return text
    from icsr_cli.choices import plugin_fault

    fault = plugin_fault(error, perhaps=text is None)
    return f"Error: {fault} Mend that file; --debug shows the traceback." if fault else text


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: How memory that cannot be had is said by torch (on a CPU, on a GPU) and by the libraries below it.
_MEMORY_WORDS = (
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "ALLOC_FAILED",
    "failed to map segment",
    "Cannot allocate memory",
)
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "a file is larger than allowed here",
}
#: What the rights of a user, a disk that is for reading only, or what is there already refuse, and a way out.
_REFUSED = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Ask its owner"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "No folder can be there: move away the file or dead link"),
    errno.ELOOP: "Mend the link",
    errno.ENAMETOOLONG: "Take a shorter name",
}


def _lacks_memory(error: BaseException) -> bool:
    # torch tells of a buffer that cannot grow as of a file of the wrong length, which follows from it.
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error.__context__, MemoryError):
        return True
    return isinstance(error, RuntimeError | ImportError) and any(
        words in str(error) for words in _MEMORY_WORDS
    )


def _memory_message(error: BaseException) -> str:
    where = "the GPU is out of memory" if "CUDA" in f"{type(error).__name__} {error}" else "out of memory"
    why = str(error).strip().partition("\n")[0]
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if isinstance(error, ImportError) or command == "doctor":
        return "Error: out of memory before a library was loaded. Give the process more (ulimit -v)."
    ways = {
        "labels": "Take fewer neighbours (--k1), or rough ones (--approximate int8).",
        "prepare": "Prepare smaller images (--size).",
        "search": "Search a folder at a time, or on the CPU (--device cpu).",
        "eval": "Take a smaller batch (-b).",
    }
    way = ways.get(
        command,
        "Take a smaller batch (-b), half the precision on a GPU (--precision bf16), or, where features are "
        "extracted, --set evaluation.batch_size=64: that one may change with --resume, too.",
    )
    return f"Error: {where}{f' ({why})' if why else ''}. {way} `icsr doctor` shows what is free."


app = Commands(
    name="icsr",
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Unsupervised person re-identification with camera labels (ICSR, arXiv 2304.12634).",
    epilog="Start with: icsr demo",
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"icsr {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Hold the options that go before a command."""


#: In the order of the work; groups of commands come last.
_COMMANDS: dict[str, tuple[Callable[..., None], str, str]] = {
    "demo": (demo.demo, "The main job, whole, on rendered people.", ""),
    "train": (train.train, "Train on a data set.", "icsr train -d market1501 -a resnet50 -b 64 --iters 100"),
    "methods": (methods.methods, "List methods and their parts, or print one.", ""),
    "models": (models.models, "List the networks, and where weights are.", ""),
    "eval": (
        evaluate.evaluate,
        "Measure retrieval: mAP, Rank-k, thresholds.",
        "icsr eval -d market1501 --resume logs/market1501/model_best.pth.tar",
    ),
    "embed": (embed.embed, "Write features for other tools.", ""),
    "search": (
        search.search,
        "Find a person in a folder of crops.",
        "icsr search person.jpg --gallery crops/",
    ),
    "assign": (
        assign.assign,
        "Give new images to known clusters.",
        "icsr assign crops/ --to runs/market1501/global/RUN",
    ),
    "report": (
        report.report,
        "Write one HTML page about a run.",
        "icsr report runs/market1501/global/20260101-120000 --out page.html",
    ),
    "compare": (compare.compare, "Hold runs side by side.", "icsr compare runs/market1501/global/*"),
    "export": (
        export.export,
        "Write a network for other programs.",
        "icsr export runs/market1501/global/RUN --out person.onnx",
    ),
    "doctor": (doctor.doctor, "What is installed, and what will be slow.", ""),
}
for _name, (_function, _short, _example) in _COMMANDS.items():
    app.command(_name, short_help=_short, epilog=f"Example: {_example}" if _example else None)(_function)
app.add_typer(prepare.app, name="prepare", short_help="Prepare a data set: check, index, decode.")
_labels = Commands(no_args_is_help=True, help="Look at pseudo labels, or make them from features.")
_labels.command()(labels_generate.generate)
_labels.command(epilog="Example: icsr labels review --questions 100")(labels_review.review)
_labels.command(epilog="Example: icsr labels inspect --epoch 3 --cluster 12")(labels_inspect.inspect)
app.add_typer(_labels, name="labels", short_help="Look at pseudo labels, or make them.")


def _open_standard_files() -> None:
    """Give a process that was started with a closed input, output or error the empty one.

    Else the next file that is opened takes the number, and what is printed goes into it. What the encoding of
    the output cannot hold, such as a path that is no UTF-8, is escaped there.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _keep_the_folder_out() -> None:
    """Let processes that we start import nothing from the current folder, where we do not.

    Python looks there first: a file called ``random.py`` among somebody's crops would be run.
    """
    if sys.modules["__main__"].__spec__ is None:  # else `python -m`, which looks there as well
        os.environ["PYTHONSAFEPATH"] = "1"


def _hide_swallowed_interrupts() -> None:
    """Show no traceback of an interrupt that comes while Python calls back; ``AtOnce`` remembers it."""
    show = sys.unraisablehook

    def hook(found: Any) -> None:
        if not issubclass(found.exc_type, KeyboardInterrupt):
            show(found)

    sys.unraisablehook = hook


def _end_rank(code: object) -> None:
    """End one of several training processes that has failed, at once.

    The threads between the ranks still wait for the others; at an orderly exit C++ aborts the process for it.
    """
    if isinstance(code, int) and code and os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run() -> None:
    """Run the command line."""
    _open_standard_files()
    _keep_the_folder_out()
    _hide_swallowed_interrupts()
    at_once = AtOnce()
    for number in _SIGNALS:
        signal.signal(number, at_once)
    try:
        app()
    except (KeyboardInterrupt, MemoryError) as error:  # before or after the command itself
        text, code = _explain(error)
        _say(str(text), "")
        sys.exit(code)
    except SystemExit as ended:
        _end_rank(ended.code)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
