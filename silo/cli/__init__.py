"""The silo command: a thin, fast client of the daemon; standard library only."""
