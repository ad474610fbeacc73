"""`python -m grover_dist` is the same as `grover-dist`."""

from grover_dist.cli import main

if __name__ == "__main__":
    main()
