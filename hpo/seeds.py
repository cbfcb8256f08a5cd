"""Named streams of randomness, each from (study seed, trial number, stream): none shifts another."""

import hashlib


def derived_seed(study_seed: int, number: int, stream: str) -> int:
    """The seed of one stream of one trial, in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(f"{study_seed}/{number}/{stream}".encode()).digest()[:8], "little") >> 1


def trial_seed(study_seed: int, number: int) -> int:
    """The seed that a trial's training gets; a retry and a resume keep it."""
    return derived_seed(study_seed, number, "training")
