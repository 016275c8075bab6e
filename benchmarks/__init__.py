"""What is measured, always beside a rival, in the same run and on the same machine."""
