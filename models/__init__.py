"""A Volume becomes an Assessment. Arrays in, values out; only bundle.py knows paths."""
