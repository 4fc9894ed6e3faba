"""`python -m mint_stream`: look into an output, verify, compare, review and compact it."""

from __future__ import annotations

import sys

from mint_stream.cli.outputs import main

if __name__ == "__main__":
    sys.exit(main())
