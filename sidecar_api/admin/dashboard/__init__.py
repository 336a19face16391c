"""The dashboard: pages that the server renders, for browsers that a principal let in; they only read."""
