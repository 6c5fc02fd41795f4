"""`flowprep bench`: how fast this machine is, and what a dataset would take."""
