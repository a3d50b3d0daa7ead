"""Exact questions about tensors: are the bits equal, how far apart are they, change one of them."""

from nondet_probe.bits.compare import (
    ULP_BUCKETS,
    ULP_MAX,
    Comparison,
    bit_equal,
    compare,
    count_different,
    ulp_distance,
)
from nondet_probe.bits.digest import DIGEST_FORMAT, Digest, digest
from nondet_probe.bits.flip import BitChange, flip_bit, step_ulp
from nondet_probe.bits.sketch import SKETCH_FORMAT, sketch, sketch_distance, sketch_norm

__all__ = [
    "DIGEST_FORMAT",
    "SKETCH_FORMAT",
    "ULP_BUCKETS",
    "ULP_MAX",
    "BitChange",
    "Comparison",
    "Digest",
    "bit_equal",
    "compare",
    "count_different",
    "digest",
    "flip_bit",
    "sketch",
    "sketch_distance",
    "sketch_norm",
    "step_ulp",
    "ulp_distance",
]
