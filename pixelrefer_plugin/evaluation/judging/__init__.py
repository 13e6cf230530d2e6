"""Judges of answers: where they are asked, what they said before, and the tools that a benchmark scores with.

It knows no benchmark. What a judge says is text from outside: it is bounded, kept as it came, and read by benchmarks.
"""

from .judge import Judge
from .server import JudgeServer
from .tools import ScoringTools

__all__ = ["Judge", "JudgeServer", "ScoringTools"]
