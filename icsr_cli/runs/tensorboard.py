"""Metrics as event files, for those who watch a run in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icsr_cli.errors import MissingExtraError
from icsr_cli.plain_yaml import flat


def writer_class() -> Any:
    """Give torch's SummaryWriter.

    Raises:
        MissingExtraError: where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard", error) from None
    return SummaryWriter


def write_events(folder: Path, line: Mapping[str, Any]) -> None:
    """Write the numbers of one finished epoch below ``folder``, in a file of its own.

    A file per epoch is whole when it is closed, and a resumed run only adds files.
    """
    with writer_class()(log_dir=str(folder / str(line.get("part", "global")))) as writer:
        for name, value in flat(line):
            if isinstance(value, int | float) and name != "epoch":
                writer.add_scalar(name.replace(".", "/"), float(value), global_step=line["epoch"])
