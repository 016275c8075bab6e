"""What is measured: one file a subject, each with a `measure` that yields its rows."""
