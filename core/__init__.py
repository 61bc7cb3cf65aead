"""What every room speaks: geometry, volumes, structures, results, errors. No torch, no sklearn, no web."""
