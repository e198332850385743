"""What each route does: decode, one call of the engine, encode."""
