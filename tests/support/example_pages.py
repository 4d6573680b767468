"""Read the pages of the examples: what they say is held to fresh runs."""

import re

from paths import ROOT

EXAMPLES = ROOT / "examples"


def readme(name: str) -> str:
    """Read an example's page, with plain minus signs."""
    return (EXAMPLES / name / "README.md").read_text(encoding="utf-8").replace("−", "-")


def readme_tables(name: str) -> list[list[list[str]]]:
    """Cells of the tables in an example's README, without the headings."""
    blocks = re.findall(r"(?:^\|.*\n)+", readme(name), re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [table[2:] for table in rows]
