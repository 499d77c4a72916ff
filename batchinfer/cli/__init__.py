"""The command line, a file for each group of commands: parse, call, exit code."""
