"""`docker build`: a Dockerfile and a context become an image, one committed step after another."""
