"""Parameters -> optimiser and schedule. One file per optimiser, found by its name (``icsr_cli.choices``)."""
