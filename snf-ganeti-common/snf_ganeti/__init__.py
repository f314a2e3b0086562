"""What more than one component of snf-ganeti needs, and nothing else."""
