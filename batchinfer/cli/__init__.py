"""The command line, one file for each group of commands: parse, call, exit code."""
