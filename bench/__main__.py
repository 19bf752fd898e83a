"""`python -m bench`: the command `gesell bench`, for environments whose scripts are not on the PATH."""

from cyclopts import run

from bench.commands import bench

if __name__ == "__main__":
    run(bench)
