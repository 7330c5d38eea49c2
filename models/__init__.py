"""One file a law. Copy one of them to write your own; see README.md beside this file."""
