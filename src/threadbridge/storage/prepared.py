"""Statements of the hot paths: compiled once, then handed to the driver as they are.

    _HEARD = Prepared(lambda insert: insert(s).on_conflict_do_nothing().returning(s.c.uri), ["uri", "peer_uri", "at"])
    first = _HEARD.first(tx, uri=…, peer_uri=…, at=tx.now) is not None

Building a Core statement and taking it through SQLAlchemy's execution costs five to twenty times what SQLite needs to
run it, and these run several times for every activity that arrives. Rule: values pass through the same conversions as
everywhere (`Moment`), what the driver raises arrives as SQLAlchemy's errors, and everything happens on the
transaction's own connection, so that a prepared statement and a Core one may stand side by side.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Delete, Insert, Select, Table, Update, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from threadbridge.storage.store import Tx

Statement = Select[Any] | Insert | Update | Delete
InsertInto = Callable[[Table], sqlite.Insert]
Convert = Callable[[Any], Any]


class Prepared:
    """One statement. `build` is given the dialect's own `insert` (which knows ON CONFLICT) and returns the statement,
    its values named by `bindparam`; `columns` are those that an INSERT is given (by their names)."""

    def __init__(self, build: Callable[[InsertInto], Any], columns: Sequence[str] | None = None) -> None:
        self._build = build
        self._columns = columns
        self._forms: dict[str, _Form] = {}

    def first(self, tx: Tx, /, **values: Any) -> Any:
        """The first row (its columns by name), or None."""
        form = self._form(tx)
        row = form.execute(tx, values).fetchone()
        return None if row is None else form.row(row)

    def all(self, tx: Tx, /, **values: Any) -> list[Any]:
        """Every row."""
        form = self._form(tx)
        return [form.row(row) for row in form.execute(tx, values).fetchall()]

    def run(self, tx: Tx, /, **values: Any) -> int:
        """How many rows were changed."""
        return int(self._form(tx).execute(tx, values).rowcount)

    def many(self, tx: Tx, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run once for each of `rows`; how many rows of the table were changed in all."""
        return self._form(tx).execute_many(tx, rows) if rows else 0

    def _form(self, tx: Tx) -> _Form:
        dialect = tx.connection.dialect
        form = self._forms.get(dialect.name)
        if form is None:
            form = self._forms[dialect.name] = self._compiled(dialect)
        return form

    def _compiled(self, dialect: Dialect) -> _Form:
        insert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        statement: Statement = self._build(cast("InsertInto", insert))
        if isinstance(statement, Insert):
            # Inline: nothing is given back unless asked for.
            statement = statement.inline() if not statement.exported_columns else statement
        compiled = statement.compile(dialect=dialect, column_keys=self._columns)
        assert isinstance(compiled, SQLCompiler)
        given: dict[str, _Parameter] = {}
        for name, bound in compiled.binds.items():
            convert = bound.type.dialect_impl(dialect).bind_processor(dialect)
            fixed = bound.required or bound.key in (self._columns or ())
            constant = None if fixed else (convert(bound.value) if convert else bound.value)
            given[name] = _Parameter(bound.key, convert, fixed, constant)
        selected = statement.selected_columns if isinstance(statement, Select) else statement.exported_columns
        names = [column.key or "" for column in selected]
        results: list[Convert | None] = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in selected
        ]
        order = compiled.positiontup
        return _Form(
            str(compiled),
            [given[name] for name in order] if order is not None else None,
            given,
            len({parameter.key for parameter in given.values() if parameter.given}),
            namedtuple("Row", names) if names else None,
            results if any(results) else None,
            dialect,
        )


@dataclass(frozen=True, slots=True)
class _Parameter:
    key: str
    convert: Convert | None
    given: bool
    constant: Any

    def value(self, values: Mapping[str, Any]) -> Any:
        if not self.given:
            return self.constant
        value = values[self.key]
        return value if self.convert is None else self.convert(value)


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement as one database understands it."""

    sql: str
    in_order: list[_Parameter] | None
    by_name: dict[str, _Parameter]
    expected: int
    shape: Any
    results: list[Convert | None] | None
    dialect: Dialect

    def execute(self, tx: Tx, values: dict[str, Any]) -> Any:
        """A cursor of the driver, with the statement run."""
        given = self._given(values)
        driver = tx.driver
        try:
            return driver.execute(self.sql, given)
        except self.dialect.loaded_dbapi.Error as error:
            raise self._explained(error) from error

    def execute_many(self, tx: Tx, rows: Sequence[Mapping[str, Any]]) -> int:
        """The statement run for each of `rows`; on PostgreSQL in one go (psycopg's pipeline)."""
        given = [self._given(values) for values in rows]
        cursor = tx.driver.cursor()
        try:
            cursor.executemany(self.sql, given)
            return int(cursor.rowcount)
        except self.dialect.loaded_dbapi.Error as error:
            raise self._explained(error) from error
        finally:
            cursor.close()

    def _given(self, values: Mapping[str, Any]) -> Any:
        if len(values) != self.expected:
            raise TypeError(f"not the values of this statement: {sorted(values)}")
        if self.in_order is not None:
            return [parameter.value(values) for parameter in self.in_order]
        return {name: parameter.value(values) for name, parameter in self.by_name.items()}

    def _explained(self, error: Exception) -> Exception:
        base = cast("type[Exception]", self.dialect.loaded_dbapi.Error)
        return exc.DBAPIError.instance(self.sql, None, error, base, hide_parameters=True, dialect=self.dialect)

    def row(self, values: Sequence[Any]) -> Any:
        if self.results is not None:
            values = [
                value if convert is None else convert(value)
                for value, convert in zip(values, self.results, strict=True)
            ]
        return self.shape._make(values)
