"""Label a stream of images with a CLIP that adapts at test time.

    python pipelines/label_stream.py                                   # a demonstration
    python pipelines/label_stream.py --input s3://bucket/feed --output s3://bucket/out \
        --labels labels.txt --model ViT-B-16 --weights openai
"""

from __future__ import annotations

import sys

from mint_stream.cli.label import main

if __name__ == "__main__":
    sys.exit(main())
