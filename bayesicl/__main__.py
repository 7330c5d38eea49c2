"""`python -m bayesicl` is the command `bayesicl`."""

import sys

from bayesicl.cli import main

if __name__ == "__main__":
    sys.exit(main())
