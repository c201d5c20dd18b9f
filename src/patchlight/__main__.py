"""`python -m patchlight` is `patchlight`."""

from patchlight.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
