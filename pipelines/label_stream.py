"""Label a stream of images: `mint-stream label`, for `ray job submit`."""

from __future__ import annotations

import sys

from mint_stream.cli.label import main

if __name__ == "__main__":
    sys.exit(main())
