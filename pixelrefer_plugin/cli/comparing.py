"""`pixelrefer evaluate --adapters`: ways of pointing at regions, compared on one backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..errors import counted
from ..evaluation.predicting.processes import is_first_process, join_the_others, leave_the_others
from .asking import loading, torch_device
from .reporting import INTERRUPTED

if TYPE_CHECKING:
    from ..evaluation.reports.report import BenchmarkReport
    from ..evaluation.scoring.comparing import HowCompared
    from ..evaluation.scoring.measuring import Scorer
    from ..evaluation.scoring.opening import OpenBenchmark
    from ..evaluation.scoring.ways import Way


def compare(
    model: str,
    ways: Sequence[Way],
    opened: Sequence[OpenBenchmark],
    how: HowCompared,
    scorer: Scorer | None,
    *,
    device: str,
    dtype: str,
) -> list[BenchmarkReport]:
    """Ask every way, then score the answers; none where they are only made, and in every process but the first.

    Args:
        model: a plain backbone.
        ways: those of `--adapters`.
        opened: the benchmarks.
        how: how the ways are asked.
        scorer: None where answers are made alone.
        device: of `--device`.
        dtype: of `--dtype`.
    """
    from ..evaluation.scoring.comparing import ComparedBackbone, ask_in_ways, reports_of

    place = torch_device(device)
    with loading(model):
        backbone = ComparedBackbone(model, device=place, options={"dtype": dtype})
    backbone.require_ways(ways)
    try:
        join_the_others(device)
        if is_first_process():
            for each in opened:
                asked = counted(len(each.questions), "question")
                click.echo(f"{each.spec.name}: {asked}, in {counted(len(ways), 'way')} each", err=True)
        found = ask_in_ways(backbone, ways, opened, how)
    except KeyboardInterrupt:
        click.echo("\nStopped. What is answered is kept: the same command goes on from there.", err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        leave_the_others()
    if not is_first_process():
        return []
    if scorer is None:
        paths = [str(how.path(way, each)) for way in ways for each in opened]
        click.echo(f"answers: {', '.join(paths)}")
        return []
    return reports_of(found, opened, ways, backbone, scorer, why_fewer=f"--limit {how.limit}")
