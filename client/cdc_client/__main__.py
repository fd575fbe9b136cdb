"""The entry of the command `cdc`, also `python -m cdc_client`. Says what to install where the extra `cli` is not."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; exit code 1 without the packages it needs."""
    try:
        from cdc_client.command.app import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit(f"cdc: the command needs the package {error.name}: pip install 'cdc-client[cli]'")
    run()


if __name__ == "__main__":
    main()
