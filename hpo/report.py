"""`python -m hpo.report --study fer`: says which configuration won, by how much, and how sure that is.

A summary on the terminal, and one HTML file that needs nothing else; it is an artifact of the study's run, too.
Exit codes: 0 done (also where MLflow is not reached: said in a line), 1 else, 2 something for you to mend, 74 disk
full, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import UserError
from hpo.loading import load_spec
from hpo.names import OUTBOX
from hpo.options import add_storage, add_trainer, add_workdir, ended
from hpo.spec import StudySpec

if TYPE_CHECKING:  # optuna and SQLAlchemy take a second to import, and `--help` needs none of it
    from rich.console import Console

    from hpo.outbox import Outbox
    from hpo.report_facts import Facts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = parser().parse_args(arguments)
    return ended(lambda: _report(load_spec(options.study), options), options.verbose)


def parser() -> argparse.ArgumentParser:
    """The command's flags: those of `hpo.run` that say where things are."""
    found = argparse.ArgumentParser(
        prog="python -m hpo.report",
        usage="%(prog)s --study STUDY [flags, which --help lists]",
        description="Say which configuration of a study won, by how much, and how sure that is.",
        epilog="exit codes: 0 done, MLflow not reached; 1 else; 2 something for you to mend; 74 disk full; "
        "130 interrupted",
    )
    add = found.add_argument
    add("--study", required=True, help="a study in studies/, or a .py file of your own, as hpo.run has it")
    add_storage(found)
    add("--tracking-uri", metavar="URI", help="MLflow [MLFLOW_TRACKING_URI, else where the study's run is]")
    add_workdir(found)
    add("--output", metavar="FILE", help="the page [./STUDY-report.html]")
    add_trainer(found)
    return found


def _report(spec: StudySpec, options: argparse.Namespace) -> int:
    from rich.console import Console

    from hpo.prepared import prepared_for
    from hpo.report_facts import best_folder, gather
    from hpo.report_review import Review, review
    from hpo.resume import measured_otherwise, refuse
    from hpo.storage import existing_store, load_study
    from hpo.whole import write_whole

    output = Path(options.output or f"{spec.name}-report.html")
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise UserError(f"--output {output}: need a file in a folder that is there")
    study = load_study(existing_store(options.storage), spec.name)
    if not any(t.state.is_finished() for t in study.get_trials(deepcopy=False)):
        raise UserError(f"study {spec.name!r} has no trial that has ended: there is nothing to report yet")
    refuse(spec, measured_otherwise(spec, study))
    outbox = _outbox(study.user_attrs.get("hpo.study_id"))
    facts = gather(spec, study, outbox, options)
    folder = best_folder(facts)
    prepare = partial(prepared_for, spec, study, device=options.device, data=options.data)
    said = Review([]) if folder is None else review(spec.name, folder, prepare)

    from hpo.report_page import page  # plotly, some tenths of a second: only now that there is something to draw

    write_whole(output, page(facts, said).encode())
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width: nothing is cut there
    _summarize(console, facts, said.words)
    for words in (f"report: {output}", _hand_over(facts, outbox, output)):
        console.print(words, markup=False, soft_wrap=True)
    return 0


def _outbox(study_id: str | None) -> "Outbox | None":
    """The study's outbox in this folder; one that is not there is not made."""
    from hpo.outbox import open_outbox

    if study_id is None or not (Path(OUTBOX) / f"{study_id}.db").is_file():
        return None
    return open_outbox(Path(OUTBOX), study_id)


def _summarize(console: "Console", facts: "Facts", review: str) -> None:
    """The claim, the figures behind it, and what is missing."""
    from rich.text import Text

    from hpo.display import rich_table
    from hpo.report_claim import best_table, claim, confirmed_table
    from hpo.report_facts import confirm_command
    from hpo.report_times import saved_words, times_table

    for sentence in claim(facts.spec, facts.ranked, facts.confirmation, confirm_command(facts)):
        console.print(Text(sentence), soft_wrap=True)
    first = confirmed_table(facts.confirmation) if facts.confirmation else best_table(facts.spec, facts.ranked, 5)
    for found in (first, times_table(facts.trials)):
        if found.rows:
            console.print(rich_table(found))
    for words in (saved_words(facts.spec, facts.trials), review):
        if words:
            console.print(Text(words), soft_wrap=True)


def _hand_over(facts: "Facts", outbox: "Outbox | None", output: Path) -> str:
    """Let the report be an artifact of the study's run; where MLflow is away it waits on disk. Gives what came of it.

    Raises:
        UserError: the tracking URI can't be one.
    """
    from hpo.delivery import deliver_all
    from hpo.outbox import PARENT
    from hpo.tracked import DEFAULT_URI, describe_study, put_artifact

    name = facts.spec.name
    if outbox is None:
        return f"this folder has no outbox of study {name}: the report is no artifact of it in MLflow"
    # Where its run is by now: the report alone is no reason to tell another server the whole study.
    known = os.environ.get("MLFLOW_TRACKING_URI") or outbox.known_runs().get(PARENT)
    uri = facts.options.tracking_uri or known or DEFAULT_URI
    put_artifact(outbox, PARENT, output)
    if facts.is_done or facts.confirmation is not None:  # else the description is the running command's
        state = "done" if facts.confirmation is None else "confirmed"
        describe_study(outbox, facts.spec, facts.trials, Path(facts.options.workdir) / name, state)
    problem = deliver_all(uri, Path(OUTBOX), outbox, name, facts.attrs["hpo.study_id"])
    if problem is not None:
        return f"MLflow at {uri} is not reached ({problem}): the report waits in {OUTBOX}/ for the next command"
    return f"it is among the artifacts of the study's run in MLflow, too: {uri}"


if __name__ == "__main__":
    sys.exit(main())
