"""``icsr labels``: its commands, a file each."""

from __future__ import annotations

from icsr_cli.cli.help import Commands
from icsr_cli.cli.labels_generate import generate
from icsr_cli.cli.labels_inspect import inspect
from icsr_cli.cli.labels_review import review

app = Commands(no_args_is_help=True, help="Look at pseudo labels, or make them from features.")
app.command()(generate)
app.command(epilog="Example: icsr labels review --questions 100")(review)
app.command(epilog="Example: icsr labels inspect --epoch 3 --cluster 12")(inspect)
