"""Evidence and labels -> better labels. One file per refiner, found by its name (``icsr_cli.choices``)."""
