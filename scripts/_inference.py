"""Importing this makes `inference/` an import root, as it is in the image: `from similarity.state import ...`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INFERENCE_DIR = ROOT / "inference"

if str(INFERENCE_DIR) not in sys.path:
    sys.path.insert(0, str(INFERENCE_DIR))
