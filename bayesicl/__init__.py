"""bayesicl."""
