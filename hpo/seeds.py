"""Named streams of randomness, each from (study seed, trial number, stream): none shifts another."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def derived_seed(study_seed: int, number: int, stream: str) -> int:
    """The seed of one stream of one trial, in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{number}/{stream}".encode()).digest()[:8], "little") >> 1


def configuration_seed(study_seed: int, params: Mapping[str, Any]) -> int:
    """The seed of every trial of one configuration, whatever its `epochs`: the longer can go on from the other."""
    return derived_seed(study_seed, 0, f"training {configuration_key(params)}")


def configuration_key(params: Mapping[str, Any]) -> str:
    """A configuration but for its `epochs`, as text."""
    return json.dumps({k: v for k, v in params.items() if k != "epochs"}, sort_keys=True)


def trial_seed(study_seed: int, number: int) -> int:
    """The seed that a trial's training gets, by its number, or what its study puts in its place (`seed_by`)."""
    return derived_seed(study_seed, number, "training")
