"""One YAML file per stage and run mode, readable with importlib.resources when installed."""
