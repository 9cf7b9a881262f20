"""Parts of the paper: the figures, tables, numbers and text that each makes of its results."""
