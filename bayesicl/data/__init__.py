"""Small measured curves for the demo; see README.md beside this file."""
