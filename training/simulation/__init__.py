"""Virtual sacroplasty: anatomy, lesion, needle, cement, leak and scanner, drawn at random and rendered with truth."""
