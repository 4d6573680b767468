"""Folders of the checkout that tests read, whatever folder a test stands in."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "tests" / "reference"
