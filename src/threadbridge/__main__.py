"""`python -m threadbridge` is `threadbridge`."""

from threadbridge.cli import main

if __name__ == "__main__":
    main()
