"""`pixelrefer samples`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import CheckedCommand
from .values import WRITTEN


@click.command(cls=CheckedCommand, short_help="Write pictures, a clip and data files to try the commands with.")
@click.argument("folder", metavar="[FOLDER]", type=WRITTEN, default=Path())
@click.option("--overwrite", is_flag=True, help="Replace files of the same names.")
def samples(folder: Path, overwrite: bool) -> None:
    """Write pictures, a clip and data files that the commands of the documentation name, into FOLDER or here.

    street.jpg, kitchen.jpg, new.jpg, street.mp4, a mask, files of questions, and a COCO file with exact boxes and masks
    of more streets and kitchens. All are drawn by code; SAMPLES.txt has the list and the licence. Needs no network.

    \b
    Example:
      pixelrefer samples
      pixelrefer samples try --overwrite
    """
    from ..samples.writing import Samples, write_samples

    written = write_samples(Samples(folder, overwrite=overwrite))
    click.echo(f"written to {folder}: " + ", ".join(path.name for path in written if path.parent == folder))
    click.echo(f"and {len(written) - sum(path.parent == folder for path in written)} pictures in {folder / 'images'}")
