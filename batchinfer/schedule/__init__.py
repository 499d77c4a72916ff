"""Runs jobs at their times, and writes what another scheduler needs to do so."""
