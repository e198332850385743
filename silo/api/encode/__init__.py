"""From values of the model to Docker's JSON."""
