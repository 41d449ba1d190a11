"""`python -m threadbridge.cli`."""

from threadbridge.cli import main

if __name__ == "__main__":
    main()
