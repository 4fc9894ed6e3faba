"""Outputs in which the guard has said what a test wants it to have said."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.method.guard import ADAPTING
from mint_stream.store.store import Store


def refuse_third_unit(output: str) -> None:
    """Two units that were adapted to, and a third of the same domain that the guard refuses.

    They are the first three of a shard, which must have as many.
    """
    store = Store(output)
    units = sorted(info.name for info in store.list("labels/"))[:3]
    for name, verdict in zip(units, (ADAPTING, ADAPTING, "narrow"), strict=True):
        table = pq.read_table(io.BytesIO(store.read(name)))
        forged = {"guard": verdict, "adapted": verdict == ADAPTING, "bank_domain": 0}
        for column, value in forged.items():
            index = table.schema.get_field_index(column)
            filled = pa.array([value] * table.num_rows, table.schema.field(column).type)
            table = table.set_column(index, table.schema.field(column), filled)
        sink = io.BytesIO()
        pq.write_table(table, sink, write_page_checksum=True)
        store.write(name, sink.getvalue())
