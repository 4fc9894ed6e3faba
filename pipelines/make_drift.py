"""Make a stream that drifts: `mint-stream make-drift`, for `ray job submit`."""

from __future__ import annotations

import sys

from mint_stream.cli.make_drift import main

if __name__ == "__main__":
    sys.exit(main())
