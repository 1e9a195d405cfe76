"""What the commands do, one job a file; lifecycle and progress are of the job that makes a split."""
