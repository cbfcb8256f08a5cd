"""`python -m data.prepare`: get FER2013, check it, and turn it into the paper's files and figures."""

import argparse
import csv
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data import cache, fer2013
from data.errors import DataError, printable
from data.faces import EMOTIONS, USAGES, image_digests
from data.faults import blank_rows, duplicate_faults, leaks

_BLOCK = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 where the data or the arguments can't be used."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    os.umask(0o077)
    wanted = (options.check, options.split_csv, options.images, options.figures, options.download)
    if not any(wanted):
        parser.error("nothing to do: give --check, --split-csv, --images, --figures or --download")
    try:
        if options.download:
            options.path = _download()
        rows = fer2013.open_rows(fer2013.locate(options.path))
        if options.check:
            print("\n".join(describe(rows)))
        if options.split_csv:
            write_split_csv(rows.packed, options.split_csv)
        if options.images:
            write_images(rows.packed, options.images)
        if options.figures:
            write_figures(rows.packed, options.figures)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{printable(error.filename or options.path)}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    usage = "%(prog)s [PATH] [flags, which --help lists]"
    parser = argparse.ArgumentParser(prog="python -m data.prepare", usage=usage, description=__doc__)
    parser.add_argument(
        "path", nargs="?", type=Path, help="csv, parquet or npz (also .gz, .zip, .tar.gz), or a folder of them or of "
        "images; default: FER2013_DIR, else ./datasets",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="print counts, duplicates, contradictions, leaks, blanks")
    parser.add_argument("--split-csv", type=Path, metavar="DIR", help="write the paper's labels.csv and pixels.csv")
    parser.add_argument("--images", type=Path, metavar="DIR", help="write every face as DIR/<usage>/<emotion>/N.png")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw a sample of each emotion and the histogram")
    parser.add_argument("--download", action="store_true", help="fetch the data from Kaggle first (extra: download)")
    return parser


def describe(rows: fer2013.Rows) -> Iterator[str]:
    """What `--check` prints: counts by split and emotion, and every fault native to the data."""
    packed = rows.packed
    yield f"digest         sha256 {packed.digest}"
    yield f"images         {len(packed.labels)} of {packed.images.shape[1]}×{packed.images.shape[2]} pixels"
    yield ""
    yield f"{'split':<20}{'n':>7}" + "".join(f"{name:>10}" for name in EMOTIONS)
    by_usage = {name: np.flatnonzero(packed.usage == code) for code, name in enumerate(USAGES)}
    parts = {name: indices for name, indices in by_usage.items() if len(indices)}
    paper = fer2013.make_splits(rows, "paper")
    shown = {**parts, "paper's train": paper["train"], "paper's validation": paper["validation"]}
    for name, indices in shown.items():
        counts = np.bincount(packed.labels[indices], minlength=len(EMOTIONS))
        yield f"{name:<20}{len(indices):>7}" + "".join(f"{n:>10}" for n in counts)
    yield ""
    digests = image_digests(packed.images)
    faults = duplicate_faults(digests, packed.labels)
    yield f"duplicates     {faults.surplus} surplus exact copies in {faults.groups} groups"
    yield f"contradictory  {faults.contradictory} groups of equal images with different labels"
    n_leaks = leaks(digests, paper["train"], paper["validation"])
    share = n_leaks / len(paper["validation"])
    yield f"leaks          {n_leaks} of the paper's validation images ({share:.1%}) are in its training images"
    for name in USAGES[1:]:
        if name in parts:
            yield f"leaks          {leaks(digests, by_usage['Training'], parts[name])} of {name} are in Training"
            yield f"leaks          {leaks(digests, paper['train'], parts[name])} of {name} are in the paper's train"
    blanks = blank_rows(packed.images)
    where = f": rows {', '.join(map(str, blanks[:20]))} (from 0)" if blanks else ""
    yield f"blank          {len(blanks)} blank images{where}"


def write_split_csv(packed: cache.Packed, folder: Path) -> None:
    """Write the paper's two files: labels.csv (`emotion`) and pixels.csv (2304 columns, no header), in row order."""
    with _whole_folder(folder) as building:
        with (building / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["emotion"])
            writer.writerows([label] for label in packed.labels.tolist())
        with (building / "pixels.csv").open("w") as file:
            words = np.array([str(value) for value in range(256)])
            for start in _progress(range(0, len(packed.labels), _BLOCK), "writing pixels.csv"):
                for image in packed.images[start : start + _BLOCK]:
                    file.write(",".join(words[image.ravel()]) + "\n")


def write_images(packed: cache.Packed, folder: Path) -> None:
    """Write every face as PNG: <usage>/<emotion>/<row, from 0>.png."""
    from PIL import Image  # other uses of the command don't need it

    with _whole_folder(folder) as building:
        for usage in USAGES:
            for emotion in EMOTIONS:
                (building / usage / emotion).mkdir(parents=True)
        for row in _progress(range(len(packed.labels)), "writing images"):
            place = building / USAGES[packed.usage[row]] / EMOTIONS[packed.labels[row]] / f"{row:05d}.png"
            Image.fromarray(np.asarray(packed.images[row])).save(place)


def write_figures(packed: cache.Packed, folder: Path) -> None:
    """Draw the paper's figure 1 (a sample of each emotion) and figure 2 (images per emotion)."""
    from matplotlib.figure import Figure  # other uses of the command don't need it

    with _whole_folder(folder) as building:
        sample = Figure(figsize=(10, 1.8), layout="constrained")
        for axes, (label, name) in zip(sample.subplots(1, len(EMOTIONS)), enumerate(EMOTIONS), strict=True):
            lit = (row for row in np.flatnonzero(packed.labels == label) if np.ptp(packed.images[row]))
            axes.imshow(packed.images[next(lit, int(np.argmax(packed.labels == label)))], cmap="gray", vmin=0, vmax=255)
            axes.set_title(name, fontsize=10)
            axes.set_axis_off()
        sample.savefig(building / "samples.png", dpi=150)
        histogram = Figure(figsize=(7, 4), layout="constrained")
        axes = histogram.subplots()
        training = packed.labels[packed.usage == 0]
        bars = axes.bar(EMOTIONS, np.bincount(training, minlength=len(EMOTIONS)), color="#4c72b0")
        axes.bar_label(bars, fontsize=9)
        axes.set_ylabel("images")
        axes.set_title(f"images per emotion, Training ({len(training)})")
        axes.spines[["top", "right"]].set_visible(False)
        histogram.savefig(building / "histogram.png", dpi=150)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes its place only when it is complete."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already and not an empty folder; name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield building
        if folder.exists():
            folder.rmdir()
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    print(f"written: {folder}")


def _progress(steps: range, description: str) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(steps, description, console=console, transient=True, disable=not console.is_terminal))


def _download() -> Path:
    try:
        import kagglehub  # an optional extra
    except ImportError:
        raise DataError("--download needs kagglehub: pip install 'fer-hpo[download]'") from None
    try:
        return Path(
            kagglehub.competition_download(
                "challenges-in-representation-learning-facial-expression-recognition-challenge"
            )
        )
    except Exception as error:  # kagglehub raises whatever its transport raises
        raise DataError(f"Kaggle did not give the data: {str(error).splitlines()[0]}") from None


if __name__ == "__main__":
    sys.exit(main())
