"""An epoch's labels -> loss and update. One file per memory, found by its name (``icsr_cli.choices``)."""
