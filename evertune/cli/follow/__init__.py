"""Following a running experiment: snapshots from the database, a live screen, or one line per finished trial."""
