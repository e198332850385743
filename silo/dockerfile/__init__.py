"""Dockerfiles and .dockerignore files, for Linux and Windows: text → frozen values. Pure; Docker's reference is the source.

`parser.parse_dockerfile` reads a file, `expansion` fills in variables, `options` and `run_options` read an instruction's arguments
into typed values, `ignore` decides which files of a context are sent. What an instruction does is the builder's affair.
Source: https://docs.docker.com/reference/dockerfile/
"""
