"""The query list: files of any kind, read, checked, keyed and deduplicated."""
