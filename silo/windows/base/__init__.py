"""The Windows base image, built from Debian's Wine."""
