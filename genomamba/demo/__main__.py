"""`python -m genomamba.demo` runs the demo."""

from genomamba.demo.steps import main

if __name__ == "__main__":
    raise SystemExit(main())
