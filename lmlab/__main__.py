"""`python -m lmlab` is `lmlab`."""

import sys

from lmlab.cli.main import main

if __name__ == "__main__":  # processes that multiprocessing starts import this module by another name
    sys.exit(main())
