"""A Gaussian process over learning curves: what a configuration will reach at an epoch, and how sure that is.

Covariance of two observations (x, t), (x', t'), with t = log(epoch) / log(R) in [0, 1]:

    scale · M52(x, x') · T(t, t')  +  offset · [same configuration] · T(t, t')  +  noise · [same observation]
      +  1 + t · t'
    T(t, t') = 0.3 + 0.7 · M32(t, t')

M52 is Matérn 5/2 with a length for each coordinate, M32 Matérn 3/2. So configurations that are alike have curves that
are alike, and a curve's own level, once seen, stays with it. The last two terms are a straight line in t that all
curves share, its level and slope learned from them: curves rise. The idea of freezing and thawing on such a model:
Swersky, Snoek, Adams 2014, arXiv:1406.3896.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FLOOR = 0.3
"""How alike two epochs of one curve are at least."""
_PRIOR_LENGTH, _PRIOR_TIME = 0.5, 0.4
_PRIOR_NOISE, _PRIOR_OFFSET, _PRIOR_SCALE = 0.1, 0.1, 1.0
_PRIOR_SPREAD = (1.0, 0.5, 1.0, 1.0, 0.5)
"""Of the logarithms of lengths, time, noise, offset, scale."""
_MAX_ITERATIONS = 8
_JITTER = 1e-6


@dataclass(frozen=True, slots=True)
class Rows:
    """Observations.

    Attributes:
        points: float64 [n, d], configurations as coordinates.
        times: float64 [n] in [0, 1].
        owners: int64 [n], which configuration each belongs to.
        values: float64 [n], about standard normal; more is better.
    """

    points: Floats
    times: Floats
    owners: Ints
    values: Floats

    def parts(self) -> tuple[Floats, Floats, Ints, Floats]:
        """Its four arrays."""
        return self.points, self.times, self.owners, self.values

    def at(self, rows: Ints) -> "Rows":
        """Some of them."""
        return Rows(self.points[rows], self.times[rows], self.owners[rows], self.values[rows])


def _prior(n_columns: int) -> tuple[Floats, Floats]:
    """Means and standard deviations of the logarithms of all parameters: lengths [d], time, noise, offset, scale."""
    # More coordinates lie further apart: lengths grow with their root (Hvarfner et al. 2024, arXiv:2402.02229).
    length = math.log(_PRIOR_LENGTH) + 0.5 * math.log(max(1.0, n_columns / 4))
    others = np.log([_PRIOR_TIME, _PRIOR_NOISE, _PRIOR_OFFSET, _PRIOR_SCALE])
    means = np.concatenate([np.full(n_columns, length), others])
    return means, np.concatenate([np.full(n_columns, _PRIOR_SPREAD[0]), _PRIOR_SPREAD[1:]])


def fit(rows: Rows) -> Floats:
    """The parameters' logarithms of greatest posterior probability: float64 [d + 4].

    Raises:
        np.linalg.LinAlgError: the covariance of what was observed can't be inverted.
    """
    n_columns = rows.points.shape[1]
    means, spreads = _prior(n_columns)
    squares = np.square(rows.points[:, None, :] - rows.points[None, :, :])  # [n, n, d]
    gaps = np.abs(rows.times[:, None] - rows.times[None, :])
    same = (rows.owners[:, None] == rows.owners[None, :]).astype(float)
    target = rows.values
    eye = np.eye(len(target))
    line = 1 + rows.times[:, None] * rows.times[None, :]

    def cost(theta: Floats) -> tuple[float, Floats]:
        inverse_squares = np.exp(-2 * theta[:n_columns])
        time, noise, offset, scale = np.exp(theta[n_columns:])
        distance = np.sqrt(np.maximum(squares @ inverse_squares, 0.0)) * math.sqrt(5)
        decay = np.exp(-distance)
        near = (1 + distance + distance**2 / 3) * decay
        age = math.sqrt(3) * gaps / time
        aging = np.exp(-age)
        alike = _FLOOR + (1 - _FLOOR) * (1 + age) * aging
        shared, own = scale * near * alike, offset * same * alike
        lower = cholesky(shared + own + line + (noise + _JITTER) * eye, lower=True, check_finite=False)
        inverse = cho_solve((lower, True), eye, check_finite=False)
        weights = inverse @ target
        standing = (theta - means) / spreads
        value = 0.5 * target @ weights + np.log(np.diag(lower)).sum() + 0.5 * standing @ standing
        # d cost / dK = (K^-1 - w w^T) / 2; each parameter's dK is weighed with it.
        outer = 0.5 * (inverse - np.outer(weights, weights))
        # d M52 / d log length_j = (5/3) (1 + distance) exp(-distance) · square_j / length_j²
        pull = outer * (scale * alike * (5 / 3) * (1 + distance) * decay)
        gradient = np.empty_like(theta)
        gradient[:n_columns] = np.einsum("ij,ijd->d", pull, squares) * inverse_squares
        ageing = (1 - _FLOOR) * age**2 * aging  # d alike / d log time
        gradient[n_columns] = (outer * (scale * near + offset * same) * ageing).sum()
        gradient[n_columns + 1] = noise * np.trace(outer)
        gradient[n_columns + 2] = (outer * own).sum()
        gradient[n_columns + 3] = (outer * shared).sum()
        return float(value), gradient + standing / spreads

    bounds = list(zip(means - 3 * spreads, means + 3 * spreads, strict=True))
    found = minimize(cost, means, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _MAX_ITERATIONS})
    if not np.isfinite(found.x).all():
        raise np.linalg.LinAlgError("the fit is not finite")
    best: Floats = found.x
    return best


class Posterior:
    """What the observations say of other configurations and epochs, under given parameters.

    Raises:
        np.linalg.LinAlgError: the covariance can't be inverted.
    """

    def __init__(self, rows: Rows, theta: Floats) -> None:
        n_columns = rows.points.shape[1]
        self._rows, self._theta = rows, theta
        self._inverse_lengths = np.exp(-theta[:n_columns])
        self._time, self._noise, self._offset, self._scale = np.exp(theta[n_columns:])
        self._scaled = rows.points * self._inverse_lengths
        covariance = self._covariance(self._scaled, rows.times, rows.owners)
        covariance[np.diag_indices_from(covariance)] += self._noise + _JITTER
        self._lower = cholesky(covariance, lower=True, check_finite=False)
        self._weights = cho_solve((self._lower, True), rows.values, check_finite=False)

    def predict(self, points: Floats, times: Floats, owners: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation, each float64 [m], of noise-free values; owner -1 is a configuration not seen."""
        across = self._covariance(points * self._inverse_lengths, times, owners)  # [m, n]
        mean = across @ self._weights
        solved = solve_triangular(self._lower, across.T, lower=True, check_finite=False)
        variance = self._scale + self._offset + 1 + times**2 - np.einsum("ij,ij->j", solved, solved)
        return mean, np.sqrt(np.maximum(variance, 1e-10))

    def given(self, more: Rows) -> "Posterior":
        """The posterior with more observations, under the same parameters."""
        pairs = zip(self._rows.parts(), more.parts(), strict=True)
        return Posterior(Rows(*(np.concatenate(pair) for pair in pairs)), self._theta)

    def _covariance(self, scaled: Floats, times: Floats, owners: Ints) -> Floats:
        a, b = scaled, self._scaled
        squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
        distance = np.sqrt(np.maximum(squares, 0.0)) * math.sqrt(5)
        near = (1 + distance + distance**2 / 3) * np.exp(-distance)
        age = math.sqrt(3) / self._time * np.abs(times[:, None] - self._rows.times[None, :])
        alike = _FLOOR + (1 - _FLOOR) * (1 + age) * np.exp(-age)
        same = (owners[:, None] == self._rows.owners[None, :]) & (owners[:, None] >= 0)
        line = 1 + times[:, None] * self._rows.times[None, :]
        together: Floats = (self._scale * near + self._offset * same) * alike + line
        return together
