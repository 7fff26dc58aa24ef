"""Similarity or neighbours -> labels. One file per clusterer, found by its name (``icsr_cli.choices``)."""
