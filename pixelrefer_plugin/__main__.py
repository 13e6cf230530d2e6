"""`python -m pixelrefer_plugin`, as launchers of several processes call the command line."""

from .cli import main

main(prog_name="pixelrefer")
