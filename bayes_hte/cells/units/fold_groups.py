"""Fold the labels of grouped rows: groups that then have one key are pooled as parts of a cell are."""

from dataclasses import replace

import numpy as np

from bayes_hte.cells.reading.labels import format_label
from bayes_hte.cells.reading.similar_labels import fold_column
from bayes_hte.cells.units.group_by import GroupedUnits
from bayes_hte.cells.units.scan.unit_rows import UnitColumns
from bayes_hte.errors import ArgumentError


def fold_group_labels(groups: GroupedUnits, columns: UnitColumns, *, control: str) -> tuple[GroupedUnits, list[str]]:
    """Fold arms and levels that differ only in case, spaces or Unicode form; return the groups and notes.

    Raises
    ------
    ArgumentError
        If rows were added up by cluster, and labels would be folded after that.
    """
    row_counts = groups.row_counts.tolist()
    arm_labels, notes = fold_column(
        groups.arm_labels.tolist(), row_counts, columns.arm, preferred=format_label(control)
    )
    level_labels = []
    # Dimensions that are cut hold bins, whose labels are our own.
    for dim, dim_labels in zip(columns.dims, groups.level_labels, strict=True):
        folded_labels, dim_notes = fold_column(dim_labels.tolist(), row_counts, dim)
        level_labels.append(folded_labels)
        notes += dim_notes
    if notes and columns.cluster is not None:
        raise ArgumentError(
            f"{'; '.join(notes)}: after the rows of a cluster are added up, so that one with rows under two spellings "
            "would count twice; fold the labels in the data, and leave out fold_labels"
        )
    if not notes:
        return groups, []
    folded_groups = replace(
        groups,
        arm_labels=np.array(arm_labels, dtype=np.object_),
        level_labels=np.array(level_labels, dtype=np.object_),
    )
    return folded_groups, notes
