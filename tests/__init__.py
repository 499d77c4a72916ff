"""The tests. A package, so that engine processes can import the scripted driver by its name."""
