"""The Docker Engine API: one route table; Docker's JSON is decoded and encoded at this edge only."""
