"""Reduce the publisher's file to the cell figures in this folder.

    python examples/hillstrom/make_cells.py PATH_TO_THE_CSV

Kevin Hillstrom, MineThatData E-Mail Analytics and Data Mining Challenge, March 2008:
Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv, 64,000 rows,
SHA-256 0e5893329d8b93cefecc571777672028290ab69865718020c78c7284f291aece. Copies whose line ends were changed from
CRLF to LF are recognised as well. Its licence is not stated, so the rows are not part of this project; the figures
computed from them are.
"""

import hashlib
import sys
from pathlib import Path

import duckdb

PUBLISHED = "0e5893329d8b93cefecc571777672028290ab69865718020c78c7284f291aece"
HERE = Path(__file__).parent
ATTRIBUTES = """
    case when mens = 1 and womens = 1 then 'both' when mens = 1 then 'men''s only' else 'women''s only' end as bought,
    case when newbie = 1 then 'new' else 'known' end as customer,
    case when history < 200 then 'under $200' else '$200 or more' end as spent,
    channel,
    case segment when 'No E-Mail' then 'No e-mail' when 'Mens E-Mail' then 'Men''s e-mail' else 'Women''s e-mail' end
        as arm
"""
FIGURES = """
    count(*) as n, sum(visit)::bigint as visits, sum(conversion)::bigint as conversions,
    avg(spend) as spend_mean, stddev_samp(spend) as spend_sd
"""


def write_cells(rows: duckdb.DuckDBPyRelation, dimensions: list[str], name: str) -> None:
    """One line per combination of levels and arm, with every digit."""
    keys = ", ".join([*dimensions, "arm"])
    labelled = rows.project(f"{ATTRIBUTES}, visit, conversion, spend")
    cells = labelled.aggregate(f"{keys}, {FIGURES}", keys).order(keys).df()
    cells.to_csv(HERE / name, index=False, lineterminator="\n")


def main(path: Path) -> None:
    """Check that this is the published file, then reduce it."""
    published_line_ends = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = hashlib.sha256(published_line_ends).hexdigest()
    if found != PUBLISHED:
        sys.exit(f"{path} is not the published file: its SHA-256 is {found}")
    with duckdb.connect() as connection:
        rows = connection.read_csv(str(path))
        write_cells(rows, ["bought", "customer", "spent"], "cells.csv")
        write_cells(rows, ["channel"], "cells_by_channel.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
