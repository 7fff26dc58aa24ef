"""``icsr embed``: features of a folder of images or of a data set, for other tools."""

import json
from pathlib import Path
from typing import Annotated

import typer

from icsr_cli.cli import options
from icsr_cli.cli.console import make_progress, print_json, say
from icsr_cli.errors import UsageError, counted, not_utf8


def embed(
    images: Annotated[
        str, options.some_images(metavar="FOLDER|DATASET", help="A folder of images, or a prepared data set.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the features go: .npz or .parquet.")],
    network: options.Network = None,
    split: options.SplitName = None,
    pattern: options.Pattern = None,
    debias: options.Debias = "none",
    precision: options.Precision = None,
    device: options.Device = None,
    data_root: options.DataRoot = Path("data"),
    runs_root: options.RunsRoot = Path("runs"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write features, paths, cameras and identities (where known), the network's hash and preprocessing.

    The .npz is what icsr labels generate takes: features float32 (n, d) of unit length, paths, cameras, ids.
    The .parquet holds the same, a row for each image, for data bases of vectors.

    Example: icsr embed crops --pattern '{camera}/{name}.jpg' --out features.npz
    """
    import numpy as np

    from icsr_cli.files import whole_file
    from icsr_cli.recipes.debiasing import StoredStatistics, debiased, debiasing
    from icsr_cli.recipes.feature_files import writer
    from icsr_cli.recipes.gallery import embed_readable, images_of, open_embedder

    options.check_out(out, "--out", ".npz", ".parquet")
    save = writer(out.suffix)
    progress = make_progress(quiet, as_json)
    given, camera_names = images_of(images, split, pattern, data_root, progress)
    cameras = given.cameras if camera_names else None
    if out.suffix == ".parquet" and (odd := not_utf8(given.paths)):
        raise UsageError(f"The name {odd[0]!r} is no UTF-8, which .parquet needs: let --out end in .npz.")
    if debias != "none" and cameras is None:
        raise UsageError("--debias needs the camera of each image: say where a path has it by --pattern.")
    embedder = open_embedder(network, runs_root, device, precision, progress)
    how = debiasing(debias, embedder.weights, embedder.size)
    if isinstance(how, StoredStatistics):  # before images are embedded
        how.check_cameras(camera_names, "Let --pattern read the same names")
    features, kept = embed_readable(given.root, given.paths, embedder, progress, "Features")
    ids = given.identities if given.has_identities else None
    known = {"paths": np.array(given.paths), "cameras": cameras, "ids": ids, **given.when()}
    columns = {name: values[kept] for name, values in known.items() if values is not None}
    about = {
        "network": embedder.checksum(),
        "weights": str(embedder.weights),
        "arch": embedder.network.arch,
        "height": embedder.size[0],
        "width": embedder.size[1],
        "resize": "bicubic with antialiasing",
        "normalisation": embedder.network.norm.name,
        "mean": embedder.network.norm.mean,
        "std": embedder.network.norm.std,
        "debias": debias,
        "camera_names": camera_names,
    }
    if cameras is not None:
        features = debiased(features, cameras[kept], camera_names, how, progress)

    with whole_file(out) as temporary:
        save(temporary, features, columns, json.dumps(about))
    shown = {"out": str(out), "images": len(kept), "features": features.shape[1], "columns": list(columns)}
    print_json({**shown, **about}) if as_json else say(
        f"Written to {out}: {counted(len(kept), 'image')}, {features.shape[1]} features each, "
        + ", ".join(columns),
        whole=True,
    )
