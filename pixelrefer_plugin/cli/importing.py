"""`pixelrefer import-official`: an official checkpoint becomes a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import CheckedCommand, setting_option
from .reporting import quiet_libraries
from .values import MODEL, TEXT, WRITTEN


@click.command("import-official", cls=CheckedCommand, short_help="Make a model folder of a published checkpoint.")
@click.argument("src", metavar="DIR_OR_ID", type=MODEL)
@click.argument("out", type=WRITTEN)
@click.option(
    "--vision-tower", metavar="DIR_OR_ID", type=MODEL, help="The vision tower, if not where the checkpoint says."
)
@setting_option(
    "--adapter-option",
    "adapter_options",
    help="An option of the adapter, in place of the official one.",
)
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Of the backbone's weights. [as they are]"
)
@click.option("--revision", type=TEXT, help="Of the hub's repository.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier model folder.")
def import_official(
    src: str, out: Path, adapter_options: tuple[tuple[str, Any], ...], revision: str | None, **options: Any
) -> None:
    """Make a model folder of a checkpoint that an adapter's authors published.

    The adapter is the one whose plugin reads checkpoints of that type. The result holds backbone, adapter and
    processor, and loads anywhere by its path. Nothing in the checkpoint is executed.

    \b
    Example:
      pixelrefer import-official OWNER/CHECKPOINT models/official
      pixelrefer describe street.jpg --model models/official --box 40,30,120,180
    """
    from ..official import import_official as imported

    quiet_libraries()
    where: dict[str, Any] = {"revision": revision} if revision else {}
    click.echo(imported(src, out, adapter_options=dict(adapter_options), **options, **where))
