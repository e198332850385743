"""Tests of the silo command, against a daemon made of canned answers."""
