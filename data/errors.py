"""The one error of this package."""

from collections.abc import Iterator
from dataclasses import dataclass, field


def printable(text: object) -> str:
    """A name on one line, whatever bytes it is made of: nobody's file may move a terminal's cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


class DataError(Exception):
    """The data at hand can't be used; the message is one line a fault and says what was found and what is needed."""

    def __str__(self) -> str:
        return "\n".join(printable(line) for line in super().__str__().split("\n"))


@dataclass(slots=True)
class RowFaults:
    """Collects what is wrong with single rows: the first five in words, the others as a count.

    Rows and pixels are counted from 1; a header is not a row.
    """

    path: str
    shown: int = 5
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, row: int, found: str, need: str) -> None:
        """Note that `row` holds `found` where `need` is needed."""
        self.count += 1
        if len(self.lines) < self.shown:
            self.lines.append(f"{self.path}: row {row}: found {found}, need {need}")

    def raise_if_any(self) -> None:
        """Raise `DataError` with all that was noted; do nothing where nothing was."""
        if self.count:
            raise DataError("\n".join(self._all_lines()))

    def _all_lines(self) -> Iterator[str]:
        yield from self.lines
        if self.count > len(self.lines):
            yield f"{self.path}: and {self.count - len(self.lines)} more bad rows"
