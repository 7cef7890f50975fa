"""Types of columns: what is identified, followed and told of each."""
