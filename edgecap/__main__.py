"""``python -m edgecap`` is the command ``edgecap``."""

from edgecap.cli.main import run

if __name__ == "__main__":
    run()
