import grimp


def test_no_two_files_import_each_other():
    """The contract of circles never holds a package's own ``__init__`` against the files in it."""
    house = grimp.build_graph("icsr_cli", cache_dir=None)
    known = {name: house.find_modules_directly_imported_by(name) for name in house.modules}
    assert [(one, other) for one in known for other in known[one] if one in known[other]] == []
