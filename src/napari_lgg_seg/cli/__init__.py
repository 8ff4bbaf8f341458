"""The command line: the same core without a window. Importing it loads no numpy."""
