"""`python -m studies.recognize PHOTO… | VIDEO | --camera 0`: recognition with the champion of a study.

The champion is the version of the registered model that bears this alias: `models:/fer@champion` for study `fer`.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hpo.errors import HpoError
from model.recognize import check, parser, recognize


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    found = parser("python -m studies.recognize", "Name the emotions of faces, with the champion of a study.")
    found.add_argument("--study", default="fer", metavar="NAME", help="whose champion, models:/NAME@champion [fer]")
    found.add_argument("--tracking-uri", metavar="URI", help="MLflow [MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]")
    options = found.parse_args(arguments)
    check(found, options)
    try:
        from hpo.champion import champion_file  # mlflow takes seconds

        with tempfile.TemporaryDirectory() as place:
            return recognize(options, champion_file(options.study, options.tracking_uri, Path(place)))
    except HpoError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{error.filename or options.tracking_uri or options.study}: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
