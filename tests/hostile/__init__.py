"""Hostile input: everything that takes a file or a value from outside, tried on what nobody should send.

    python -m tests.hostile.run --inputs 10000 --seed 0

A kind (`kinds/`) makes an input from a seed and a number, and says what to try on it. A worker process (`worker`) tries
it while `guard` watches what it does; the parent (`run`) watches its time and memory. Two outcomes are right: it works,
or an error of this package says why not.
"""

import sys
from pathlib import Path

# The helpers of the tests beside this package are imported by their bare names, as pytest has them.
if (_TESTS := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.insert(0, _TESTS)
