"""Figures in words."""


def duration(seconds: float) -> str:
    """Seconds as a person says them: `0.4 seconds`, `35 seconds`, `12 minutes`, `3 hours`, `2 days`."""
    if seconds < 2:
        return f"{seconds:.2g} seconds"
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def spread(least: float, most: float) -> str:
    """A range of seconds: `12 to 40 minutes`, or one of the two where they are the same in words."""
    low, high = duration(least), duration(most)
    if low == high:
        return low
    number, unit = low.split()
    return f"{number} to {high}" if unit == high.split()[1] else f"{low} to {high}"
