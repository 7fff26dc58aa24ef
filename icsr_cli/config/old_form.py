"""Settings as they were written before every part was chosen by ``method``: read, with a word."""

from typing import Any

Tree = dict[str, Any]


def upgrade(tree: Tree) -> tuple[Tree, list[str]]:
    """Give the tree in today's form, and a line for each key that was moved.

    ``clustering: {method, options}`` is ``clusterer``, ``refinement: {method, ...}`` is ``refiners``, and
    ``images_per_cluster`` belongs to the clusterer of the cam stage. What is odd stays as it
    is: the schema refuses it.
    """
    new, notes = dict(tree), []
    for stage in ("cam", "global"):
        if isinstance(tree.get(stage), dict):
            new[stage], moved = _stage(dict(tree[stage]))
            notes += [f"{stage}.{old} is now {stage}.{now}" for old, now in moved]
    return new, notes


def _stage(own: Tree) -> tuple[Tree, list[tuple[str, str]]]:
    moved = []
    if isinstance(old := own.get("clustering"), dict) and isinstance(old.get("options") or {}, dict):
        del own["clustering"]
        method = {"method": old["method"]} if "method" in old else {}
        own["clusterer"] = {**method, **(old.get("options") or {})}
        moved.append(("clustering", "clusterer"))
    if isinstance(own.get("refinement"), dict):
        old = dict(own.pop("refinement"))
        name = str(old.pop("method", "discard"))
        own["refiners"] = [] if name == "none" else [{"method": name, **old}]
        clusterer = _with_keys(own.get("clusterer"))
        if clusterer.get("method") == "infomap" and "k" in old:
            own["clusterer"] = {"k": old["k"], **clusterer}  # both worked on one graph
        moved.append(("refinement", "refiners"))
    clusterer = {"method": "average-linkage", **_with_keys(own.get("clusterer"))}
    if "images_per_cluster" in own and clusterer["method"] == "average-linkage":
        own["clusterer"] = {**clusterer, "images_per_cluster": own.pop("images_per_cluster")}
        moved.append(("images_per_cluster", "clusterer.images_per_cluster"))
    return own, moved


def _with_keys(choice: Any) -> Tree:
    """Give a choice with its keys, which may be its name alone; nothing for what is neither."""
    return {"method": choice} if isinstance(choice, str) else choice if isinstance(choice, dict) else {}
