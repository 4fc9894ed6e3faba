"""Compare presets on a stream whose truth is known: accuracy, calibration, cost.

    python pipelines/evaluate.py --input feed --labels feed/labels.txt --output study \
        --model ViT-B-16 --weights openai --presets frozen,paper
"""

from __future__ import annotations

import sys

from mint_stream.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
