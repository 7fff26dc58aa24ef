"""The recipes walk through the rooms in order: images in, networks, labels and figures out."""
