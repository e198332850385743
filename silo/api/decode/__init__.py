"""From Docker's JSON to values of the model; everything here is untrusted until it has passed."""
