"""`python -m tsmamba` is the command `tsmamba`."""

from tsmamba.cli import main

if __name__ == "__main__":
    main()
