"""Settings as one table of rows; file, environment and flags; all errors collected."""
