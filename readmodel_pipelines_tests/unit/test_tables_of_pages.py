"""The tables of Dagster's pages: a column that no row fills is an error, not an empty column."""

import pytest

from readmodel_pipelines.orchestration.tables import table, table_of_numbers


def test_a_table_has_its_columns_and_nothing_else_of_the_rows() -> None:
    made = table(
        [{"field": "title", "documents": 2, "other": "x"}], {"field": "Its name", "documents": None}, ["documents"]
    )
    assert [(column.name, column.type) for column in made.schema.columns] == [("field", "string"), ("documents", "int")]
    assert [dict(record.data) for record in made.records] == [{"field": "title", "documents": 2}]


def test_a_column_that_a_row_lacks_is_an_error() -> None:
    with pytest.raises(KeyError):
        table([{"field": "title"}], {"The field": None})


def test_numbers_stand_beside_their_names() -> None:
    made = table_of_numbers({"events": "7"})
    assert [[record.data[column.name] for column in made.schema.columns] for record in made.records] == [
        ["events", "7"]
    ]
