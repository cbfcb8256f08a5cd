"""Whether what `hpo.confirm` says holds: studies whose true means are known, again and again.

python benchmarks/confirmation.py --json confirmation.json

Each repetition draws K true means (all equal, evenly spread, or one clear winner) and a hundred configurations' search
values, takes the best K of those as a search does, draws S values of each, and asks `hpo.confirmation` for intervals.
Printed: how often a configuration's own interval holds its true mean, how often the winner's does (beside the plain t
interval's, which does not allow for the choice), how often that of the winner's difference to a baseline does, how
often no other one is better than the winner by more than was said, and the search's optimism on average, beside the
true one.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hpo.confirmation import Confirmation, Retrained, confirmed  # noqa: E402

N_SEARCHED = 100
NOISE = 0.01
"""Of a training's value, from seed to seed; a share of it is the seed's own, the same for all configurations."""
SHARED = 0.5
SPREADS = {"equal": 0.0, "evenly_spread": 0.02, "clear_winner": 0.0}
"""Of the true means from worst to best."""
WIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Of one kind of study: shares of repetitions, and means over them."""

    means: str
    k: int
    seeds: int
    shared: float
    own: float
    winner: float
    winner_plain: float
    difference: float
    regret: float
    optimism: float
    optimism_true: float
    optimism_error: float


def main() -> int:
    """Simulate, print, and write what was found."""
    options = _parser().parse_args()
    n = 300 if options.quick else options.repetitions
    cases = [(means, k, seeds, SHARED) for means in SPREADS for k, seeds in ((5, 5), (2, 2), (6, 3))]
    rows = [measured(*case, n) for case in [*cases, *((means, 5, 5, 0.0) for means in SPREADS)]]
    columns = "K | S | shared | own interval | winner's | plain t | difference | regret | optimism | true | error"
    print(f"| true means | {columns} |")
    print("|---" * 12 + "|")
    for row in rows:
        print(
            f"| {row.means} | {row.k} | {row.seeds} | {row.shared:g} | {row.own:.2%} | {row.winner:.2%} "
            f"| {row.winner_plain:.2%} | {row.difference:.2%} | {row.regret:.2%} "
            f"| {row.optimism:+.5f} | {row.optimism_true:+.5f} | {row.optimism_error:.5f} |"
        )
    if options.json:
        from benchmarks.report import write

        write(options.json, [asdict(row) for row in rows], dict(_ratios(rows)), ("scipy", "numpy"), repetitions=n)
    return 0


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="300 repetitions")
    found.add_argument("--json", type=Path, metavar="PATH", help="write machine, versions, samples and ratios")
    found.add_argument("--repetitions", type=int, default=5_000, metavar="N", help="of each kind of study")
    return found


def measured(means: str, k: int, seeds: int, shared: float, n: int) -> Row:
    """Simulate one kind of study `n` times."""
    own, winner, plain, difference, regret, seen, true = [], [], [], [], [], [], []
    its_own = NOISE * np.sqrt(1 - shared)
    for repetition in range(n):
        rng = np.random.default_rng([repetition, k, seeds])
        of_all = np.linspace(0.6, 0.6 - SPREADS[means], N_SEARCHED)
        if means == "clear_winner":
            of_all[0] += WIN
        searched = of_all + rng.normal(0, NOISE, N_SEARCHED)
        best = np.argsort(-searched)[:k]
        of_seeds = rng.normal(0, NOISE * np.sqrt(shared), seeds)
        values = of_all[best, None] + of_seeds + rng.normal(0, its_own, (k, seeds))
        retrained = [_retrained(int(i), searched, row) for i, row in zip(best, values, strict=True)]
        said = _said(retrained)
        if (last := N_SEARCHED - 1) not in best:
            row = of_all[last] + of_seeds + rng.normal(0, its_own, seeds)
            beside = _said([*retrained, _retrained(last, searched, row, is_baseline=True)])
            if (found := beside.difference) is not None:
                difference.append(found.low <= of_all[beside.best.trial] - of_all[last] <= found.high)
        own += [one.estimate.low <= of_all[one.trial] <= one.estimate.high for one in said.configurations]
        truth = of_all[said.best.trial]
        winner.append(said.winner.low <= truth <= said.winner.high)
        plain.append(said.best.estimate.low <= truth <= said.best.estimate.high)
        regret.append(said.regret is not None and of_all[best].max() - truth <= said.regret)
        seen.append(said.optimism or 0.0)
        true.append(float(np.mean(searched[best] - of_all[best])))
    errors = np.array(seen) - np.array(true)
    return Row(
        means=means, k=k, seeds=seeds, shared=shared, own=float(np.mean(own)), winner=float(np.mean(winner)),
        winner_plain=float(np.mean(plain)), difference=float(np.mean(difference)), regret=float(np.mean(regret)),
        optimism=float(np.mean(seen)), optimism_true=float(np.mean(true)),
        optimism_error=float(errors.std() / np.sqrt(n)),
    )  # fmt: skip


def _retrained(i: int, searched: "np.ndarray", values: "np.ndarray", *, is_baseline: bool = False) -> Retrained:
    return Retrained(
        trial=i, params={}, is_baseline=is_baseline, searched=float(searched[i]), trials=tuple(range(len(values))),
        values=tuple(map(float, values)),
    )  # fmt: skip


def _said(retrained: list[Retrained]) -> Confirmation:
    return confirmed(retrained, study="simulated", metric="val_accuracy", direction="maximize")


def _ratios(rows: list[Row]) -> Iterator[tuple[str, float]]:
    for row in rows:
        name = f"{row.means}.k{row.k}.s{row.seeds}.shared{row.shared:g}"
        yield f"{name}.own", row.own
        yield f"{name}.winner", row.winner
        yield f"{name}.difference", row.difference
        yield f"{name}.regret", row.regret
        yield f"{name}.optimism_bias_in_errors", abs(row.optimism - row.optimism_true) / row.optimism_error


if __name__ == "__main__":
    sys.exit(main())
