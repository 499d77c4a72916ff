"""Terms in live texts: how texts are folded for comparison, and how terms are found in them."""
