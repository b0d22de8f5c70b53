"""The stack, one concern a file, from `config` to `stack`: network, roles, shelf (EFS), inbox (S3), API, monitoring …

Nothing here reads the environment: `app.py` hands over a Config. Importing it synthesises nothing.
"""

import os
import sys
from pathlib import Path

INFERENCE_DIR = Path(__file__).resolve().parent.parent / "inference"

# scripts/destroy finds the stacks and images of this project by these, also those of earlier deployments.
DESCRIPTION = "Finds the recorded AI incidents most like a text"
IMAGE_TAG_PREFIX = "similar-incidents-"

# The stack asks `similarity` which files are Lambdas and what their settings are called.
if str(INFERENCE_DIR) not in sys.path:
    sys.path.insert(0, str(INFERENCE_DIR))

# Read when aws_cdk is first imported, which only this package's modules do; without it the two alpha packages print
# some 80 lines saying that they graduated.
os.environ.setdefault("JSII_DEPRECATED", "quiet")
