"""Is a prompt better, and by how much: arms asked through the cache, compared with statistics that hold."""
