"""``python -m icsr_cli`` is ``icsr``."""

from icsr_cli.cli.main import run

if __name__ == "__main__":
    run()
