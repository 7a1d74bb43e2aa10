"""The keeping of the read models: tables, positions, outbox, and a fold of rows for each topic."""
