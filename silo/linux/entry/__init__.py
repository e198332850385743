"""The program that waits in a Linux container which was begun before anybody asked for it."""
