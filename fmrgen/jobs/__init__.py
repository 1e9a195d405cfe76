"""What makes, checks and moves a split: jobs, and the parts of the job that makes one."""
