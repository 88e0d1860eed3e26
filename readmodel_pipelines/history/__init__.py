"""History: what each event of one stream changed, who set what, and where the stored document stands in it."""
