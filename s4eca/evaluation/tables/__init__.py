"""Runs beside published results: the published numbers as data, and tables in Markdown, LaTeX and CSV."""
