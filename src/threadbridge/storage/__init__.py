"""The one database: plain functions in a transaction, and the only home of SQL.

`schema` names the tables, `store` opens the database and runs functions in transactions, `vault` seals secrets; the
other modules hold the functions, one noun each. They take a `Tx` first and plain values after it.
"""
