"""Screens and reports: records in, styled lines out. Pure functions; time, width and marks are arguments."""
