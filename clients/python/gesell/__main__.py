"""`python -m gesell`: the command line, for environments whose scripts are not on the PATH."""

from gesell.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
