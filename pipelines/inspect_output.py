"""Look into an output, verify, compare, review and compact it: the same as `python -m mint_stream`.

python pipelines/inspect_output.py inspect s3://bucket/out
python pipelines/inspect_output.py verify s3://bucket/out --input s3://bucket/feed
"""

from __future__ import annotations

import sys

from mint_stream.cli.outputs import main

if __name__ == "__main__":
    sys.exit(main())
