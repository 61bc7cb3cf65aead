"""What a site runs: score one scan, score many, write and picture the results."""
