"""`report.html`: what an evaluation measured, on one page that needs nothing else."""
