"""`python -m genomamba` is the same program as `genomamba`."""

from genomamba.cli import main

if __name__ == "__main__":
    main()
