"""The command line, one file per command; each loads the room it needs when it runs."""
