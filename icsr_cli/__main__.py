"""The executable ``icsr``, and ``python -m icsr_cli``."""

import signal


def run() -> None:
    """Load the commands, and run the one that is typed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while they load leaves no traceback
    from icsr_cli.cli.main import run as run_command

    run_command()


if __name__ == "__main__":
    run()
