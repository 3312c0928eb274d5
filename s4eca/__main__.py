"""`python -m s4eca`: the `s4eca` command."""

from s4eca.cli.main import main

if __name__ == "__main__":
    main()
