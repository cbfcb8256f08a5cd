"""`python -m model.recognize PHOTO… | VIDEO | --camera 0 --model FILE`: finds faces and says what they feel.

Exit codes: 0 done (also where no face was found), 1 nobody reads the output, 2 something for you to mend (a photo that
can't be read, say; the others are recognised all the same), 130 interrupted.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import DataError

if TYPE_CHECKING:
    from model.annotated import Outputs, Window
    from model.exported import Classifier
    from model.frames import Source
    from model.photos import Pixels
    from model.recognition import Recognised, Result


MAX_CAMERA = 999


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    found = parser("python -m model.recognize", "Find faces in photos, videos or a camera's pictures; name emotions.")
    found.add_argument("--model", type=Path, required=True, metavar="FILE", help="an exported network (.safetensors)")
    options = found.parse_args(arguments)
    check(found, options)
    return recognize(options, options.model)


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """The flags that `recognize` reads."""
    found = argparse.ArgumentParser(
        prog=program,
        usage="%(prog)s PATH … [flags, which --help lists]",
        description=description,
        epilog="exit codes: 0 done; 2 something for you to mend (the other photos are recognised all the same); "
        "130 interrupted",
    )
    add = found.add_argument
    add("paths", nargs="*", type=Path, metavar="PATH", help="photos (JPEG, PNG, WebP, TIFF, …) and videos (.mp4, …)")
    add("--camera", type=_number, metavar="N", help="this camera, from 0, until Ctrl-C")
    add("--detector", type=Path, metavar="FILE", help="YuNet as ONNX [OpenCV's Haar cascade for frontal faces]")
    add("--output", type=Path, metavar="DIR", help="write annotated copies: DIR/NAME.recognized.jpg, .png or .mp4")
    add("--json", action="store_true", help="print one JSON object a photo or frame")
    add("--show", action="store_true", help="show them in a window (extra: window); q ends")
    add("--live", action="store_true", help="videos at their own speed: leave out frames rather than fall behind")
    return found


def check(found: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse, with the usage, options that don't go together."""
    if bool(options.paths) == (options.camera is not None):
        found.error("give photos or videos, or else --camera")


def recognize(options: argparse.Namespace, model: Path) -> int:
    """Do what the flags of `parser` say, with this exported network; gives the exit code."""
    os.umask(0o077)
    for name, quiet in (("OPENCV_LOG_LEVEL", "SILENT"), ("OPENCV_FFMPEG_LOGLEVEL", "-8")):
        os.environ.setdefault(name, quiet)  # what is wrong with a file is said in a line of ours
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # what stands in for them need not know encodings
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _recognize(options, model)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except BrokenPipeError:
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:  # else Python's own flush at exit complains
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename or options.output or model}: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _recognize(options: argparse.Namespace, model: Path) -> int:
    _check_opencv(shows=options.show)
    from model import annotated, detection, frames, recognition

    side = detection.PHOTO_SIDE if options.camera is None else detection.CAMERA_SIDE
    detector = detection.make_detector(options.detector, side=side)
    classifier = _loaded(model)
    known = classifier.preparation
    if options.camera is not None:
        items = frames.of_camera(options.camera)
    else:
        items = frames.of_files(options.paths, live=options.live)
    results = recognition.recognise(
        items, detector, classifier, class_names=known.class_names, image_size=known.image_size
    )
    outputs = annotated.Outputs(options.output) if options.output else None
    with closing(results), ExitStack() as ending:
        window = annotated.Window() if options.show else None
        if window:
            ending.callback(window.close)
        return _consume(results, outputs, window, as_json=options.json)


def _check_opencv(*, shows: bool) -> None:
    """Refuse, before anything slow, what this machine's OpenCV can't do."""
    try:
        import cv2  # noqa: F401  an optional extra
    except ModuleNotFoundError:
        raise DataError("needs OpenCV: pip install 'fer-hpo[recognize]'") from None
    except ImportError as error:  # it is there, and a library that it needs is not
        raise DataError(f"OpenCV can't be loaded: {error}") from None
    if not shows:
        return
    from model.annotated import has_windows

    if not has_windows():
        remedy = "pip uninstall opencv-python-headless, then pip install 'fer-hpo[window]'"
        raise DataError(f"--show needs an OpenCV with windows: {remedy}")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DataError("--show needs a display, and there is none (DISPLAY is not set)")


def _loaded(model: Path) -> "Classifier":
    if not model.is_file():  # before torch, which takes seconds
        raise DataError(f"{model}: no such file, need an exported network")
    from model.exported import load

    try:
        return load(model)
    except ValueError as error:
        raise DataError(str(error)) from None


def _consume(results: "Iterator[Result]", outputs: "Outputs | None", window: "Window | None", *, as_json: bool) -> int:
    """Print, write and show what comes, source by source; gives the exit code."""
    code = 0
    for source, group in groupby(results, key=lambda result: result.source):
        is_good, goes_on = _consume_one(source, group, outputs, window, as_json=as_json)
        code = code if is_good else 2
        if not goes_on:
            break
    return code


def _consume_one(
    source: "Source", results: "Iterator[Result]", outputs: "Outputs | None", window: "Window | None", *, as_json: bool
) -> tuple[bool, bool]:
    """Do it for one source: whether all of it went well, and whether the user goes on."""
    from model.frames import Fault

    tally, is_good = _Tally(source), True

    def tell(line: str) -> None:
        nonlocal is_good
        is_good = False
        sys.stderr.write(f"{line}\n")

    def each(keep: "Callable[[Recognised], None]") -> bool:
        for result in results:
            if isinstance(result, Fault):
                tell(result.line)
                continue
            _say(result, as_json=as_json)
            tally.add(result)
            keep(result)
            if window and not window.show(result):
                return False
        return True

    try:
        with _copies(source, outputs, says=not as_json) as keep:
            goes_on = each(keep)
    except DataError as error:  # its copy can't be written: the rest of it is told all the same
        tell(str(error))
        goes_on = each(lambda _: None)
    if not as_json and tally.n_frames and source.kind != "photo":
        sys.stdout.write(f"{tally.line()}\n")
    return is_good, goes_on


def _say(result: "Recognised", *, as_json: bool) -> None:
    from model import recognition

    lines = [json.dumps(recognition.as_json(result))] if as_json else recognition.as_lines(result)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()  # who reads a camera's emotions reads them now


@contextmanager
def _copies(source: "Source", outputs: "Outputs | None", *, says: bool) -> "Iterator[Callable[[Recognised], None]]":
    """Where annotated copies go: a function that takes a frame. A video takes its place when the block has ended.

    Ctrl-C is a camera's usual end: then its video is whole too.
    """
    from model.annotated import marked, video_writer, write_photo

    paths: list[Path] = []
    interrupted: KeyboardInterrupt | None = None
    with ExitStack() as ending:
        write: Callable[[Pixels, float], None] | None = None

        def keep(result: "Recognised") -> None:
            nonlocal write
            if outputs is None:
                return
            if not paths:
                paths.append(outputs.path(result))
            if source.kind == "photo":
                write_photo(paths[0], marked(result))
                return
            write = write or ending.enter_context(video_writer(paths[0], source.rate))
            write(marked(result), result.frame.seconds)

        try:
            yield keep
        except KeyboardInterrupt as error:
            if source.kind != "camera":
                raise
            interrupted = error
    if paths and says:
        sys.stdout.write(f"written: {paths[0]}\n")
    if interrupted:
        raise interrupted


class _Tally:
    """Frames of a video or a camera, and how fast they came."""

    def __init__(self, source: "Source", now: "Callable[[], float]" = time.perf_counter) -> None:
        self._source, self._now, self._began = source, now, now()
        self.n_frames = self._n_with_faces = self._last = 0

    def add(self, result: "Recognised") -> None:
        self.n_frames += 1
        self._n_with_faces += bool(result.faces)
        self._last = result.frame.index

    def line(self) -> str:
        rate = self.n_frames / max(self._now() - self._began, 1e-9)
        n_left_out = self._last + 1 - self.n_frames
        return (
            f"{self._source.name}: {self.n_frames} frames, {self._n_with_faces} with a face, {n_left_out} left out, "
            f"{rate:.1f} frames per second"
        )


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_CAMERA:
        raise argparse.ArgumentTypeError(f"must be a camera's number in [0, {MAX_CAMERA}], got {text!r:.80}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
