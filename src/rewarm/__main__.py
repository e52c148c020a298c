"""`python -m rewarm` is the command `rewarm`."""

import sys

from rewarm.cli import main

if __name__ == "__main__":
    sys.exit(main())
