"""`python -m mint_stream`: the same as `mint-stream`."""

from __future__ import annotations

import sys

from mint_stream.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
