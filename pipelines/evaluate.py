"""Compare presets on a stream whose truth is known: `mint-stream evaluate`, as a script."""

from __future__ import annotations

import sys

from mint_stream.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
