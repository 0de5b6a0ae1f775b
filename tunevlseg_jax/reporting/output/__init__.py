"""The report as a reader sees it: Markdown, LaTeX, CSV files, figures and the page."""
