"""The files of builds: contexts, what COPY and ADD take from them, and the layers that this makes."""
