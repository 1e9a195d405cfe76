"""The rows and files of a split, and whether they are those of another."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmrgen.storage.provenance import read_provenance


def rows(folder, split="lenet"):
    """Every stored value of a split of the config mnist by id, images as their bytes."""
    found = {}
    for path in sorted(Path(folder).glob(f"mnist/{split}-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["id"] not in found, "doubled"
            found[row["id"]] = row
    return found


def assert_same_rows(found, expected):
    """The same rows: integers and images equal, floats within float noise.

    On a processor whose kernels round differently for other numbers of threads, a gradient within that noise of zero
    may tip its sign step, and the image with it: one row in thirty may.
    """
    assert found.keys() == expected.keys()
    tipped = []
    for i, row in found.items():
        floats = {name for name, value in row.items() if isinstance(value, float)}
        exact = all(row[name] == expected[i][name] for name in row.keys() - floats)
        if not exact or any(row[name] != pytest.approx(expected[i][name], abs=1e-4) for name in floats):
            tipped.append(i)
    assert len(tipped) <= len(found) // 30, tipped


def parts(folder, pattern="**/*.parquet"):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).glob(pattern))


def alter(shard, column, change):
    """Rewrites a column of a shard; `change` gets the list of its values and changes that."""
    table = pq.read_table(shard)
    values, place, field = table[column].to_pylist(), table.schema.get_field_index(column), table.schema.field(column)
    change(values)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), shard)


def unfinish(paths, **changes):
    """Make a finished split one that a killed repair has left: all of it is there, and not marked as finished."""
    provenance = read_provenance(paths).model_copy(update={"finished": False, **changes})
    paths.begun.write_bytes(provenance.encoded)
    paths.provenance.unlink()
