"""What the smaller commands share: the flags that say where, what their values may be, how a command ends."""

import argparse
import atexit
import json
import logging
import os
import shlex
import signal
import socket
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from hpo.errors import DiskFullError, HpoError, UserError, disk_is_full
from hpo.names import DEFAULT_URL
from hpo.redaction import Redacting, redacted

if TYPE_CHECKING:  # optuna takes half a second to import, and `--help` needs none of it
    from optuna import Study
    from optuna.distributions import BaseDistribution

    from hpo.spec import StudySpec

MAX_WORKERS = 256
WORKDIR = "trials"

log = logging.getLogger("hpo")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where a study lies, as `hpo.run` has them."""
    add_storage(parser)
    add_workdir(parser)
    add_tracking(parser)


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where trials' files are: `workdir` here; `mirror` where they are copied to, or None."""
    words = "folder of the trials' files [./trials]; a URL (s3://…): they are copied there, for other machines to go on"
    parser.add_argument("--workdir", default=WORKDIR, action=_Workdir, metavar="DIR", help=words)
    parser.set_defaults(mirror=None)


class _Workdir(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, _option: Any = None) -> None:
        if not values:
            parser.error("argument --workdir: need a folder, or a URL")
        is_url = "://" in values
        namespace.mirror, namespace.workdir = (values, WORKDIR) if is_url else (None, values)


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where the Optuna store is."""
    words = f"the Optuna store [{DEFAULT_URL}]"
    parser.add_argument("--storage", default=DEFAULT_URL, metavar="URL", help=words)


def add_tracking(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where MLflow is."""
    words = "MLflow [MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]"
    parser.add_argument("--tracking-uri", metavar="URI", help=words)


def add_trainer(parser: argparse.ArgumentParser) -> None:
    """Add the flags that a trainer is prepared with, and `--verbose`."""
    add = parser.add_argument
    add("--data", metavar="PATH", help="the data set [FER2013_DIR, else ./datasets]")
    add("--device", metavar="D", help="cuda, cuda:1, mps or cpu [the best there is]")
    add("-v", "--verbose", action="store_true", help="say more: stages of the start, tracebacks")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how many work."""
    words = "worker processes on this machine or auto [auto: one for each GPU, which is all it sees; one without any]"
    parser.add_argument("--workers", type=worker_count, metavar="N", help=words)
    words = "trials at a time in each worker [1 where workers are counted, else what is measured to be fastest]"
    parser.add_argument("--workers-per-device", type=whole(MAX_WORKERS), metavar="K", help=words)


def command(module: str, study: str, options: argparse.Namespace, *flags: str) -> str:
    """A command to be given next, or by another person: at the places that this one was given, without passwords."""
    from hpo.urls import shown  # sqlalchemy: `--help` needs none of it

    words = ["python", "-m", module, "--study", study, *flags]
    for flag in ("storage", "data", "device", "workdir", "tracking_uri"):
        given = getattr(options, flag, None)
        if given is not None and given != {"storage": DEFAULT_URL, "workdir": WORKDIR}.get(flag):
            words += [f"--{flag.replace('_', '-')}", shown(str(given))]
    if getattr(options, "mirror", None) is not None:
        words += ["--workdir", shown(options.mirror)]
    return shlex.join(words)


def tracking_uri(given: str | None) -> str:
    """Where MLflow is: as the flag says, or the environment, or in the working folder."""
    from hpo.tracked import DEFAULT_URI

    return given or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def study_name(study: str) -> str:
    """The name of a study that is given as in `hpo.run`: a name, or the path of a `.py` file that declares it.

    Raises:
        UserError: there is no such file, or it has faults.
    """
    from hpo.loading import known_studies, load_spec

    return load_spec(study).name if study.endswith(".py") or study in known_studies() else study


def ended(body: Callable[[], int], verbose: bool = False) -> int:  # noqa: FBT001, FBT002  a flag as it was given
    """Run a command's body; gives its exit code. What can't be done is a line, never a traceback.

    Where nothing can be said, since what it is said to lies on a full disk or is closed, the exit code still tells.
    """
    if sys.stdout is None or sys.stderr is None:  # closed before the command began
        nothing = Path(os.devnull).open("w")  # noqa: SIM115  for as long as the process lives
        sys.stdout, sys.stderr = sys.stdout or nothing, sys.stderr or nothing
    code = _code_of(body, verbose)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = DiskFullError.exit_code if disk_is_full(error) else code
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python's own flush, at its end, fails
    return code


def leave(code: int) -> NoReturn:
    """End the process with this code, whatever signal comes while Python puts things away.

    As long as threads are waited for, one ends it at once; from then on it is over in a moment.
    """
    atexit.register(_on_signals, signal.SIG_IGN)
    _on_signals(lambda *_: os._exit(code))
    sys.exit(code)


def _on_signals(what: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, what)


def _code_of(body: Callable[[], int], verbose: bool) -> int:  # noqa: FBT001
    os.umask(0o077)
    if not (root := logging.getLogger()).handlers:
        shown = logging.StreamHandler()
        shown.setFormatter(Redacting("%(message)s"))
        root.addHandler(shown)
    tell_faults()
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    for name in ("optuna", "mlflow", "alembic", "filelock", "matplotlib", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return body()
    except HpoError as error:
        log.debug("%s", error, exc_info=True)
        _say(str(error))
        return error.exit_code
    except OSError as error:
        log.debug("%s", error, exc_info=True)
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}")
        return DiskFullError.exit_code if disk_is_full(error) else UserError.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from hpo.storage import STORE_ERRORS, damage, first_line

        if not isinstance(error, STORE_ERRORS):
            raise
        log.debug("%s", error, exc_info=True)
        if (damaged := damage(error)) is not None:
            _say(damaged)
            return UserError.exit_code
        _say(f"the store can't be used now: {first_line(error)}")
        return DiskFullError.exit_code if disk_is_full(error) else HpoError.exit_code


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{redacted(text)}\n")


def tell_faults() -> None:
    """Let an error that is a fault of this program be told without secrets, whichever thread it ends."""
    sys.excepthook = _say_all
    threading.excepthook = lambda found: _say_all(found.exc_type, found.exc_value, found.exc_traceback)


def _say_all(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    _say("".join(traceback.format_exception(kind, error, trace)).rstrip())


def size_of(folder: Path) -> int:
    """Bytes that all files below a folder take; one file of two names counts once."""
    return sum(status.st_size for status, _ in _files([folder]))


def freed_with(folders: Iterable[Path]) -> int:
    """Bytes that are free when these folders are gone; a file that has another name elsewhere stays."""
    return sum(status.st_size for status, n_names in _files(folders) if n_names == status.st_nlink)


def _files(folders: Iterable[Path]) -> list[tuple[os.stat_result, int]]:
    """The files below some folders, each with how many names it has there. What vanishes meanwhile is none."""
    found: dict[tuple[int, int], tuple[os.stat_result, int]] = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        try:
            status = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            _, n_names = found.get((status.st_dev, status.st_ino), (status, 0))
            found[status.st_dev, status.st_ino] = (status, n_names + 1)
    return list(found.values())


def bytes_in_words(n: float) -> str:
    """A size as a person says it: `512 B`, `1.5 kB`, `2.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def whole(most: int) -> Callable[[str], int]:
    """A flag's type: a whole number from 1 to `most`."""
    from hpo.spec import outside

    def read(text: str) -> int:
        value = int(text) if text.strip().lstrip("+-").isdecimal() else text
        if fault := outside(value, 1, most):
            raise argparse.ArgumentTypeError(fault)
        return int(value)

    return read


def worker_count(text: str) -> int | None:
    """A flag's type: how many workers, None for `auto`."""
    return None if text.strip() == "auto" else whole(MAX_WORKERS)(text)


def seconds(text: str) -> float:
    """A flag's type: seconds, finite and above 0."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text!r}")
    return value


def read_configurations(file: Path) -> list[dict[str, Any]]:
    """The configurations of a JSON file: one mapping, or a list of them.

    Raises:
        UserError: it is not there, is not JSON, or holds something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, or NaN
        raise UserError(f"{file}: not JSON: {error}") from None
    configurations = found if isinstance(found, list) else [found]
    if not configurations or not all(isinstance(c, dict) and c for c in configurations):
        raise UserError(f"{file}: need a mapping of params, or a list of them, got {json.dumps(found):.80}")
    return configurations


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no value")


def check_configurations(
    spec: "StudySpec", study: "Study", configurations: Sequence[Mapping[str, Any]], file: str
) -> None:
    """Refuse what is not in a study's space.

    Raises:
        UserError: the message names the file, and which configuration of it.
    """
    from hpo import space
    from hpo.notebook import FACTS
    from hpo.resume import check_params

    before = study.user_attrs.get(FACTS, {}).get("space")
    if before is not None and (changed := space.changes(before, space.distributions(spec.suggest))):
        raise UserError(f"study {spec.name!r} was made with another search space: {'; '.join(changed)}")
    kinds = _kinds(spec)
    for position, params in enumerate(configurations):
        for name, value in params.items():
            if name in kinds and (need := _misfit(kinds[name], value)):
                raise UserError(f"{file}[{position}]: {name} must be {need}, got {json.dumps(value):.60}")
    try:
        check_params(replace(spec, enqueue=tuple(configurations)), _Unchecked())  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(str(error).replace("enqueue[", f"{file}[", 1)) from None


class _Unchecked:
    """Stands for a trainer: what only the real one can refuse is refused when it is trained."""


def _kinds(spec: "StudySpec") -> "dict[str, list[BaseDistribution]]":
    """Every distribution that a name may be suggested from."""
    from hpo import space

    found: dict[str, list[BaseDistribution]] = {}
    for branch in space.walk(spec.suggest):
        for name, distribution in branch.distributions.items():
            found.setdefault(name, []).append(distribution)
    return found


def _misfit(distributions: "Sequence[BaseDistribution]", value: Any) -> str | None:
    """What a value must be to be of these distributions' kind, in words; None where it is. Optuna takes "1" for 1."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    choices = [c for d in distributions if isinstance(d, CategoricalDistribution) for c in d.choices]
    if choices:
        same = any(type(c) is type(value) and c == value for c in choices)
        return None if same else f"one of {json.dumps(list(dict.fromkeys(choices)))[1:-1]}"
    if all(isinstance(d, IntDistribution) for d in distributions):
        return None if is_number and isinstance(value, int) else "a whole number"
    return None if is_number else "a number"


def is_taken(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as caller:
        caller.settimeout(1.0)
        if caller.connect_ex(("127.0.0.1", port)) == 0:
            return True
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just closed is free
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_port(first: int, besides: int | None = None) -> int:
    """The first port from `first` on at which nobody listens.

    Raises:
        UserError: a hundred of them are taken.
    """
    for port in range(first, first + 100):
        if port != besides and not is_taken(port):
            return port
    raise UserError(f"ports {first} to {first + 99} are all taken; give one: --port P")
