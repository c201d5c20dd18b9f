"""`python -m patchlight` is `patchlight`."""

from patchlight.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
