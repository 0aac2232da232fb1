"""`python -m bench` is the `trainpace` command."""

from bench.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
