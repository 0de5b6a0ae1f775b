"""Tables, figures and a page of the runs that lie under a folder: what the paper has, and how it came about."""
