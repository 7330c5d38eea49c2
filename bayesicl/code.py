"""Which code a fit was made with."""

import hashlib
from functools import cache
from pathlib import Path

from bayesicl.law import laws

SHARED = (
    "law", "scale", "priors", "coordinates", "noise", "noises", "process", "misfit", "population",
    "special", "program", "posterior", "device", "lanes", "strides", "nuts", "warmup", "jumps",
    "chains", "draws", "settings", "engine", "retry", "convergence", "diagnose", "labels",
    "identify", "importance", "summary",
)  # fmt: skip


@cache
def code_hash() -> str:
    """SHA-256 of what every fit depends on besides its law's file: shared parts and engine."""
    files = [Path(__file__).with_name(f"{name}.py") for name in SHARED]
    files += [Path(law.path) for law in laws().values()]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
