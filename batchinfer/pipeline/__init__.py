"""The commands that walk the whole flow: run, try, init, export, prune."""
