"""``python -m egtmetrics``."""

from egtmetrics.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
