"""What the forecast benchmark reads, whom it asks and how it sums up."""
