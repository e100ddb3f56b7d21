"""report.html: what was run and what came of it, in one file that opens without a network."""
