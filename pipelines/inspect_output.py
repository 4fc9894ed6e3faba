"""Look into an output: `mint-stream inspect`, `verify` and the rest, as a script."""

from __future__ import annotations

import sys

from mint_stream.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
